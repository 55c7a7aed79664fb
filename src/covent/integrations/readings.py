"""What one optimizer step was: counted over the whole of it, on all ranks, whatever the scope of the control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from covent.core import ranks
from covent.core.covariance import covariance_tail
from covent.core.dynamics import polarity_reading, polarity_sums
from covent.core.plan import Measured, Plan
from covent.core.ranks import ProcessGroup
from covent.core.reduce import masked_sum, means_of_responses
from covent.core.shapes import Tensor
from covent.readings import ControlReading, CovarianceTail, Mean, PolarityReading

PREFIX = "covent/"
"""Of every name that covent adds to an engine's log; no engine has one that starts so."""


class Cuts(Protocol):
    """Tokens of a micro-batch without gradient because of the clip in force, [B, T] bool."""

    @property
    def low(self) -> Tensor: ...

    @property
    def high(self) -> Tensor: ...


class PassedMicroBatch(Protocol):
    """A micro-batch whose loss is known."""

    @property
    def plan(self) -> Plan | None: ...

    @property
    def cuts(self) -> Cuts | None: ...

    @property
    def loss(self) -> Tensor | None:
        """Without gradient."""

    @property
    def unheard(self) -> str:
        """What of the plan's clip the engine's loss has no place for."""


class PassedWindow(Protocol):
    """This rank's part of an optimizer step, all of its micro-batches passed."""

    @property
    def update(self) -> int: ...

    @property
    def num_selections(self) -> int: ...

    @property
    def passed(self) -> Sequence[PassedMicroBatch]: ...


@dataclass(frozen=True)
class UpdateReading:
    """One optimizer step before the weights move. Means are over all its tokens on all ranks."""

    update: int
    num_responses: int
    num_tokens: int
    loss: float
    """As the engine reports it: the mean over ranks of the sum over micro-batches."""
    entropy: Mean
    """Exact, at the engine's sampling temperature, nats; nothing counted where the engine did not compute it."""
    abs_log_ratio: Mean
    clip_low: Mean
    clip_high: Mean
    polarity: PolarityReading
    covariance: CovarianceTail
    control: ControlReading
    num_selections: Mean
    """How often tokens were chosen for this step, over ranks: 1 each is one choice for all."""
    clip_honoured: bool | None
    """Whether the engine's loss could act on the control's whole clip; None where the control says nothing of it."""

    def metrics(self) -> dict[str, float]:
        """For the engine's log, without prefix; what is not known is left out."""
        covariance, control = self.covariance, self.control
        found: dict[str, float | None] = {
            "entropy": self.entropy.value,
            "abs_log_ratio": self.abs_log_ratio.value,
            "clip_low_frac": self.clip_low.value,
            "clip_high_frac": self.clip_high.value,
            "polarity": (self.polarity.raising + self.polarity.lowering) / self.num_tokens,
            "covariance/mean": covariance.mean,
            "covariance/std": covariance.std,
            **{f"covariance/{name}": value for name, value in covariance.quantiles.items()},
            **{f"covariance/top_{share}": value for share, value in covariance.top_means.items()},
            "asked_frac": control.asked_frac,
            "clip_honoured": self.clip_honoured,
        }
        if control.asked_frac is not None:
            found["realised_frac"] = control.num_selected / self.num_tokens
            found["num_selected"] = control.num_selected
            found["num_candidates"] = control.num_candidates
            found["num_selections"] = self.num_selections.sum
        return {name: float(value) for name, value in found.items() if value is not None}


def update_reading(window: PassedWindow, whole: Measured, name: str) -> UpdateReading | None:
    """The reading of a window that has passed; None where no token of it counts. Every rank must call it.

    Args:
      window: this rank's part.
      whole: its measurement, with the group of all ranks.
      name: of the control.
    """
    if whole.num_tokens == 0:
        return None
    mask, n = whole.mask, whole.num_tokens
    log_ratio = (whole.logprobs - whole.old_logprobs).abs()
    polarity = polarity_sums(whole.logprobs, whole.entropies, whole.advantages, mask)
    by_token = [masked_sum(column.double(), mask) for column in (whole.entropies, log_ratio)]
    cuts = [micro.cuts for micro in window.passed if micro.cuts is not None]
    losses = [micro.loss for micro in window.passed if micro.loss is not None]
    own = [
        *by_token,
        _count([cut.low for cut in cuts]),
        _count([cut.high for cut in cuts]),
        mask.any(dim=1).sum(),
        torch.stack(losses).sum(),
        torch.tensor(window.num_selections),
        torch.ones(()),
        *polarity,
    ]
    sums = ranks.total(torch.stack([each.double().to(mask.device) for each in own]), whole.group)
    entropy, ratio, low, high, num_responses, loss, selections, num_ranks = sums[: -len(polarity)].tolist()
    return UpdateReading(
        update=window.update,
        num_responses=round(num_responses),
        num_tokens=n,
        loss=loss / num_ranks,
        entropy=Mean(sum=entropy, count=n),
        abs_log_ratio=Mean(sum=ratio, count=n),
        clip_low=Mean(sum=low, count=n),
        clip_high=Mean(sum=high, count=n),
        polarity=polarity_reading(sums[-len(polarity) :], n),
        covariance=covariance_tail(_of_all_ranks(whole.covariances()[mask], whole.group)),
        control=_control_reading(window, whole, name),
        num_selections=Mean(sum=selections, count=round(num_ranks)),
        clip_honoured=_clip_honoured(window),
    )


def _clip_honoured(window: PassedWindow) -> bool | None:
    setting = [micro for micro in window.passed if micro.plan is not None and micro.plan.sets_clip]
    return not any(micro.unheard for micro in setting) if setting else None


def _control_reading(window: PassedWindow, whole: Measured, name: str) -> ControlReading:
    """One reading of all the plans of an optimizer step."""
    plans = [micro.plan for micro in window.passed if micro.plan is not None]
    chosen = _count([plan.chosen for plan in plans])
    readings = list({id(plan.reading): plan.reading for plan in plans}.values())
    if not readings:
        return ControlReading(
            name=name,
            asked_frac=None,
            num_tokens=whole.num_tokens,
            num_candidates=None,
            num_selected=0,
            took_all_candidates=False,
        )
    first = readings[0]
    one_for_all = len(readings) == 1 and first.num_tokens == whole.num_tokens
    if one_for_all:
        return first
    candidates = sum(reading.num_candidates or 0 for reading in readings)
    own = torch.tensor([float(candidates), float(chosen), sum(each.took_all_candidates for each in readings)])
    found = ranks.total(own.double().to(whole.mask.device), whole.group).tolist()
    return first.model_copy(
        update={
            "num_tokens": whole.num_tokens,
            "num_candidates": None if first.num_candidates is None else round(found[0]),
            "num_selected": round(found[1]),
            "took_all_candidates": found[2] > 0,
            "note": " ".join(dict.fromkeys(each.note for each in readings if each.note)),
        }
    )


def _count(masks: Sequence[Tensor]) -> Tensor:
    return torch.stack([mask.sum() for mask in masks]).sum() if masks else torch.zeros(())


def _of_all_ranks(values: Tensor, group: ProcessGroup | None) -> Tensor:
    """The values of all ranks, float32's bits travelling as integers."""
    if group is None:
        return values
    own = values.float().view(torch.int32).long()[:, None]
    limit = int(ranks.largest(torch.tensor(len(own), device=own.device), group))
    return ranks.gathered(own, limit, group).squeeze(1).int().view(torch.float32)


def response_entropies(entropies: Tensor, mask: Tensor) -> tuple[float, int]:
    """(sum, count) over responses of the mean entropy of their tokens; responses without a token are left out."""
    means = means_of_responses(entropies.double(), mask)
    return float(means.sum()), int(mask.any(dim=1).sum())
