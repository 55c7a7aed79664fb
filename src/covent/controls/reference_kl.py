"""A KL to a fixed reference policy at every token: the leash of RLHF, and of GRPO as first published."""

from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from covent.core.penalties import KLForm
from covent.core.plan import Measured, Plan, no_selection, unclipped_plan
from covent.errors import ConfigError


class ReferenceKL(BaseModel):
    """Settings of the reference KL, with verl's names."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    type: Literal["reference_kl"] = "reference_kl"
    kl_loss_coef: float = Field(default=0.001, gt=0)
    """Factor of the KL term at every token; TRL's `beta`."""
    kl_loss_type: KLForm = "k3"
    """`k3` is verl's low_var_kl and TRL's form; `k2` has the right expected gradient on-policy; `k1` has none in
    expectation; `abs` is |log ratio|; `exact` sums over the vocabulary."""


def reference_kl(measured: Measured, settings: ReferenceKL, key: int) -> Plan:
    """The plan of the reference KL: kl_loss_coef KL(pi || pi_ref) at every token that carries gradient.

    Args:
      measured: the whole optimizer batch, with reference_logprobs.
      settings: see `ReferenceKL`.
      key: unused; nothing is drawn at random.
    Raises: ConfigError when the batch has no reference_logprobs.
    Source: DeepSeekMath, arXiv 2402.03300, Eq. 4; arXiv 2505.22617, section 4.1 (which finds that it fails).
    """
    if measured.reference_logprobs is None:
        raise ConfigError(
            "control 'reference_kl' needs the log-probs of a reference policy (Measured.reference_logprobs), and this"
            " optimizer batch has none. Keep the start policy and score the responses with it."
        )
    return replace(
        unclipped_plan(measured, no_selection(measured, settings.type)),
        reference_weight=measured.mask.to(measured.logprobs.dtype) * settings.kl_loss_coef,
        reference_form=settings.kl_loss_type,
    )
