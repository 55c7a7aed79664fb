"""YAML 1.2's plain words, against what PyYAML makes of the same text, and the way back."""

import math

import pytest
import yaml

from covent import strict_yaml

PLAIN = {
    "yes": "yes",
    "no": "no",
    "on": "on",
    "true": True,
    "False": False,
    "010": "010",
    "08": "08",
    "1:30": "1:30",
    "3e-4": 3e-4,
    "1e5": 1e5,
    "-1.5": -1.5,
    ".5": 0.5,
    "7.": 7.0,
    "-12": -12,
    "0": 0,
    "2026-11-21": "2026-11-21",
    "~": None,
    "": None,
    "0x10": "0x10",
    "1_000": "1_000",
}


@pytest.mark.parametrize(("text", "value"), PLAIN.items())
def test_plain_words(text: str, value: object) -> None:
    found = strict_yaml.load(f"a: {text}")["a"]
    assert (found, type(found)) == (value, type(value))


def test_pyyaml_alone_reads_them_otherwise() -> None:
    assert yaml.safe_load("[no, 010, 1:30, 3e-4]") == [False, 8, 90, "3e-4"]


def test_infinity_and_not_a_number_are_numbers() -> None:
    assert strict_yaml.load("-.inf") == -math.inf
    assert math.isnan(strict_yaml.load(".nan"))


@pytest.mark.parametrize(
    "value", [*PLAIN, *PLAIN.values(), 1e-7, 1e300, math.inf, "a: b", "<<", {"a": ["no", "1e5", {}]}]
)
def test_what_is_written_reads_back(value: object) -> None:
    found = strict_yaml.load(strict_yaml.dump({"a": value}))["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "x: {a: 1, a: 1}", "- {1: a, 1: b}"])
def test_a_key_twice_is_an_error_with_its_line(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match=r"(?s)is there twice.*line"):
        strict_yaml.load(text)
    assert yaml.safe_load(text) is not None


def test_deep_nesting_is_an_error_and_not_a_crash() -> None:
    with pytest.raises(yaml.YAMLError, match="nested too deeply"):
        strict_yaml.load("[" * 5000)
