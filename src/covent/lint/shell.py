"""The settings in a shell script: `key=value` words and `--key value` options, with the script's own variables put in.

Nothing is run. Read are assignments, `$x`, `${x}`, `${x:-default}`, `$((arithmetic))`, quotes, comments and lines that
go on after a backslash. Branches and loops are not followed: of several assignments the last one before the use counts.
What only the run can know (the environment, the output of a command) stays as `$…` and counts as unknown.
"""

from __future__ import annotations

import ast
import operator
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from itertools import takewhile
from typing import Any

import yaml

from covent import strict_yaml
from covent.errors import ConfigError
from covent.lint.settings import Settings, flattened

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_SETTING = re.compile(r"(\+\+|\+|~)?([A-Za-z_][\w./@-]*)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)(?::?[-=]([^{}]*))?\}|([A-Za-z_]\w*))")
_ARITHMETIC = re.compile(r"\$\(\((.*?)\)\)")
_HERE = re.compile(r"(?<!<)<<(?!<)-?\s*['\"\\]?(\w+)")
_LONGEST = 200
"""Lines that one quoted text may have."""
_WIDEST = 100_000
"""Characters of one command; variables can double each other."""
_STRICT = re.compile(r"^\s*set\s+(?:-\w*u|-o\s+nounset)", re.MULTILINE)
_OPERATIONS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda dividend, divisor: _towards_zero(dividend, divisor),
    ast.Mod: lambda dividend, divisor: dividend - divisor * _towards_zero(dividend, divisor),
}


def shell_settings(text: str, source: str) -> Settings:
    """The settings that the commands of a shell script set.

    Args:
      text: the script, or bare `key=value` lines.
      source: its name, for messages.

    Raises: ConfigError where a quote is not closed.

    Example:
      >>> shell_settings('n=$((4 * 8))\\npython -m train data.train_batch_size=$n', "run.sh").values
      {'data.train_batch_size': 32}
    """
    values: dict[str, Any] = {}
    variables: dict[str, str] = {}
    used: set[str] = set()
    for line in _lines(text):
        expanded, names = _expanded(line, variables)
        if len(expanded) > _WIDEST:
            raise ConfigError(f"{source}: with its variables put in, a command has {len(expanded):,} characters.")
        used |= names
        words = _words(expanded, source)
        before = [*takewhile(_ASSIGNMENT.fullmatch, words)]
        if len(before) == len(words) or words[0] in ("export", "local", "readonly", "declare"):
            variables |= dict(each.partition("=")[::2] for each in words if _ASSIGNMENT.fullmatch(each))
        else:
            values |= dict(_settings(words[len(before) :]))
    assigned = {name: parsed(value) for name, value in variables.items()}
    missing = _missing(values, text) if _STRICT.search(text) else frozenset()
    return Settings(source, values, assigned, frozenset(used), missing)


def override(word: str) -> tuple[str, Any] | None:
    """Name and value of a `key=value` word, Hydra's `+` and `++` taken off; None if it is none, or takes a key away.

    Example:
      >>> override("++actor_rollout_ref.actor.entropy_coeff=1e-3")
      ('actor_rollout_ref.actor.entropy_coeff', 0.001)
    """
    found = _SETTING.fullmatch(word)
    return None if found is None or found[1] == "~" else (found[2], parsed(found[3]))


def parsed(value: str) -> Any:
    """The value that a word stands for: a number, true or false, null, a list, or the word."""
    try:
        return strict_yaml.load(_spaced(value) if value.startswith(("{", "[")) else value)
    except yaml.YAMLError:
        return value


def _spaced(value: str) -> str:
    """Hydra's `{a:1,b:[{c:2}]}` as YAML has it, with a blank after the colon of each key."""
    brackets: list[str] = []
    quote, is_key, spaced = "", False, ""
    for character in value:
        spaced += character
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "{[":
            brackets.append(character)
            is_key = character == "{"
        elif character in "}]":
            del brackets[-1:]
            is_key = False
        elif character == ",":
            is_key = brackets[-1:] == ["{"]
        elif character == ":" and is_key:
            spaced, is_key = spaced + " ", False
    return spaced


def _lines(text: str) -> Iterator[str]:
    """The commands of a script: lines joined where a backslash or an open quote says so.

    Comments are left out, and so are here-documents, which are text for other programs.
    """
    waiting, joined, document = "", 0, None
    for line in text.splitlines():
        if document is not None:
            document = None if line.strip() == document else document
            continue
        waiting += re.sub(r"(?:^|(?<=\s))#[^'\"]*$|^\s*#.*", "", line)
        if re.search(r"(?<!\\)(?:\\\\)*\\$", line):
            waiting = waiting[:-1] + " "
        elif joined < _LONGEST and _is_open(waiting):
            waiting, joined = waiting + "\n", joined + 1
        else:
            yield waiting
            here = _HERE.search(_ARITHMETIC.sub("", waiting))
            waiting, joined, document = "", 0, here and here[1]
    yield waiting


def _is_open(line: str) -> bool:
    try:
        shlex.split(line, comments=True)
    except ValueError:
        return True
    return False


def _expanded(line: str, variables: dict[str, str]) -> tuple[str, set[str]]:
    """A line with the variables known so far put in, outside single quotes; and the names of all it uses."""
    names: set[str] = set()

    def put_in(found: re.Match[str]) -> str:
        name = found[1] or found[3]
        names.add(name)
        return variables.get(name, found[2] if found[2] is not None else found[0])

    parts = re.split(r"('[^']*')", line)
    outside = [part if place % 2 else _VARIABLE.sub(put_in, part) for place, part in enumerate(parts)]
    return _ARITHMETIC.sub(lambda found: _result(found[1], variables, names), "".join(outside)), names


def _missing(values: Mapping[str, Any], text: str) -> frozenset[str]:
    """Variables in the settings that nothing in the script assigns; names in capitals come from the environment."""
    texts = [value for value in values.values() if isinstance(value, str)]
    left = {found[1] or found[3] for value in texts for found in _VARIABLE.finditer(value)}
    set_somewhere = r"(?<![.\w]){0}\+?=|\b(?:for|read|local)\b.*\b{0}\b"
    return frozenset(name for name in left if name.islower() and not re.search(set_somewhere.format(name), text))


def _towards_zero(dividend: int, divisor: int) -> int:
    """A quotient as the shell has it: -7 / 2 is -3."""
    quotient = abs(dividend) // abs(divisor)
    return quotient if (dividend < 0) == (divisor < 0) else -quotient


def _result(expression: str, variables: dict[str, str], names: set[str]) -> str:
    """What shell arithmetic comes to; itself where that is not known."""

    def value(node: ast.AST) -> int:
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
            return int(_OPERATIONS[type(node.op)](value(node.left), value(node.right)))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        if isinstance(node, ast.Name):
            names.add(node.id)
            return int(variables[node.id])
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        raise ValueError

    try:
        return str(value(ast.parse(expression.strip(), mode="eval").body))
    except (SyntaxError, ValueError, KeyError, ArithmeticError, RecursionError):
        return "$((" + expression.replace(" ", "") + "))"


def _words(line: str, source: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        raise ConfigError(f"{source}: a quote is not closed in: {line.strip()[:80]}") from None


def _settings(words: list[str]) -> Iterator[tuple[str, Any]]:
    """The settings among the words of a command: `a.b=1`, `--b 1`, `--b=1`."""
    for place, word in enumerate(words):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            after = words[place + 1] if place + 1 < len(words) else "--"
            value = value if equals else "true" if after.startswith("--") else after
            yield name.replace("-", "_"), parsed(value)
        elif (found := override(word)) is not None and not found[0].isupper():
            name, value = found
            yield from flattened({name: value}).items()
