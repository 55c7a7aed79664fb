"""100 texts that create a file if anything on their way runs them. MARKER is put in by the test."""

from __future__ import annotations

import json


def payloads() -> list[str]:
    """All of them, by what they are meant for."""
    found = [*PYTHON, *SYMPY, *YAML, *PICKLE, *TEMPLATE, *LATEX, *SHELL, *MARKUP, *DATA]
    assert len(found) == len(set(found)) == 100
    return found


_TOUCH = "touch MARKER"
_OPEN = "open('MARKER', 'w').close()"
_SYSTEM = f"__import__('os').system('{_TOUCH}')"

PYTHON = [
    _OPEN,
    _SYSTEM,
    f'eval("{_OPEN}")',
    f'exec("{_OPEN}")',
    f"(lambda: {_OPEN})()",
    f"[{_OPEN} for _ in (1,)]",
    f"1 if {_SYSTEM} == 0 else 2",
    f"assert {_SYSTEM} == 0",
    f"assert f(1) == {_SYSTEM}",
    f"import os; os.system('{_TOUCH}')",
    f"def check(candidate):\n    {_OPEN}\n",
    f"f'{{{_OPEN}}}'",
    f"getattr(__builtins__, 'ex' + 'ec')(\"{_OPEN}\")",
    "().__class__.__base__.__subclasses__()[0].__init__.__globals__",
    "__import__('subprocess').run(['touch', 'MARKER'])",
    "__import__('pathlib').Path('MARKER').touch()",
    f"type('X', (), {{'__repr__': lambda self: {_OPEN}}})()",
    f"{{'a': {_OPEN}}}",
    f"0 or {_SYSTEM}",
    f"# -*- coding: utf-8 -*-\n{_OPEN}",
]

SYMPY = [
    f"sympify('{_TOUCH}')",
    f"Integer(1).__class__({_SYSTEM})",
    f"x + {_SYSTEM}",
    f"Symbol('x', **{{'assumptions': {_SYSTEM}}})",
    f"Function('f')({_SYSTEM})",
    f"lambdify(x, {_OPEN})()",
    f'parse_expr("{_OPEN}")',
    f"S('{_SYSTEM}')".replace("'os'", '"os"').replace(f"'{_TOUCH}'", f'"{_TOUCH}"'),
    f"x.subs(x, {_OPEN})",
    f"sqrt({_OPEN})",
    f"1 + {_OPEN} + 2",
    f"{_OPEN}!",
]

YAML = [
    f"!!python/object/apply:os.system ['{_TOUCH}']",
    f"!!python/object/new:os.system ['{_TOUCH}']",
    f"name: !!python/object/apply:os.system ['{_TOUCH}']",
    "!!python/object/apply:builtins.open ['MARKER', 'w']",
    "!!python/object/apply:subprocess.check_output [['touch', 'MARKER']]",
    f'!!python/object/apply:eval ["{_OPEN}"]',
    "!!python/module:MARKER",
    "!!python/name:os.system",
    f"- !!python/object/apply:posix.system [{_TOUCH}]",
    f"task: {{name: !!python/object/apply:os.system ['{_TOUCH}']}}",
    f"!<tag:yaml.org,2002:python/object/apply:os.system> ['{_TOUCH}']",
    f"? !!python/object/apply:os.system ['{_TOUCH}']\n: 1",
]

PICKLE = [
    f"cos\nsystem\n(S'{_TOUCH}'\ntR.",
    f"cposix\nsystem\n(S'{_TOUCH}'\ntR.",
    "cbuiltins\nopen\n(S'MARKER'\nS'w'\ntR.",
    f'c__builtin__\neval\n(S"{_OPEN}"\ntR.',
    f"(S'{_TOUCH}'\nios\nsystem\n.",
    f"\x80\x04cos\nsystem\nS'{_TOUCH}'\n\x85R.",
]

TEMPLATE = [
    f"{{{{ {_OPEN} }}}}",
    f"{{{{ cycler.__init__.__globals__.os.system('{_TOUCH}') }}}}",
    f"{{{{ ''.__class__.__mro__[1].__subclasses__()[0]('{_TOUCH}') }}}}",
    "{{ self.__init__.__globals__.__builtins__.open('MARKER', 'w') }}",
    "{% for c in [].__class__.__base__.__subclasses__() %}{{ c('MARKER', 'w') }}{% endfor %}",
    f"{{% import os %}}{{{{ os.system('{_TOUCH}') }}}}",
    f"{{{{ lipsum.__globals__['os'].popen('{_TOUCH}').read() }}}}",
    f"${{ {_SYSTEM} }}",
    "{0.__class__.__init__.__globals__[os].system}",
    f"%({_SYSTEM})s",
    f"<% {_SYSTEM} %>",
    f"#{{ {_SYSTEM} }}",
]

LATEX = [
    f"\\immediate\\write18{{{_TOUCH}}}",
    f"\\input{{|{_TOUCH}}}",
    f'\\include{{|"{_TOUCH}"}}',
    "\\newwrite\\f\\immediate\\openout\\f=MARKER\\immediate\\write\\f{x}",
    f"\\directlua{{os.execute('{_TOUCH}')}}",
    f"\\boxed{{{_OPEN}}}",
    f"\\boxed{{\\text{{{_SYSTEM}}}}}",
    f"$\\operatorname{{{_SYSTEM}}}(x)$",
    f"\\frac{{{_OPEN}}}{{1}}",
    f"\\sqrt[{_OPEN}]{{2}}",
]

SHELL = [
    f"$({_TOUCH})",
    f"`{_TOUCH}`",
    f"; {_TOUCH}",
    f"| {_TOUCH}",
    f"&& {_TOUCH}",
    f"\n{_TOUCH}\n",
    f"'; {_TOUCH} #",
    f'"; {_TOUCH} #',
    f"() {{ :; }}; {_TOUCH}",
    f"--out=$({_TOUCH})",
]

MARKUP = [
    f"<script>require('child_process').exec('{_TOUCH}')</script>",
    f'<img src=x onerror="{_SYSTEM}">',
    f"<?php system('{_TOUCH}'); ?>",
    f'<!DOCTYPE x [<!ENTITY e SYSTEM "expect://{_TOUCH}">]><x>&e;</x>',
    f"[link=file://MARKER]{_TOUCH}[/link]",
    f"\x1b]8;;file://MARKER\x1b\\{_TOUCH}\x1b]8;;\x1b\\",
]

DATA = [
    json.dumps({"__class__": "os.system", "args": [_TOUCH]}),
    json.dumps({"py/object": "os.system", "py/newargs": [_TOUCH]}),
    json.dumps({"py/reduce": [{"py/function": "os.system"}, {"py/tuple": [_TOUCH]}]}),
    json.dumps({"prompt": _SYSTEM, "answer": _OPEN, "asserts": [f"assert {_SYSTEM}"]}),
    json.dumps({"kind": "asserts", "cases": [_OPEN], "functions": ["f"]}),
    json.dumps({"test": f"def check(c):\n    {_OPEN}", "entry_point": f"{_SYSTEM}"}),
    json.dumps({"loss": _SYSTEM, "step": _OPEN, "entropy": {"__reduce__": _TOUCH}}),
    f"step,entropy,reward\n=cmd|'/c {_TOUCH}'!A1,{_SYSTEM},1",
    f"step: {_SYSTEM} - entropy: {_OPEN} - reward: 1",
    "../../../../../../../../MARKER",
    "file://MARKER",
    f"MARKER:{_SYSTEM}",
]
