"""The loss by cause: terms that add up to the surrogate, each where its cause acts and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from covent import controls
from covent.controls import ClipCov, KLCov, PPOClip
from covent.core.causes import RATIO_CLIP, loss_by_cause
from covent.core.loss import POLICY_LOSSES, LossTerms, PolicyLoss, surrogate
from covent.core.penalties import NO_INPUTS, PenaltyInputs
from covent.core.plan import Measured, Plan
from covent.errors import ShapeError
from tests.support.batches import optimizer_batch
from tests.support.tolerances import TIGHT

CONTROLS = {
    "ppo_clip": PPOClip(),
    "clip_cov": ClipCov(clip_cov_ratio=0.05, clip_cov_lb=0.2, clip_ratio_low=0.3, clip_ratio_high=0.3),
    "kl_cov": KLCov(kl_cov_ratio=0.1),
}


def setting(control: str) -> tuple[Measured, Plan, dict[str, Tensor]]:
    measured = optimizer_batch(3)
    right = measured.advantages[:, 0] > 0
    return measured, controls.plan(measured, CONTROLS[control], key=1), {"right": right, "wrong": ~right}


def terms_of(measured: Measured, plan: Plan, sets: dict[str, Tensor], logprobs: Tensor) -> dict[str, Tensor]:
    found = loss_by_cause(lambda other: whole_of(measured, other, logprobs), plan, measured.mask, sets)
    assert found.token_mean == {}
    return found.aggregated


def whole_of(
    measured: Measured, plan: Plan, logprobs: Tensor, loss: PolicyLoss = surrogate, inputs: PenaltyInputs = NO_INPUTS
) -> LossTerms:
    return loss(logprobs, measured.old_logprobs, measured.advantages, measured.mask, plan, inputs)


def gradient(term: Tensor, logprobs: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(term.sum(), logprobs, retain_graph=True)
    return found


@pytest.mark.parametrize("control", CONTROLS)
def test_terms_and_their_gradients_add_up_to_the_loss(control: str) -> None:
    measured, plan, sets = setting(control)
    logprobs = measured.logprobs.clone().requires_grad_()
    terms = terms_of(measured, plan, sets, logprobs)
    whole = whole_of(measured, plan, logprobs)
    torch.testing.assert_close(sum(terms.values()), whole.policy + whole.kl, rtol=0, atol=TIGHT)
    truth = gradient(whole.policy + whole.kl, logprobs)
    parts = {cause: gradient(term, logprobs) for cause, term in terms.items()}
    torch.testing.assert_close(sum(parts.values()), truth, rtol=0, atol=TIGHT)
    acting = {cause for cause, part in parts.items() if bool(part.any())}
    assert (
        acting
        == {"right", "wrong"}
        | {
            "ppo_clip": {RATIO_CLIP},
            "clip_cov": {RATIO_CLIP, "clip_cov: removed tokens"},
            "kl_cov": {"kl_cov: kl"},
        }[control]
    )
    for cause in acting:
        rest = sum(part for name, part in parts.items() if name != cause)
        assert not torch.allclose(rest, truth, rtol=0, atol=TIGHT), f"nothing is missed without {cause}"


@pytest.mark.parametrize("loss", POLICY_LOSSES)
def test_a_plan_with_every_term_is_split_whatever_the_loss(loss: str) -> None:
    measured, plan, sets = setting("clip_cov")
    generator = torch.Generator().manual_seed(7)
    logprobs = measured.logprobs.clone().requires_grad_()

    def random() -> Tensor:
        return torch.rand(measured.mask.shape, generator=generator, dtype=torch.float64)

    plan = replace(
        plan,
        kl_form="k2",
        kl_weight=random(),
        factor=0.5 + random(),
        dual_clip=None if loss == "cispo" else 1.2,
        reference_weight=random(),
        entropy_weight=random(),
    )
    # Entropies that depend on the log-probs, as they do in a network.
    entropies = logprobs.masked_fill(~measured.mask, 0.0).square()
    inputs = PenaltyInputs(entropies=entropies, reference_logprobs=measured.logprobs + 0.1 * random())
    terms = loss_by_cause(
        lambda other: whole_of(measured, other, logprobs, POLICY_LOSSES[loss], inputs), plan, measured.mask, sets
    )
    whole = whole_of(measured, plan, logprobs, POLICY_LOSSES[loss], inputs)
    assert set(terms.token_mean) == {"clip_cov: bonus"}
    expected = {"right", "wrong", RATIO_CLIP}
    expected |= {f"clip_cov: {name}" for name in ("factor", "removed tokens", "kl", "reference_kl")}
    assert set(terms.aggregated) == expected
    for parts, term in ((terms.aggregated, whole.aggregated), (terms.token_mean, whole.bonus)):
        truth = gradient(term, logprobs)
        torch.testing.assert_close(sum(parts.values()), term, rtol=0, atol=TIGHT)
        gradients = {cause: gradient(part, logprobs) for cause, part in parts.items()}
        torch.testing.assert_close(sum(gradients.values()), truth, rtol=0, atol=TIGHT)
        for cause, found in gradients.items():
            assert not torch.allclose(truth - found, truth, rtol=0, atol=TIGHT), f"{cause} does nothing"


def test_each_term_lies_where_its_cause_acts() -> None:
    measured, plan, sets = setting("clip_cov")
    logprobs = measured.logprobs.clone().requires_grad_()
    terms = terms_of(measured, plan, sets, logprobs)
    whole = whole_of(measured, plan, logprobs)
    cut = whole.cut_low | whole.cut_high
    plain = -torch.exp(measured.logprobs - measured.old_logprobs) * measured.advantages
    at = {cause: gradient(term, logprobs) != 0 for cause, term in terms.items()}
    assert torch.equal(at[RATIO_CLIP], cut)
    assert torch.equal(at["clip_cov: removed tokens"], plan.chosen & ~cut)
    assert bool(cut.any()) and bool(plan.chosen.any())
    for name, rows in sets.items():
        assert torch.equal(at[name], measured.mask & rows[:, None])
        chosen = terms[name][at[name]].detach()
        torch.testing.assert_close(chosen, plain[at[name]], rtol=0, atol=TIGHT)
    # A clipped and a removed token: what was added as an answer's term is taken away again.
    removed = at["clip_cov: removed tokens"]
    taken = gradient(sum(terms.values()), logprobs)[removed]
    assert float(taken.abs().max()) <= TIGHT
    assert float(gradient(terms["right"] + terms["wrong"], logprobs)[removed].abs().min()) > TIGHT


def test_factors_leave_the_other_causes_where_they_were() -> None:
    measured, plan, sets = setting("clip_cov")
    factor = 0.5 + torch.rand(measured.mask.shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    logprobs = measured.logprobs.clone().requires_grad_()
    terms = terms_of(measured, replace(plan, factor=factor), sets, logprobs)
    without = terms_of(measured, plan, sets, logprobs)
    for cause in (RATIO_CLIP, "clip_cov: removed tokens"):
        part, plain = gradient(terms[cause], logprobs), gradient(without[cause], logprobs)
        torch.testing.assert_close(part, factor * plain, rtol=0, atol=TIGHT)
        assert not torch.allclose(part, plain, rtol=0, atol=TIGHT)


def test_any_sets_that_split_the_responses_will_do() -> None:
    """Data sources, here three of them of unequal size."""
    measured, plan, sets = setting("ppo_clip")
    source = torch.arange(len(measured.mask)) % 5
    sources = {"algebra": source < 1, "geometry": (source >= 1) & (source < 3), "code": source >= 3}
    by_answer = terms_of(measured, plan, sets, measured.logprobs)
    by_source = terms_of(measured, plan, sources, measured.logprobs)
    assert torch.equal(sum(by_source[name] for name in sources), sum(by_answer[name] for name in sets))
    assert torch.equal(by_source[RATIO_CLIP], by_answer[RATIO_CLIP])


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["right"], r"is in 0 of the sets right; each"),
        (["right", "wrong", "right again"], r"is in 2 of the sets right, wrong, right again"),
        ([], r"Response 0 is in 0 of the sets \(none\)"),
    ],
)
def test_sets_that_overlap_or_leave_responses_out_are_refused(names: list[str], complaint: str) -> None:
    measured, plan, sets = setting("ppo_clip")
    with pytest.raises(ShapeError, match=complaint):
        terms_of(measured, plan, {name: sets[name.split()[0]] for name in names}, measured.logprobs)


def test_what_stands_behind_the_mask_is_inert() -> None:
    measured, plan, sets = setting("kl_cov")
    assert bool(measured.logprobs.isnan().any())
    terms = terms_of(measured, plan, sets, measured.logprobs)
    assert all(bool((term[~measured.mask] == 0).all()) for term in terms.values())
    open_mask = replace(measured, mask=torch.ones_like(measured.mask))
    exposed = terms_of(open_mask, plan, sets, measured.logprobs)
    assert any(bool(term.isnan().any()) for term in exposed.values())
