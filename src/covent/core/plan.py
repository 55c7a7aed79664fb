"""What is measured before an optimizer step, and the plan that a control makes of it.

One optimizer step is Measure → Plan → Loss: measure the whole optimizer batch without gradient, let a control turn
the measurement into a plan, execute the plan micro-batch by micro-batch. A plan holds per-token tensors, so it can be
cut into micro-batches; what it chose cannot depend on how it is cut. On several ranks each measures its own responses,
and whatever is said of the whole batch is reduced over the process group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from covent.core import ranks
from covent.core.covariance import Center, batch_center, token_covariance
from covent.core.keys import TokenIdentity
from covent.core.penalties import KLForm
from covent.core.ranks import ProcessGroup
from covent.core.reduce import BatchCounts, part_of_mean
from covent.core.shapes import Tensor
from covent.errors import ConfigError, NonFiniteError, PrecisionError
from covent.readings import ControlReading

# Relative errors of the last place that add up in a log-prob or a mean before a difference is more than rounding.
_ROUNDINGS = 64


@dataclass(frozen=True)
class Measured:
    """One optimizer batch under the policy at that optimizer step. Tensors are [B, T], without gradient.

    Raises: PrecisionError for numbers below float32: bfloat16 keeps 8 bits of a log-prob, some 0.01 nats, so rounding
      would pass for a change of the policy, and distinct covariances for ties.
    """

    logprobs: Tensor
    """log pi of the current policy, nats."""
    old_logprobs: Tensor
    """log pi of the policy that sampled, evaluated by the learner, nats."""
    entropies: Tensor
    """Exact entropy of the current policy, T = 1, nats."""
    advantages: Tensor
    mask: Tensor
    """True at the response tokens that carry gradient: no padding, no tool output (`covent.core.masks`)."""
    identity: TokenIdentity
    sampler_logprobs: Tensor | None = None
    """log pi of the policy that sampled, as the sampling engine said it, nats; None where nobody recorded it."""
    reference_logprobs: Tensor | None = None
    """log pi of the reference policy, nats; None where there is none."""
    group: ProcessGroup | None = None
    """The ranks that hold the rest of the optimizer batch; None when it is all here."""

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            column = getattr(self, name)
            if column is not None and column.dtype not in (torch.float32, torch.float64):
                raise PrecisionError(
                    f"Measured.{name} is {str(column.dtype).removeprefix('torch.')}; it must be float32 or float64:"
                    " log-probs of fewer bits change by rounding alone. Score in float32, or cast with .float() where"
                    " the policy itself has no more."
                )

    @cached_property
    def num_tokens(self) -> int:
        """Tokens of the whole optimizer batch that carry gradient."""
        return self.total_of(self.mask)

    def counts(self, max_tokens: int) -> BatchCounts:
        """What the loss of the whole optimizer batch is divided by.

        Args:
          max_tokens: of the longest response that the run allows.
        """
        return BatchCounts(self.num_tokens, self.total_of(self.mask.any(dim=1)), max_tokens)

    def total_of(self, chosen: Tensor) -> int:
        """How many are True, over the whole optimizer batch."""
        return int(ranks.total(chosen.sum(), self.group))

    def covariances(self) -> Tensor:
        """Token covariance of log pi and advantage, centred over the whole optimizer batch; see `token_covariance`.

        In float64 whatever the columns are, with or without a process group: what is left of the order of rows is then
        some 1e-16, which decides nothing unless a covariance lies that close to a border of the tie grid.

        Raises: NonFiniteError when a log-prob or an advantage of a token that carries gradient is not finite.
        """
        return token_covariance(self.logprobs.double(), self.advantages.double(), self.mask, center=self._center)

    def covariances_as_released(self) -> Tensor:
        """`covariances` of this rank's rows alone, in the precision of the columns: what the released code ranks.

        For one response, whose advantage is constant, that is rounding and nothing else.

        Raises: as `covariances`.
        """
        center = _finite(batch_center(self.logprobs, self.advantages, self.mask))
        return token_covariance(self.logprobs, self.advantages, self.mask, center=center)

    @cached_property
    def _center(self) -> Center:
        count = self.num_tokens
        columns = (self.logprobs, self.advantages)
        means = [part_of_mean(column.detach().double(), self.mask, count=count) for column in columns]
        # One bad number anywhere makes the mean bad, on every rank: all of them stop here together.
        return _finite(Center(*(ranks.total(mean, self.group) for mean in means)))

    def mean(self, values: Tensor, where: Tensor) -> float:
        """Mean over the tokens of the whole optimizer batch where a mask is True.

        Raises: EmptyMaskError when that is nowhere.
        """
        part = part_of_mean(values.detach().double(), where, count=self.total_of(where))
        return float(ranks.total(part, self.group))

    def micro_batches(self, num_responses: int) -> Iterator[tuple[slice, Measured]]:
        """Neighbouring rows of this rank as batches of their own, each with its rows; those without a token left out.

        Only for controls that choose inside a micro-batch, as the released code of the paper does.
        """
        for start in range(0, len(self.mask), num_responses):
            rows = slice(start, start + num_responses)
            if bool(self.mask[rows].any()):
                yield rows, self._rows(rows)

    def _rows(self, rows: slice) -> Measured:
        columns = {name: getattr(self, name) for name in _COLUMNS}
        cut = {name: column[rows] for name, column in columns.items() if column is not None}
        identity = TokenIdentity(*(column[rows] for column in self.identity))
        return replace(self, **cut, identity=identity, group=None)

    def covariances_are_equal(self) -> bool:
        """Whether the covariances of all tokens agree up to rounding, so that none is higher than another."""
        covariances = self.covariances()[self.mask]
        spread = self._highest(covariances) + self._highest(-covariances)
        scale = self._highest(self.logprobs[self.mask].abs()) * self._highest(self.advantages[self.mask].abs())
        return bool(spread <= _ROUNDINGS * torch.finfo(self.logprobs.dtype).eps * scale)

    def _highest(self, values: Tensor) -> Tensor:
        own = values.max() if values.numel() else values.new_full((), -torch.inf)
        return ranks.largest(own, self.group)


def _finite(center: Center) -> Center:
    for name, mean in zip(("log-prob", "advantage"), center, strict=True):
        if not bool(mean.isfinite()):
            raise NonFiniteError(
                f"The mean {name} of the optimizer batch is {float(mean)}, so it has no covariance. Look for NaN"
                f" or infinity among the {name}s of tokens that carry gradient."
            )
    return center


_NUMBERS = ("logprobs", "old_logprobs", "entropies", "advantages", "sampler_logprobs", "reference_logprobs")
_COLUMNS = (*_NUMBERS, "mask")


@dataclass(frozen=True)
class Plan:
    """How the loss treats each token of one optimizer batch. Per-token tensors are [B, T].

    A term that a control says nothing of is None; `compose` takes each term from the control that has it.
    """

    chosen: Tensor
    """Bool: the tokens that the control acts on by choice; none for a control without selection."""
    keeps_gradient: Tensor
    """Bool: False removes the token's policy term. The token still counts in the denominator."""
    kl_weight: Tensor
    """Factor of the KL to the policy that sampled at each token, >= 0."""
    clip_low: float | None
    """PPO clip: the ratio is clamped to at least 1 - clip_low; None for no clip at all."""
    clip_high: float | None
    """PPO clip: the ratio is clamped to at most 1 + clip_high; None for no clip at all."""
    reading: ControlReading
    """What was asked and what was chosen."""
    kl_form: KLForm | None = "abs"
    """How the KL to the policy that sampled is formed; None for no such term."""
    factor: Tensor | None = None
    """Multiplies each token's advantage in the policy term; None for 1."""
    dual_clip: float | None = None
    """Bound on the ratio where the advantage is negative; None for none."""
    sets_clip: bool = True
    """False for a control that says nothing of the clip; its three clip fields are then None."""
    reference_weight: Tensor | None = None
    """Factor of the KL to the reference policy at each token; None for no such term."""
    reference_form: KLForm = "k3"
    entropy_weight: Tensor | None = None
    """Factor of each token's entropy in the bonus, which is a mean over all tokens; None for no bonus."""

    def rows(self, index: slice | Tensor) -> Plan:
        """The plan of some of the responses."""
        cut = {name: getattr(self, name) for name in _PER_TOKEN}
        return replace(self, **{name: tensor[index] for name, tensor in cut.items() if tensor is not None})


_PER_TOKEN = ("chosen", "keeps_gradient", "kl_weight", "factor", "reference_weight", "entropy_weight")


def unclipped_plan(measured: Measured, reading: ControlReading) -> Plan:
    """The plan that changes nothing and says nothing of the clip: what a control starts from with `replace`."""
    return Plan(
        chosen=torch.zeros_like(measured.mask),
        keeps_gradient=measured.mask,
        kl_weight=torch.zeros_like(measured.logprobs),
        clip_low=None,
        clip_high=None,
        reading=reading,
        kl_form=None,
        sets_clip=False,
    )


def no_selection(measured: Measured, name: str, note: str = "") -> ControlReading:
    """The reading of a control that chooses no tokens."""
    return ControlReading(
        name=name,
        asked_frac=None,
        num_tokens=measured.num_tokens,
        num_candidates=None,
        num_selected=0,
        took_all_candidates=False,
        note=note,
    )


def selection_reading(
    measured: Measured,
    name: str,
    *,
    asked_frac: float,
    num_candidates: int,
    num_selected: int,
    micro_batches: Sequence[tuple[int, int]] = (),
    note: str = "",
    advice: str = "",
) -> ControlReading:
    """The reading of a control that chooses tokens; it says so where every candidate was taken.

        took all = 0 < candidates <= selected

    Args:
      measured: the whole optimizer batch.
      name: `type` of the control's settings.
      asked_frac: share of the tokens that the setting asks for.
      num_candidates: tokens that were eligible, over the whole optimizer batch.
      num_selected: tokens that were chosen, over the whole optimizer batch.
      micro_batches: the same two counts of each micro-batch, for a control that chooses inside them.
      note: whatever else is out of the ordinary.
      advice: what to change where every candidate was taken; follows the sentence that says so.
    """
    took_all = 0 < num_candidates <= num_selected
    num_full = sum(0 < candidates <= selected for candidates, selected in micro_batches)
    said = ""
    if took_all:
        said = f"{name} took every candidate: {num_selected} of {num_candidates} tokens. {advice}"
    elif num_full:
        said = f"{name} took every candidate in {num_full} of {len(micro_batches)} micro-batches. {advice}"
    return ControlReading(
        name=name,
        asked_frac=asked_frac,
        num_tokens=measured.num_tokens,
        num_candidates=num_candidates,
        num_selected=num_selected,
        took_all_candidates=took_all,
        note=f"{said} {note}".strip(),
    )


def compose(measured: Measured, plans: Sequence[Plan]) -> Plan:
    """One plan of several controls for the same optimizer batch.

    Masks are joined with AND, factors multiply, and each other term comes from the one control that has it. The order
    of the controls does not matter, except in how the reading lists them.

    Raises: ConfigError when two controls set the clip differently, or when two have a KL to the policy that sampled, a
      KL to the reference policy or an entropy bonus; it names them.
    """
    first, *others = plans
    if not others:
        return first
    clip = _clip_of(plans)
    kl = _owner(plans, "KL to the policy that sampled", "kl_form")
    reference = _owner(plans, "KL to the reference policy", "reference_weight")
    bonus = _owner(plans, "entropy bonus", "entropy_weight")
    chosen, keeps = first.chosen, first.keeps_gradient
    factor = first.factor
    for plan in others:
        chosen, keeps = chosen | plan.chosen, keeps & plan.keeps_gradient
        if plan.factor is not None:
            factor = plan.factor if factor is None else factor * plan.factor
    low, high, dual = clip or (None, None, None)
    return Plan(
        chosen=chosen,
        keeps_gradient=keeps,
        kl_weight=kl.kl_weight if kl else first.kl_weight,
        clip_low=low,
        clip_high=high,
        reading=_joined([plan.reading for plan in plans], measured.total_of(chosen)),
        kl_form=kl.kl_form if kl else None,
        factor=factor,
        dual_clip=dual,
        sets_clip=clip is not None,
        reference_weight=reference.reference_weight if reference else None,
        reference_form=reference.reference_form if reference else "k3",
        entropy_weight=bonus.entropy_weight if bonus else None,
    )


def on_policy_noise(logprobs: Tensor) -> Tensor:
    """Largest |log ratio| that rounding alone explains, per token, nats.

    The same policy evaluated in batches of another shape gives log-probs that differ in their last places. A term with
    a kink at ratio 1, such as |log ratio|, must not act on that noise.
    """
    return _ROUNDINGS * torch.finfo(logprobs.dtype).eps * (1 + logprobs.abs())


def _clip(plan: Plan) -> tuple[float | None, float | None, float | None]:
    return plan.clip_low, plan.clip_high, plan.dual_clip


def _clip_of(plans: Sequence[Plan]) -> tuple[float | None, float | None, float | None] | None:
    """The clip of the controls that set one; None where none does."""
    setting = [plan for plan in plans if plan.sets_clip]
    for plan in setting[1:]:
        if _clip(plan) != _clip(setting[0]):
            raise ConfigError(
                f"Controls '{setting[0].reading.name}' and '{plan.reading.name}' want different clips of the ratio:"
                f" {_clip_words(setting[0])} and {_clip_words(plan)}. Give both the same range, or leave one out."
            )
    return _clip(setting[0]) if setting else None


def _clip_words(plan: Plan) -> str:
    if plan.clip_low is None and plan.clip_high is None:
        return "none"
    low = "-inf" if plan.clip_low is None else f"{1 - plan.clip_low:g}"
    high = "inf" if plan.clip_high is None else f"{1 + plan.clip_high:g}"
    return f"[{low}, {high}]" + ("" if plan.dual_clip is None else f" with dual clip {plan.dual_clip:g}")


def _owner(plans: Sequence[Plan], term: str, field: str) -> Plan | None:
    """The one plan that has a term."""
    owners = [plan for plan in plans if getattr(plan, field) is not None]
    if len(owners) > 1:
        names = " and ".join(f"'{plan.reading.name}'" for plan in owners)
        raise ConfigError(f"Controls {names} each have a {term}; they do not add up to one. Keep one of them.")
    return owners[0] if owners else None


def _joined(readings: Sequence[ControlReading], num_selected: int) -> ControlReading:
    """One reading of several controls; shares of several that select add up, candidates do not."""
    selecting = [reading for reading in readings if reading.asked_frac is not None]
    shares = [reading.asked_frac for reading in selecting if reading.asked_frac is not None]
    return ControlReading(
        name=" + ".join(reading.name for reading in readings),
        asked_frac=min(1.0, sum(shares)) if shares else None,
        num_tokens=readings[0].num_tokens,
        num_candidates=selecting[0].num_candidates if len(selecting) == 1 else None,
        num_selected=num_selected,
        took_all_candidates=any(reading.took_all_candidates for reading in selecting),
        note=" ".join(reading.note for reading in readings if reading.note),
    )
