"""Bad input is refused with its name and index; good input passes unchanged."""

from typing import Any

import numpy as np
import pytest

from covent.errors import FitError, ShapeError
from covent.law import fit, fit_line
from covent.law.series import aligned, check_increasing, checked_points, counted, gaps_of

GOOD = ([0.5, 0.3, 0.2, 0.1], [0.30, 0.34, 0.36, 0.38])


def test_good_input_passes_unchanged() -> None:
    entropy, accuracy = aligned(entropy=GOOD[0], accuracy=GOOD[1])
    assert entropy.tolist() == GOOD[0]
    assert accuracy.tolist() == GOOD[1]


@pytest.mark.parametrize(
    ("entropy", "accuracy", "error", "message"),
    [
        ([0.5, 0.3, 0.2], GOOD[1], ShapeError, r"3 values and accuracy has 4: accuracy\[3\] has no partner"),
        (GOOD[0], [0.3, 0.34], ShapeError, r"entropy\[2\] has no partner in accuracy"),
        ([GOOD[0]], GOOD[1], ShapeError, r"entropy has shape \(1, 4\)"),
        ([0.5, float("nan"), 0.2, 0.1], GOOD[1], FitError, r"entropy\[1\] = nan is not a finite"),
        ([0.5, 0.3, None, 0.1], GOOD[1], FitError, r"entropy\[2\] = nan"),
        (GOOD[0], [0.3, 0.34, float("inf"), float("inf")], FitError, r"accuracy\[2\] = inf .*\(2 such values in all\)"),
        ([0.5, "high", 0.2, 0.1], GOOD[1], FitError, "entropy holds something that is not a number"),
        ([0.5, 0.3, 0.2, -0.1], GOOD[1], FitError, r"entropy\[3\] = -0\.1 is negative"),
        ([0.5, 0.3, 0.2, 31.0], GOOD[1], FitError, r"entropy\[3\] = 31 is above 30 nats"),
        (GOOD[0], [0.3, 34.0, 0.36, 0.38], FitError, r"accuracy\[1\] = 34 lies outside \[0, 1\].*unit='percent'"),
    ],
)
@pytest.mark.parametrize("form", [fit, fit_line])
def test_bad_input_is_named(form: Any, entropy: Any, accuracy: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        form(entropy, accuracy, unit="fraction")


def test_unknown_unit_is_named() -> None:
    with pytest.raises(FitError, match=r"unit is 'points'; allowed are 'fraction' .* 'percent'"):
        fit(*GOOD, unit="points")  # type: ignore[arg-type]  # wrong on purpose


def test_steps_must_increase() -> None:
    check_increasing("step", np.array([0.0, 4.0, 8.0]))
    with pytest.raises(FitError, match=r"step\[2\] = 4 is not after"):
        check_increasing("step", np.array([0.0, 4.0, 4.0]))


def test_gaps_are_in_units_of_the_usual_one() -> None:
    assert gaps_of(np.arange(5.0) * 8) is None
    assert gaps_of(np.array([3.0])) is None
    assert gaps_of(np.array([0.0, 4.0, 8.0, 16.0, 18.0])).tolist() == [np.inf, 1.0, 1.0, 2.0, 0.5]


def test_a_part_keeps_what_belongs_together() -> None:
    points = checked_points(*GOOD, "fraction", step=[0, 4, 8, 20], weights=[1, 2, 3, 4])
    part = points.part(np.array([True, False, True, True]))
    assert part.entropy.tolist() == [0.5, 0.2, 0.1]
    assert part.step.tolist() == [0, 8, 20]
    assert part.weights.tolist() == [1, 3, 4]
    assert part.gaps.tolist() == [np.inf, 0.8, 1.2]


def test_steps_and_weights_are_checked() -> None:
    with pytest.raises(FitError, match=r"weights\[1\] = 0 is not positive"):
        fit(*GOOD, unit="fraction", weights=[1, 0, 1, 1])
    with pytest.raises(FitError, match=r"step\[2\] = 4 is not after"):
        fit(*GOOD, unit="fraction", step=[0, 4, 4, 8])
    with pytest.raises(ShapeError, match="step has 3"):
        fit(*GOOD, unit="fraction", step=[0, 4, 8])


def test_things_are_counted_in_their_own_number() -> None:
    assert [counted(count, "point") for count in (0, 1, 2)] == ["0 points", "1 point", "2 points"]
