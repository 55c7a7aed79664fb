"""How numbers are written."""

from __future__ import annotations

import pytest

from covent.report import numbers as n
from covent.report.accuracy import Difference
from covent.store.schema import Estimate


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (0.008952, "0.00895"),
        (12.0, "12.0"),
        (123.4, "123"),
        (999.6, "1000"),
        (-0.25, "−0.250"),
        (1.234e-7, "1.23e−07"),
        (54321.0, "54321"),
        (1.5e9, "1.5e+09"),
        (None, "–"),
    ],
)
def test_plain(value: float | None, text: str) -> None:
    assert n.plain(value) == text


def test_signs_and_units() -> None:
    assert n.signed(0.018, 2) == "+0.02" and n.signed(-0.018, 2) == "−0.02"
    assert n.signed(-0.0004, 2) == "0.00" and n.fixed(-0.0004, 2) == "0.00"
    assert n.percent(0.918) == "91.8 %" and n.points(-0.018) == "−1.8 points"
    assert n.share(0.0004) == "0.040 %" and n.share(0.41) == "41 %" and n.share(1.0) == "100 %"
    assert n.nats(0.18) == "0.180 nats" and n.factor(5.93) == "5.9×"
    assert [n.percent(None), n.points(None), n.nats(None), n.share(None), n.factor(None)] == ["–"] * 5
    assert [n.estimate(None), n.difference(None)] == ["–"] * 2


def test_intervals() -> None:
    assert n.estimate(Estimate(value=0.918, low=0.88, high=0.945)) == "91.8 % [88.0, 94.5]"
    assert n.difference(Difference(value=0.018, low=-0.002, high=0.038)) == "+1.8 points [−0.2, +3.8]"


def test_durations() -> None:
    assert [n.minutes(seconds) for seconds in (3.21, 34.4, 59.6, 220.0, 7500.0)] == [
        "3.2 s",
        "34 s",
        "1 min 0 s",
        "3 min 40 s",
        "2 h 5 min",
    ]


def test_text_for_the_page() -> None:
    assert n.unbroken("4.3 % of 0.18 nats in 5 steps, [1, 2] and 3 more") == (
        "4.3\u00a0% of 0.18\u00a0nats in 5\u00a0steps, [1, 2] and 3 more"
    )
