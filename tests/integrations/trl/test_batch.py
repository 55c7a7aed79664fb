"""A policy in half precision: its log-probs are measured in float32, with the values that they have."""

from __future__ import annotations

import pytest
import torch

from covent.controls import KLCov, plan
from covent.core.keys import TokenIdentity
from covent.core.plan import Measured
from covent.errors import PrecisionError
from covent.integrations.trl.batch import Columns, Scores, measured
from covent.integrations.trl.execution import terms_of

SHAPE = (16, 32)


def half_precision(dtype: torch.dtype) -> tuple[Columns, Scores]:
    """A micro-batch as TRL has it under a model of this precision, 0.3 nats away from the policy that sampled."""
    generator = torch.Generator().manual_seed(0)
    logprobs = -2 * torch.rand(SHAPE, generator=generator)
    sample, position = torch.meshgrid(torch.arange(SHAPE[0]), torch.arange(SHAPE[1]), indexing="ij")
    columns = Columns(
        mask=torch.ones(SHAPE, dtype=torch.bool),
        advantages=torch.tensor([1.0, -1.0] * 8)[:, None].expand(SHAPE),
        identity=TokenIdentity(sample // 4, sample % 4, position),
        old_logprobs=(logprobs - 0.3).to(dtype),
        sampler_logprobs=(logprobs - 0.3).to(dtype),
        reference_logprobs=logprobs.to(dtype),
    )
    return columns, Scores(logprobs.to(dtype), torch.rand(SHAPE, generator=generator).to(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_it_is_measured_in_float32_at_least(dtype: torch.dtype) -> None:
    columns, scores = half_precision(dtype)
    whole = measured([columns], [scores], on_policy=False, group=None)
    wanted = torch.promote_types(dtype, torch.float32)
    for name in ("logprobs", "old_logprobs", "entropies", "advantages", "sampler_logprobs", "reference_logprobs"):
        assert getattr(whole, name).dtype == wanted
    assert torch.equal(whole.logprobs, scores.logprobs.to(wanted))
    made = plan(whole, KLCov(kl_cov_ratio=0.05), key=0)
    assert int((made.kl_weight > 0).sum()) == made.reading.num_selected == int(0.05 * columns.mask.numel())


def test_the_plan_acts_on_a_loss_in_half_precision() -> None:
    columns, scores = half_precision(torch.bfloat16)
    made = plan(measured([columns], [scores], on_policy=False, group=None), KLCov(kl_cov_ratio=0.05), key=0)
    logprobs = scores.logprobs.clone().requires_grad_()
    terms = terms_of(made, Scores(logprobs, scores.entropies), columns)
    (gradient,) = torch.autograd.grad(terms.kl.sum(), logprobs)
    assert torch.equal(gradient, made.chosen.to(torch.bfloat16))


def test_as_it_is_it_is_refused() -> None:
    """The rounding of bfloat16, 64-fold, is more than the 0.3 nats that the policy has moved."""
    columns, scores = half_precision(torch.bfloat16)
    values = {name: getattr(columns, name) for name in ("advantages", "old_logprobs", "mask", "identity")}
    with pytest.raises(PrecisionError, match="bfloat16"):
        Measured(logprobs=scores.logprobs, entropies=scores.entropies, **values)
