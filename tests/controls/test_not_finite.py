"""A number that is not finite stops every control that ranks covariances; behind the mask it is nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from covent.controls import AnyControl, ClipCov, ClipCovReleased, KLCov, KLCovReleased, plan
from covent.core.plan import Measured
from covent.errors import NonFiniteError
from tests.support.batches import optimizer_batch

SELECTING: list[AnyControl] = [
    ClipCov(clip_cov_ratio=0.05, clip_cov_lb=0.1),
    KLCov(kl_cov_ratio=0.05),
    ClipCovReleased(clip_cov_ratio=0.05, clip_cov_lb=0.1),
    KLCovReleased(kl_cov_ratio=0.05),
]


def spoilt(column: str, bad: float, *, counts: bool) -> Measured:
    """A batch with one bad number, at a token that carries gradient or at one that does not."""
    batch = optimizer_batch(0, drift=0.8)
    values = getattr(batch, column).clone()
    row, token = (batch.mask if counts else ~batch.mask).nonzero()[0].tolist()
    values[row, token] = bad
    return replace(batch, **{column: values})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("column", ["logprobs", "advantages"])
@pytest.mark.parametrize("settings", SELECTING, ids=lambda one: one.type)
def test_it_is_an_error_and_not_an_empty_choice(settings: AnyControl, column: str, bad: float) -> None:
    with pytest.raises(NonFiniteError, match=r"not finite|is nan|is -?inf"):
        plan(spoilt(column, bad, counts=True), settings, key=0)
    clean = plan(optimizer_batch(0, drift=0.8), settings, key=0)
    masked = plan(spoilt(column, bad, counts=False), settings, key=0)
    assert bool((masked.chosen == clean.chosen).all()) and bool(clean.chosen.any())
