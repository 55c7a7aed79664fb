"""What a verdict says, and when too many that say nothing stop a run."""

from __future__ import annotations

import pytest

from covent.errors import VerifierError
from covent.verifiers.verdict import Judgement, Verdict
from covent.verifiers.watch import ErrorWatch

FINE = Judgement.of(Verdict.WRONG)
ERROR = Judgement.of(Verdict.ERROR, "the function 'score' raised ZeroDivisionError")


def test_only_what_is_known_has_a_reward() -> None:
    rewards = {str(verdict): verdict.reward for verdict in Verdict}
    assert rewards == {
        "right": 1.0,
        "wrong": 0.0,
        "unparsable": 0.0,
        "time-out": 0.0,
        "crash": 0.0,
        "error": None,
        "not applicable": None,
    }
    assert all((verdict.reward is None) != verdict.is_judged for verdict in Verdict)


def test_faults_are_what_a_person_should_look_at() -> None:
    assert {str(verdict) for verdict in Verdict if Judgement.of(verdict).is_fault} == {"time-out", "crash", "error"}
    assert Judgement(Verdict.RIGHT, 1.0, warning="it changed its argument").is_fault


@pytest.mark.parametrize(
    ("batches", "stops"),
    [
        ([(1, 10)], False),
        ([(2, 10)], True),
        ([(10, 10)], True),
        ([(1, 100)], False),
        ([(2, 100)], True),
        ([(2, 256)], False),
        ([(3, 256)], True),
        ([(1, 50), (0, 50), (1, 50)], False),
        ([(1, 50), (1, 50)], True),
        ([(1, 100), (1, 100), (1, 100)], False),
        ([(0, 10_000), (2, 100)], True),
    ],
)
def test_the_share_is_over_the_newest_responses(batches: list[tuple[int, int]], stops: bool) -> None:
    watch = ErrorWatch(0.01)
    try:
        for errors, count in batches:
            watch.see([ERROR] * errors + [FINE] * (count - errors), "rollout step 3")
        stopped = False
    except VerifierError as error:
        stopped = True
        assert "rollout step 3" in str(error) and ERROR.reason in str(error) and "max_error_frac" in str(error)
    assert stopped == stops


def test_other_verdicts_stop_nothing() -> None:
    watch = ErrorWatch(0.0)
    watch.see([Judgement.of(verdict) for verdict in Verdict if verdict is not Verdict.ERROR] * 50, "rollout step 0")
    with pytest.raises(VerifierError):
        watch.see([ERROR], "rollout step 1")
