"""KL estimates against sums over a whole vocabulary, in value and in expected gradient; the bonus; what is missing."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from covent.core.penalties import KLForm, divergence, entropy_bonus_term, exact_divergence, kl_term
from covent.errors import ShapeError
from tests.support.tolerances import TIGHT

FORMS = [form for form in get_args(KLForm) if form != "exact"]


def two_policies(seed: int) -> tuple[Tensor, Tensor]:
    """Logits of two policies over seven tokens."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(7, generator=generator, dtype=torch.float64)
    return logits, logits + 0.7 * torch.randn(7, generator=generator, dtype=torch.float64)


def expected(form: KLForm, log_p: Tensor, log_q: Tensor) -> Tensor:
    """Expectation of an estimate over tokens drawn from p, by enumeration."""
    return (log_p.detach().exp() * divergence(log_p - log_q, form)).sum()


def gradient(value: Tensor, logits: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(value, logits, retain_graph=True)
    return found


def test_values_are_the_formulas() -> None:
    for r in (-3.0, -0.2, 0.0, 1e-9, 0.4, 2.0):
        found = {form: float(divergence(torch.tensor(r, dtype=torch.float64), form)) for form in FORMS}
        truth = {"abs": abs(r), "k1": r, "k2": r * r / 2, "k3": math.expm1(-r) + r}
        assert found == pytest.approx(truth, abs=TIGHT)
    tiny = torch.tensor(1e-6, dtype=torch.float32)
    assert float(divergence(tiny, "k3")) < 1e-6
    assert float((-tiny).exp() - 1 + tiny) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_which_estimates_are_unbiased(seed: int) -> None:
    log_p, log_q = (logits.log_softmax(0) for logits in two_policies(seed))
    truth = float(exact_divergence(log_p, log_q))
    assert truth == pytest.approx(
        sum(math.exp(p) * (p - q) for p, q in zip(log_p.tolist(), log_q.tolist(), strict=True))
    )
    for form in FORMS:
        unbiased = float(expected(form, log_p, log_q)) == pytest.approx(truth, abs=TIGHT)
        assert unbiased == (form in ("k1", "k3")), form


def test_the_bias_of_k2_is_of_third_order() -> None:
    log_p = two_policies(0)[0].log_softmax(0)
    direction = two_policies(1)[0]
    errors = []
    for step in (1e-2, 1e-3):
        log_q = (log_p + step * direction).log_softmax(0)
        errors.append(abs(float(expected("k2", log_p, log_q) - exact_divergence(log_p, log_q))))
    assert math.log10(errors[0] / errors[1]) == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_which_expected_gradients_are_right(seed: int) -> None:
    """As a loss in p (reference KL) and in q (KL to the policy that sampled), against the exact KL's gradient."""
    p_logits, q_logits = (logits.requires_grad_() for logits in two_policies(seed))
    log_p, log_q = p_logits.log_softmax(0), q_logits.log_softmax(0)
    forward = exact_divergence(log_p, log_q)
    backward = exact_divergence(log_q, log_p)

    def same(left: Tensor, right: Tensor) -> bool:
        return bool(torch.allclose(left, right, rtol=0, atol=TIGHT))

    in_p = {form: gradient(expected(form, log_p, log_q), p_logits) for form in FORMS}
    in_q = {form: gradient(expected(form, log_p, log_q), q_logits) for form in FORMS}
    assert [form for form in FORMS if same(in_p[form], gradient(forward, p_logits))] == ["k2"]
    assert [form for form in FORMS if same(in_p[form], torch.zeros_like(p_logits))] == ["k1"]
    assert [form for form in FORMS if same(in_p[form], gradient(backward, p_logits))] == ["k3"]
    assert [form for form in FORMS if same(in_q[form], gradient(forward, q_logits))] == ["k1", "k3"]


def test_entries_of_probability_0_are_inert() -> None:
    logits = torch.tensor([1.0, 0.0, -math.inf], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([0.5, 0.5, -math.inf], dtype=torch.float64)
    value = exact_divergence(logits.log_softmax(0), other.log_softmax(0))
    assert math.isfinite(float(value.detach()))
    assert bool(torch.isfinite(gradient(value, logits)).all())
    naive = (logits.softmax(0) * (logits.log_softmax(0) - other.log_softmax(0))).sum()
    assert math.isnan(float(naive.detach()))


def test_a_term_acts_where_its_weight_and_the_mask_say_so() -> None:
    weight = torch.tensor([[0.5, 0.0, 0.5]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False]])
    gap = torch.tensor([[0.3, 0.3, math.nan]], dtype=torch.float64).masked_fill(~mask, 0).requires_grad_()
    exact = torch.tensor([[2.0, 2.0, math.nan]], dtype=torch.float64)
    assert kl_term(weight, "abs", gap, None, mask).tolist() == [[0.15, 0.0, 0.0]]
    assert kl_term(weight, "exact", gap, exact, mask).tolist() == [[1.0, 0.0, 0.0]]
    assert entropy_bonus_term(weight, exact, mask).tolist() == [[-1.0, 0.0, 0.0]]
    kl_term(weight, "k2", gap, None, mask).sum().backward()
    assert gap.grad is not None
    assert gap.grad[0].tolist() == pytest.approx([0.15, 0.0, 0.0], abs=TIGHT)
    for missing in (
        lambda: kl_term(weight, "exact", gap, None, mask),
        lambda: entropy_bonus_term(weight, None, mask),
        lambda: divergence(gap, "exact"),
    ):
        with pytest.raises(ShapeError):
            missing()


@pytest.mark.parametrize("gap", [-95.0, -math.inf, math.inf, math.nan])
@pytest.mark.parametrize("form", FORMS)
def test_what_has_no_weight_is_inert_whatever_its_log_ratio(form: KLForm, gap: float) -> None:
    """k3 overflows from a log ratio of -88.7 on in float32."""
    log_ratio = torch.tensor([[0.3, gap, gap]], requires_grad=True)
    weight, mask = torch.tensor([[0.5, 0.0, 0.5]]), torch.tensor([[True, True, False]])
    term = kl_term(weight, form, log_ratio, None, mask)
    found = gradient(term.sum(), log_ratio)
    assert term[0, 1:].tolist() == found[0, 1:].tolist() == [0.0, 0.0]
    assert float(term[0, 0].detach()) > 0 and float(found[0, 0]) != 0
    if form == "k3" and gap < 0:
        one_where = torch.where((weight > 0) & mask, weight * divergence(log_ratio, form), 0.0)
        assert gradient(one_where.sum(), log_ratio).isnan().tolist() == [[False, True, True]]
        assert not bool(kl_term(weight, form, log_ratio, None, mask | True)[0, 2].isfinite()), "where it acts it shows"


def test_a_negative_bonus_punishes_entropy() -> None:
    weight = torch.tensor([[-0.5, 0.0, -0.5]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False]])
    entropies = torch.tensor([[2.0, 2.0, 2.0]], dtype=torch.float64, requires_grad=True)
    term = entropy_bonus_term(weight, entropies, mask)
    assert term.tolist() == [[1.0, 0.0, 0.0]]
    assert gradient(term.sum(), entropies).tolist() == [[0.5, 0.0, 0.0]]
    assert entropy_bonus_term(-weight, entropies, mask).tolist() == [[-1.0, 0.0, 0.0]]
