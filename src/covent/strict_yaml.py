"""YAML as people expect it: YAML 1.2's plain words, and no key twice.

PyYAML follows YAML 1.1, where `no` is false, `1:30` is ninety, `010` is eight, `3e-4` is text, and the last of two
equal keys wins without a word. Here true and false are the only booleans, numbers are decimal, and a repeated key is
an error with its line.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_PLAIN = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", "~nN"),
)
"""What an unquoted word means: tag, pattern, first characters."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        for place, key in enumerate(keys):
            if any(key.value == before.value for before in keys[:place]):
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' is there twice", key.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


for _class in (_Loader, _Dumper):
    for _tag, _pattern, _first in _PLAIN:
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}",
            re.compile(f"(?:{_pattern})$"),
            [*_first, ""] if _tag == "null" else list(_first),
        )


def load(text: str) -> Any:
    """What a YAML text says.

    Raises: yaml.YAMLError with line and column: not YAML, a key twice, or nested too deeply to be read.

    Example:
      >>> load("steps: 3\\ncache: no\\nlr: 3e-4")
      {'steps': 3, 'cache': 'no', 'lr': 0.0003}
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    finally:
        loader.dispose()


def dump(value: Any) -> str:
    """A YAML text that `load` reads back as the same value, keys in their order."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False)
    return text
