"""YAML as people expect it: YAML 1.2's plain words, and no key twice.

PyYAML follows YAML 1.1, where `no` is false, `1:30` is ninety, `010` is eight, `3e-4` is text, and the last of two
equal keys wins without a word. Here true and false are the only booleans, numbers are decimal, and a repeated key is
an error with its line. `<<` merges, as in PyYAML and in OmegaConf.
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
    ("merge", r"<<", "<"),
    ("null", r"~|null|Null|NULL|", "~nN"),
)
"""What an unquoted word means: tag, pattern, first characters."""


_MERGE = "tag:yaml.org,2002:merge"
_MOST_MERGED = 100_000
"""Settings that `<<` may bring in; references can say exponentially many in a few lines."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.merged = 0

    def compose_mapping_node(self, anchor: Any) -> Any:
        # Looked at here, each mapping once: merging changes the node, and a key that replaces a merged one is no slip.
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == _MERGE or not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' is there twice", key.start_mark)
            seen.add(key.value)
        return node

    def flatten_mapping(self, node: Any) -> None:
        """Put the mappings named by `<<` under a mapping's own keys; of several, the first that has a key counts."""
        sources = [value for key, value in node.value if key.tag == _MERGE]
        if not sources:
            return
        own = node.value = [pair for pair in node.value if pair[0].tag != _MERGE]
        merged: dict[Any, Any] = {}
        for source in sources:
            for each in reversed(source.value) if isinstance(source, yaml.SequenceNode) else [source]:
                if not isinstance(each, yaml.MappingNode):
                    raise yaml.constructor.ConstructorError(
                        None, None, "'<<' takes a mapping or a list of mappings", each.start_mark
                    )
                self.flatten_mapping(each)
                self.merged += len(each.value)
                if self.merged > _MOST_MERGED:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"'<<' brings in more than {_MOST_MERGED:,} settings", each.start_mark
                    )
                merged |= {_name(key): (key, value) for key, value in each.value}
        node.value = list((merged | {_name(key): (key, value) for key, value in own}).values())

    def construct_yaml_int(self, node: Any) -> int:
        try:
            return int(super().construct_yaml_int(node))
        except ValueError:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number of {len(node.value):,} digits is too large", node.start_mark
            ) from None


def _name(key: Any) -> Any:
    """What tells a key of a mapping from another."""
    return (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way


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
