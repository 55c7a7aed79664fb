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


MERGES = {
    "own first": "a: &a {x: 1, y: 2}\nb: {z: 3, <<: *a, x: 5}",
    "own last": "a: &a {x: 1, y: 2}\nb: {x: 5, <<: *a}",
    "several": "a: &a {x: 1, y: 2}\nb: &b {x: 3, z: 4}\nc: {<<: [*a, *b], y: 0}",
    "chain": "a: &a {x: 1, y: 2}\nz: {deep: {b: &b {<<: *a, x: 2}}}\nc: {<<: *b, y: 7}",
    "quoted": "a: {'<<': 1}",
    "value": "a: '<<'",
    "in a list": "a: &a {x: 1}\nb: [{<<: *a}, {<<: *a, x: 2}]",
}


@pytest.mark.parametrize("text", MERGES.values(), ids=MERGES)
def test_merge_keys_are_merged_as_pyyaml_does(text: str) -> None:
    assert strict_yaml.load(text) == yaml.safe_load(text)
    assert strict_yaml.load(strict_yaml.dump(strict_yaml.load(text))) == yaml.safe_load(text)


@pytest.mark.parametrize("text", ["a: {<<: 1}", "a: {<<: [1]}", "a: &a {x: 1}\nb: {<<: *a, y: 1, y: 2}"])
def test_a_merge_of_no_mapping_and_a_key_twice_beside_one_are_errors(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match=r"takes a mapping|'y' is there twice"):
        strict_yaml.load(text)


def test_merges_of_merges_end() -> None:
    keys = ", ".join(f"k{number}: 1" for number in range(200))
    many = ", ".join(["*a"] * 1000)
    with pytest.raises(yaml.YAMLError, match="more than 100,000"):
        strict_yaml.load(f"a: &a {{{keys}}}\nb: {{<<: [{many}]}}")


def test_a_number_of_thousands_of_digits_is_an_error() -> None:
    with pytest.raises(yaml.YAMLError, match="5,001 digits"):
        strict_yaml.load("a: " + "1" * 5001)
