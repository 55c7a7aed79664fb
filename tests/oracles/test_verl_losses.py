"""covent's losses and controls against verl 0.9.1's, value and gradient, on 200 random batches and 20 far ones.

Where the two define the same thing they agree to 1e-12. Each difference is isolated: a test puts it right, alone, and
then they agree to 1e-12 again; without that they do not. docs/verl.md explains each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from covent.controls import AnyControl, ClipCov, ClipCovReleased, KLCov, KLCovReleased, PPOClip, plan
from covent.core import named
from covent.core.covariance import Center
from covent.core.keys import TokenIdentity
from covent.core.loss import POLICY_LOSSES, clipped_objective
from covent.core.plan import Measured, Plan
from covent.core.reduce import AGGREGATIONS, BatchCounts, means_of_responses, part_of_mean
from tests.oracles.verl_batches import LOSSES, VerlBatch, far_batches, verl_batches
from tests.support.tolerances import TIGHT, VERL_COUNT

RANDOM, FAR = verl_batches(), far_batches()
NUM_TOKENS_ADDED = 1e-8
"""What verl adds to a count of tokens."""


@dataclass(frozen=True)
class Answer:
    """A loss and its gradient with respect to the log-prob of each token that counts."""

    loss: float
    gradient: Tensor

    def agrees(self, other: Answer, tolerance: float = TIGHT) -> bool:
        return self.loss == pytest.approx(other.loss, rel=tolerance, abs=tolerance) and torch.allclose(
            self.gradient, other.gradient, rtol=tolerance, atol=tolerance
        )


def of_verl(batch: VerlBatch, name: str) -> Answer:
    return Answer(batch.losses[name], batch.gradients[name])


def measured(batch: VerlBatch) -> Measured:
    """The batch as one optimizer batch; its identities are its rows."""
    shape = batch.mask.shape
    rows = torch.arange(shape[0])[:, None].expand(shape)
    return Measured(
        logprobs=batch.logprobs,
        old_logprobs=batch.old_logprobs,
        entropies=torch.zeros_like(batch.logprobs),
        advantages=batch.advantages,
        mask=batch.mask,
        identity=TokenIdentity(batch.groups[:, None].expand(shape), rows, torch.arange(shape[1]).expand(shape)),
    )


def with_verls_count(values: Tensor, mask: Tensor, counts: BatchCounts) -> Tensor:
    """seq-mean-token-mean with 1e-8 added to the tokens of a response, as verl has it."""
    means = values.masked_fill(~mask, 0.0).sum(dim=1) / (mask.double().sum(dim=1) + NUM_TOKENS_ADDED)
    return part_of_mean(means, mask.any(dim=1), count=counts.num_responses)


VERLS_AGGREGATIONS = {**AGGREGATIONS, "seq-mean-token-mean": with_verls_count}
Held = Callable[[VerlBatch, Tensor], tuple[Tensor, Tensor]]
"""(batch, log-probs) → log-probs and old log-probs as the loss shall see them."""


def as_they_are(batch: VerlBatch, logprobs: Tensor) -> tuple[Tensor, Tensor]:
    return logprobs, batch.old_logprobs


def of_covent(
    batch: VerlBatch,
    loss: str,
    made: Plan,
    *,
    aggregations: dict[str, Callable[..., Tensor]] = VERLS_AGGREGATIONS,
    held: Held = as_they_are,
) -> Answer:
    logprobs = batch.logprobs.clone().requires_grad_()
    terms = POLICY_LOSSES[loss](*held(batch, logprobs), batch.advantages, batch.mask, made)
    counts = measured(batch).counts(max_tokens=batch.mask.shape[1])
    value = aggregations[batch.aggregation](terms.aggregated, batch.mask, counts)
    (gradient,) = torch.autograd.grad(value, logprobs)
    return Answer(float(value.detach()), gradient[batch.mask])


def clip(batch: VerlBatch, *, dual: bool = False) -> PPOClip:
    names = ("clip_ratio_low", "clip_ratio_high", *(["clip_ratio_c"] if dual else []))
    return PPOClip(**{name: batch.settings[name] for name in names})


def selection(batch: VerlBatch, control: type[AnyControl]) -> AnyControl:
    """The control with the settings that verl was given; a released one sees the batch as one micro-batch."""
    fields = control.model_fields
    settings = {name: value for name, value in batch.settings.items() if name in fields}
    if "responses_per_micro_batch" in fields:
        settings["responses_per_micro_batch"] = len(batch.mask)
    return control(**settings)


def made_by(batch: VerlBatch, settings: AnyControl) -> Plan:
    return plan(measured(batch), settings, key=0)


def num_missed(name: str, answer: Callable[[VerlBatch], Answer], batches: Iterable[VerlBatch] = RANDOM) -> int:
    return sum(not answer(batch).agrees(of_verl(batch, name)) for batch in batches)


def without(made: Plan, chosen: Tensor) -> Plan:
    """A plan of Clip-Cov whose choice is another one."""
    mask = made.chosen | made.keeps_gradient
    return replace(made, chosen=chosen, keeps_gradient=mask & ~chosen)


@cache
def band(index: int) -> Tensor:
    """Every token of a random batch that the released Clip-Cov may choose: it takes all with a share of 1."""
    batch = RANDOM[index]
    return made_by(batch, selection(batch, ClipCovReleased).model_copy(update={"clip_cov_ratio": 1.0})).chosen


def drawn(batch: VerlBatch) -> Tensor:
    """What verl's Clip-Cov drew from the band: the tokens that have no gradient there."""
    nothing = torch.zeros_like(batch.mask)
    nothing[batch.mask] = batch.gradients["clip_cov"] == 0
    return nothing & band(batch.index)


# The losses with one ratio a token or response, and no choice.


def ratio_answer(name: str, **settings: object) -> Callable[[VerlBatch], Answer]:
    dual = name == "vanilla"
    return lambda batch: of_covent(batch, name, made_by(batch, clip(batch, dual=dual)), **settings)


@pytest.mark.parametrize("name", ["vanilla", "gspo", "cispo"])
def test_losses_without_a_choice_are_the_same(name: str) -> None:
    assert num_missed(name, ratio_answer(name)) == 0
    others = [other for other in ("vanilla", "gspo", "cispo") if other != name]
    assert all(num_missed(other, ratio_answer(name)) > 150 for other in others)


def test_the_dual_clip_that_verl_never_leaves_out() -> None:
    def no_dual(batch: VerlBatch) -> Answer:
        return of_covent(batch, "vanilla", made_by(batch, clip(batch)))

    reached = [batch for batch in RANDOM if bool(_above_dual_clip(batch).any())]
    assert num_missed("vanilla", no_dual) == num_missed("vanilla", no_dual, reached) == len(reached) > 20


def _above_dual_clip(batch: VerlBatch) -> Tensor:
    ratio = (batch.logprobs - batch.old_logprobs)[batch.mask].exp()
    return (ratio > batch.settings["clip_ratio_c"]) & (batch.advantages[batch.mask] < 0)


@pytest.mark.parametrize("name", ["vanilla", "gspo", "cispo"])
def test_the_count_of_a_response_differs_by_a_hundred_millionth(name: str) -> None:
    """Only in seq-mean-token-mean, and there in every batch with a gradient."""
    ours = ratio_answer(name, aggregations=AGGREGATIONS)
    assert all(ours(batch).agrees(of_verl(batch, name), VERL_COUNT) for batch in RANDOM)
    missed = {batch.aggregation for batch in RANDOM if not ours(batch).agrees(of_verl(batch, name))}
    assert missed == {"seq-mean-token-mean"}


def test_the_papers_losses_by_name() -> None:
    """PPO, GRPO, DAPO and Dr.GRPO are verl's vanilla with their clip and aggregation."""
    num_compared = dict.fromkeys(("ppo", "grpo", "dapo", "dr_grpo"), 0)
    for batch in RANDOM:
        for name, agrees in _by_name(batch):
            num_compared[name] += 1
            assert agrees, name
    assert min(num_compared.values()) >= 5


def _by_name(batch: VerlBatch) -> Iterable[tuple[str, bool]]:
    low, high, dual = (batch.settings[f"clip_ratio_{end}"] for end in ("low", "high", "c"))
    plain = not bool(_above_dual_clip(batch).any())
    counts = measured(batch).counts(max_tokens=batch.mask.shape[1])

    def agrees(loss: Callable[..., named.NamedLoss], **settings: float) -> bool:
        logprobs = batch.logprobs.clone().requires_grad_()
        per_token, aggregation = loss(logprobs, batch.old_logprobs, batch.advantages, batch.mask, **settings)
        value = aggregation(per_token, batch.mask, counts)
        (gradient,) = torch.autograd.grad(value, logprobs)
        found = Answer(float(value.detach()), gradient[batch.mask])
        return found.agrees(of_verl(batch, "vanilla"), VERL_COUNT)

    if low == high and batch.aggregation == "token-mean":
        yield "ppo", agrees(named.ppo, clip_ratio=low, clip_ratio_c=dual)
    if plain and batch.aggregation == "token-mean":
        yield "dapo", agrees(named.dapo, clip_ratio_low=low, clip_ratio_high=high)
    if plain and low == high and batch.aggregation == "seq-mean-token-mean":
        yield "grpo", agrees(named.grpo, clip_ratio=low)
    if plain and low == high and batch.aggregation == "seq-mean-token-sum-norm":
        yield "dr_grpo", agrees(named.dr_grpo, clip_ratio=low)


# Clip-Cov: the same band, another draw.


def released_clip_cov(batch: VerlBatch) -> Answer:
    return of_covent(batch, "vanilla", made_by(batch, selection(batch, ClipCovReleased)))


def test_clip_cov_is_the_same_where_nothing_is_left_to_chance() -> None:
    """A share of 1 takes the whole band: in every second batch."""
    whole_band = [batch for batch in RANDOM if batch.settings["clip_cov_ratio"] == 1]
    assert len(whole_band) == 100
    assert num_missed("clip_cov", released_clip_cov, whole_band) == 0
    assert num_missed("vanilla", released_clip_cov, whole_band) > 80


def test_clip_cov_with_verls_draw_is_the_same() -> None:
    """Another generator draws other tokens of the same band, and as many of them."""

    def injected(batch: VerlBatch) -> Answer:
        made = made_by(batch, selection(batch, ClipCovReleased))
        assert int(drawn(batch).sum()) == made.reading.num_selected
        return of_covent(batch, "vanilla", without(made, drawn(batch)))

    assert num_missed("clip_cov", injected) == 0
    assert num_missed("clip_cov", released_clip_cov) > 50


def exact_clip_cov(batch: VerlBatch, chosen: Tensor | None = None) -> Answer:
    made = made_by(batch, selection(batch, ClipCov))
    return of_covent(batch, "vanilla", made if chosen is None else without(made, chosen))


def test_exact_clip_cov_differs_by_the_draw_and_the_minimum_of_one_token() -> None:
    """On one micro-batch. So few tokens ask for less than one in some batches, where verl still takes one."""
    less_than_one = [
        batch for batch in RANDOM if batch.settings["clip_cov_ratio"] * int(batch.mask.sum()) < 1 and drawn(batch).any()
    ]
    assert len(less_than_one) > 0
    assert all(made_by(batch, selection(batch, ClipCov)).reading.num_selected == 0 for batch in less_than_one)
    assert num_missed("clip_cov", exact_clip_cov, less_than_one) == len(less_than_one)
    assert num_missed("clip_cov", lambda batch: exact_clip_cov(batch, drawn(batch))) == 0


def test_the_exact_band_is_closed_and_the_released_one_open() -> None:
    """No covariance of the 200 batches lies on an end, so here an end is put on a covariance."""
    num_on_the_end = 0
    for batch in RANDOM:
        covariances = measured(batch).covariances().masked_fill(~batch.mask, -torch.inf)
        end = float(covariances[band(batch.index)].max()) if band(batch.index).any() else 0.0
        if end <= batch.settings["clip_cov_lb"]:
            continue
        update = {"clip_cov_ub": end, "clip_cov_ratio": 1.0}
        closed, open_ = (
            made_by(batch, selection(batch, control).model_copy(update=update)).chosen
            for control in (ClipCov, ClipCovReleased)
        )
        assert torch.equal(closed & ~open_, band(batch.index) & (covariances == end))
        assert not bool((open_ & ~closed).any())
        num_on_the_end += 1
    assert num_on_the_end > 100


def test_tokens_that_the_ppo_clip_cuts_are_no_candidates() -> None:
    """In verl, and so here: with them among the candidates the answers are others."""

    def cut_too(batch: VerlBatch) -> Answer:
        settings = selection(batch, ClipCovReleased).model_copy(update={"clip_ratio_high": 1e6, "clip_ratio_low": 1.0})
        every = made_by(batch, settings.model_copy(update={"clip_cov_ratio": 1.0})).chosen
        # As many of the larger band, in order of row.
        wanted = int(drawn(batch).sum())
        chosen = every & (every.flatten().cumsum(0).view_as(every) <= wanted)
        return of_covent(batch, "vanilla", without(made_by(batch, selection(batch, ClipCovReleased)), chosen))

    whole_band = [batch for batch in RANDOM if batch.settings["clip_cov_ratio"] == 1]
    assert num_missed("clip_cov", cut_too, whole_band) > 10


def test_the_centre_differs_by_a_hundred_millionth() -> None:
    """verl's masked means add 1e-8 to the count; no token of these batches is so near an end of the band."""
    for batch in RANDOM:
        values = (batch.logprobs[batch.mask], batch.advantages[batch.mask])
        center = Center(*(column.sum() / (column.numel() + NUM_TOKENS_ADDED) for column in values))
        theirs = (values[0] - center.logprob) * (values[1] - center.advantage)
        ours = measured(batch).covariances()[batch.mask]
        assert torch.allclose(ours, theirs, rtol=0, atol=VERL_COUNT * 10)
        low, high = batch.settings["clip_cov_lb"], batch.settings["clip_cov_ub"]
        assert torch.equal((ours > low) & (ours < high), (theirs > low) & (theirs < high))


# KL-Cov: nothing is drawn.


def released_kl_cov(batch: VerlBatch) -> Answer:
    return of_covent(batch, "vanilla", made_by(batch, selection(batch, KLCovReleased)))


def exact_kl_cov(batch: VerlBatch) -> Answer:
    return of_covent(batch, "vanilla", made_by(batch, selection(batch, KLCov)))


def asks_for_a_token(batch: VerlBatch) -> bool:
    return int(batch.settings["kl_cov_ratio"] * int(batch.mask.sum())) >= 1


def test_kl_cov_is_the_same() -> None:
    """No batch has a tie at its cut, where torch.topk takes whichever token it meets."""
    assert min(gap_at_the_cut(batch) for batch in (*RANDOM, *FAR)) > VERL_COUNT
    assert num_missed("kl_cov", released_kl_cov) == 0
    assert num_missed("vanilla", released_kl_cov) > 150


def gap_at_the_cut(batch: VerlBatch) -> float:
    """How far the last covariance that verl takes is above the next."""
    ordered = measured(batch).covariances()[batch.mask].sort(descending=True).values
    count = max(1, int(batch.settings["kl_cov_ratio"] * len(ordered)))
    return float(ordered[count - 1] - ordered[count]) if count < len(ordered) else torch.inf


def test_exact_kl_cov_differs_by_the_minimum_of_one_token_alone() -> None:
    """On one micro-batch. Where the share is less than one token, verl takes one and covent none."""
    asked = [batch for batch in RANDOM if asks_for_a_token(batch)]
    not_asked = [batch for batch in RANDOM if not asks_for_a_token(batch)]
    assert min(len(asked), len(not_asked)) > 50
    assert num_missed("kl_cov", exact_kl_cov, asked) == 0
    # On-policy, in every tenth batch, the token that verl takes has a log-ratio of 0: nothing to see.
    drifted = [batch for batch in not_asked if batch.index % 10]
    assert num_missed("kl_cov", exact_kl_cov, not_asked) == num_missed("kl_cov", exact_kl_cov, drifted) == len(drifted)

    def with_one(batch: VerlBatch) -> Answer:
        one = made_by(batch, selection(batch, KLCov).model_copy(update={"kl_cov_ratio": 1.5 / int(batch.mask.sum())}))
        assert one.reading.num_selected == 1
        return of_covent(batch, "vanilla", one)

    assert num_missed("kl_cov", with_one, not_asked) == 0


def test_verls_scope_is_the_micro_batch() -> None:
    """Two of verl's batches as the micro-batches of one: the released choice is verl's, the exact one is not."""
    alike = sorted(RANDOM, key=_kind)
    pairs = [(one, two) for one, two in pairwise(alike) if _kind(one) == _kind(two)]
    assert len(pairs) > 100
    num_differ = 0
    for pair in pairs:
        both = _stacked(*pair)
        settings = selection(pair[0], KLCovReleased)
        apart = plan(both, settings, key=0)
        alone = torch.cat([made_by(batch, settings).chosen[batch.mask] for batch in pair])
        assert torch.equal(apart.chosen[both.mask], alone)
        exact = plan(both, selection(pair[0], KLCov), key=0)
        num_differ += not torch.equal(exact.chosen, apart.chosen)
    assert num_differ > len(pairs) // 2


def _kind(batch: VerlBatch) -> tuple[int, float]:
    return len(batch.mask), batch.settings["kl_cov_ratio"]


def _stacked(one: VerlBatch, two: VerlBatch) -> Measured:
    width = max(one.mask.shape[1], two.mask.shape[1])
    parts = [measured(one), measured(two)]

    def stacked(columns: list[Tensor], fill: float) -> Tensor:
        return torch.cat([torch.nn.functional.pad(c, (0, width - c.shape[1]), value=fill) for c in columns])

    names = ("logprobs", "old_logprobs", "entropies", "advantages")
    prompts = [parts[0].identity.prompt, parts[1].identity.prompt + 100]
    others = [[getattr(part.identity, name) for part in parts] for name in ("sample", "position")]
    return Measured(
        **{name: stacked([getattr(part, name) for part in parts], torch.nan) for name in names},
        mask=stacked([part.mask for part in parts], False),
        identity=TokenIdentity(*(stacked(columns, 0) for columns in (prompts, *others))),
    )


# Log-ratios beyond the limits at which some of verl's losses hold them.


def test_losses_that_hold_nothing_agree_far_from_the_sampling_policy() -> None:
    assert max(float((batch.logprobs - batch.old_logprobs)[batch.mask].abs().max()) for batch in FAR) > 25
    assert num_missed("kl_cov", released_kl_cov, FAR) == 0
    whole_band = [batch for batch in FAR if batch.settings["clip_cov_ratio"] == 1]
    assert num_missed("clip_cov", released_clip_cov, whole_band) == 0
    assert num_missed("kl_cov", released_clip_cov, FAR) == len(FAR)


def held_at_20(batch: VerlBatch, logprobs: Tensor) -> tuple[Tensor, Tensor]:
    """The log-ratio held in ±20, and no gradient where it is."""
    return batch.old_logprobs + (logprobs - batch.old_logprobs).clamp(-20, 20), batch.old_logprobs


def weight_held_at_20(batch: VerlBatch, logprobs: Tensor) -> tuple[Tensor, Tensor]:
    """CISPO's gradient flows past the ratio, so holding that one takes none away."""
    return logprobs, batch.logprobs - (batch.logprobs - batch.old_logprobs).clamp(-20, 20)


def response_held_at_10(batch: VerlBatch, logprobs: Tensor) -> tuple[Tensor, Tensor]:
    """The mean log-ratio of a response held to at most 10, and no gradient where it is."""
    gap = (batch.logprobs - batch.old_logprobs).masked_fill(~batch.mask, 0.0).sum(dim=1) / batch.mask.sum(dim=1)
    return torch.where((gap > 10)[:, None], batch.old_logprobs + 10, logprobs), batch.old_logprobs


@pytest.mark.parametrize(
    ("name", "held"), [("vanilla", held_at_20), ("cispo", weight_held_at_20), ("gspo", response_held_at_10)]
)
def test_the_limits_are_the_only_difference_far_away(name: str, held: Held) -> None:
    assert num_missed(name, ratio_answer(name, held=held), FAR) == 0
    assert num_missed(name, ratio_answer(name, held=held)) == 0, "no random batch reaches them"
    assert num_missed(name, ratio_answer(name), FAR) > 3


@pytest.mark.parametrize("name", ["vanilla", "cispo"])
def test_the_limit_of_20_hardly_shows(name: str) -> None:
    """The clip and the dual clip bound the ratio long before: what is left is a ratio of e^-20 instead of less."""
    ours = ratio_answer(name)
    for batch in FAR:
        size = float((batch.advantages.abs() * batch.logprobs.abs().clamp(min=1))[batch.mask].sum())
        found, truth = ours(batch), of_verl(batch, name)
        assert abs(found.loss - truth.loss) <= 2.1e-9 * size
        assert float((found.gradient - truth.gradient).abs().max()) <= 2.1e-9 * size


def test_gspo_without_its_limit_is_larger() -> None:
    """A response with A < 0 whose mean log-ratio is above 10: there is no dual clip in either."""
    ours = [ratio_answer("gspo")(batch) for batch in FAR]
    assert max(abs(one.loss) / abs(batch.losses["gspo"]) for one, batch in zip(ours, FAR, strict=True)) > 1e3


def test_every_loss_of_verl_is_compared() -> None:
    """In each aggregation mode, with its gradient."""
    assert set(LOSSES) == {"vanilla", "gspo", "cispo", "clip_cov", "kl_cov"}
    assert {batch.aggregation for batch in RANDOM} == set(AGGREGATIONS)
    for batch in (*RANDOM, *FAR):
        for name in LOSSES:
            assert batch.gradients[name].shape == (int(batch.mask.sum()),)
            assert bool(torch.isfinite(batch.gradients[name]).all())
        assert any(bool(batch.gradients[name].any()) for name in LOSSES)


def test_a_wrong_gradient_beside_a_right_loss_is_caught() -> None:
    """GSPO whose gradient flows through the mean log-ratio, not by each token's own log-prob."""
    num_caught = 0
    for batch in RANDOM:
        logprobs = batch.logprobs.clone().requires_grad_()
        log_ratio = means_of_responses(logprobs - batch.old_logprobs, batch.mask)[:, None].expand_as(logprobs)
        limits = {f"clip_{end}": batch.settings[f"clip_ratio_{end}"] for end in ("low", "high")}
        value = clipped_objective(log_ratio, batch.advantages.masked_fill(~batch.mask, 0.0), **limits).value
        counts = measured(batch).counts(max_tokens=batch.mask.shape[1])
        loss = VERLS_AGGREGATIONS[batch.aggregation](-value, batch.mask, counts)
        (gradient,) = torch.autograd.grad(loss, logprobs)
        found = Answer(float(loss.detach()), gradient[batch.mask])
        assert found.loss == pytest.approx(batch.losses["gspo"], rel=TIGHT, abs=TIGHT)
        num_caught += not found.agrees(of_verl(batch, "gspo"))
    assert num_caught > 150
