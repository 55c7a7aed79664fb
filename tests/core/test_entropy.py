"""Log-prob and entropy against the definition in plain loops, near certainty and where closed forms break."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import pytest
import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from covent.core.entropy import logprob_and_entropy
from covent.errors import ConfigError
from tests.support.tolerances import FLOAT32, NEAR_ZERO_ENTROPY, TIGHT

QWEN_VOCABULARY = 151_936


def plain(logits: list[float], token: int, temperature: float = 1.0) -> tuple[float, float]:
    """log p(token) and -sum p log p, one entry at a time in float64."""
    top = max(logits)
    weights = [math.exp((z - top) / temperature) for z in logits]
    total = math.fsum(weights)
    probabilities = [w / total for w in weights]
    entropy = -math.fsum(p * math.log(p) for p in probabilities if p > 0)
    return (logits[token] - top) / temperature - math.log(total), entropy


def naive_entropy(logits: Tensor) -> Tensor:
    """log-sum-exp minus mean logit: right on paper, and what several trainers compute."""
    return logits.logsumexp(dim=-1) - (logits.softmax(dim=-1) * logits).sum(dim=-1)


def random_logits(seed: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("temperature", [0.25, 0.7, 1.0, 3.0])
@pytest.mark.parametrize("offset", [0.0, -300.0, 300.0])
def test_equals_the_definition(temperature: float, offset: float) -> None:
    logits = random_logits(0, (6, 5, 17)) + offset
    logits[:, :, 3] = -torch.inf
    tokens = torch.randint(4, 17, (6, 5), generator=torch.Generator().manual_seed(1))
    logprob, entropy = logprob_and_entropy(logits, tokens, temperature=temperature)
    for row in range(6):
        for column in range(5):
            truth = plain(logits[row, column].tolist(), int(tokens[row, column]), temperature)
            found = float(logprob[row, column]), float(entropy[row, column])
            assert found == pytest.approx(truth, abs=TIGHT)
            wrong = plain(logits[row, column].tolist(), int(tokens[row, column]), temperature + 0.1)
            assert found != pytest.approx(wrong, abs=TIGHT)


@pytest.mark.parametrize("seed", range(40))
def test_equals_the_definition_in_float32(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    size = int(torch.randint(2, 400, (), generator=generator))
    offset, temperature = [0.0, 1e4, -1e6][seed % 3], [1.0, 0.7, 0.3][seed // 3 % 3]
    logits = random_logits(seed, (size,), torch.float32) + offset
    logits[torch.rand(size, generator=generator) < 0.2] = -torch.inf
    logits[0] = offset
    token = torch.tensor(0)
    truth = plain(logits.tolist(), 0, temperature)
    found = [float(value) for value in logprob_and_entropy(logits, token, temperature=temperature)]
    assert found == pytest.approx(truth, abs=FLOAT32, rel=FLOAT32)


def test_a_large_offset_breaks_division_before_the_shift() -> None:
    logits = random_logits(1, (50,), torch.float32) + 1e5
    truth = plain(logits.tolist(), 0, 0.7)[1]
    _, entropy = logprob_and_entropy(logits, torch.tensor(0), temperature=0.7)
    _, divided_first = logprob_and_entropy(logits / 0.7, torch.tensor(0))
    assert float(entropy) == pytest.approx(truth, abs=FLOAT32)
    assert float(divided_first) != pytest.approx(truth, abs=FLOAT32)


@pytest.mark.parametrize("rest", [1e-1, 1e-3, 1e-5, 4e-8, 1e-9])
@pytest.mark.parametrize("offset", [0.0, 200.0])
def test_near_zero_entropy_over_a_large_vocabulary(rest: float, offset: float) -> None:
    """`rest` is the probability left to all entries but the first; 4e-8 gives an entropy of 1e-6."""
    logits = random_logits(2, (QWEN_VOCABULARY,))
    logits[0] = -torch.inf
    logits[0] = float(logits.logsumexp(dim=0)) - math.log(rest)
    single = (logits + offset).float()
    _, truth = plain(single.tolist(), 0)
    _, entropy = logprob_and_entropy(single, torch.tensor(0))
    assert float(entropy) == pytest.approx(truth, rel=NEAR_ZERO_ENTROPY)
    assert rest > 4e-8 or truth < 1.5e-6
    assert float(naive_entropy(single)) != pytest.approx(truth, rel=NEAR_ZERO_ENTROPY)


@pytest.mark.parametrize("gap", [20, 60, 300])
def test_near_zero_entropy_against_fifty_digits(gap: int) -> None:
    with localcontext() as context:
        context.prec = 500
        rest = [Decimal(-gap - i).exp() for i in range(5)]
        total = 1 + sum(rest)
        truth = -sum(p / total * (p / total).ln() for p in [Decimal(1), *rest])
    logits = torch.tensor([0.0, *(-float(gap + i) for i in range(5))], dtype=torch.float64)
    _, entropy = logprob_and_entropy(logits, torch.tensor(0))
    assert float(entropy) == pytest.approx(float(truth), rel=TIGHT)
    assert float(naive_entropy(logits)) != pytest.approx(float(truth), rel=TIGHT, abs=0)


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_gradients_by_finite_differences(temperature: float) -> None:
    logits = random_logits(3, (4, 9)).requires_grad_()
    tokens = torch.tensor([0, 8, 3, int(logits[3].argmax())])

    def function(z: Tensor) -> tuple[Tensor, Tensor]:
        return logprob_and_entropy(z, tokens, temperature=temperature)

    assert torch.autograd.gradcheck(function, (logits,))

    def probabilities_detached(z: Tensor) -> Tensor:
        log_p = (z / temperature).log_softmax(dim=-1)
        return -(log_p.exp().detach() * log_p).sum(dim=-1)

    with pytest.raises(GradcheckError):
        torch.autograd.gradcheck(probabilities_detached, (logits,))


def test_gradients_by_their_formulas_and_dead_entries() -> None:
    logits = random_logits(4, (3, 12))
    logits[:, ::4] = -torch.inf
    logits.requires_grad_()
    tokens = torch.tensor([1, 2, 3])
    logprob, entropy = logprob_and_entropy(logits, tokens)
    (of_logprob,) = torch.autograd.grad(logprob.sum(), logits, retain_graph=True)
    (of_entropy,) = torch.autograd.grad(entropy.sum(), logits)
    for row in range(3):
        values = logits[row].tolist()
        _, h = plain(values, 1)
        for v in range(12):
            log_p = plain(values, v)[0]
            p = math.exp(log_p)
            assert float(of_logprob[row, v]) == pytest.approx((v == int(tokens[row])) - p, abs=TIGHT)
            truth = -p * (log_p + h) if p > 0 else 0.0
            assert float(of_entropy[row, v]) == pytest.approx(truth, abs=TIGHT)
    assert bool((of_entropy[:, ::4] == 0).all())
    textbook = -(logits.softmax(-1) * logits.log_softmax(-1)).sum()
    assert math.isnan(float(textbook.detach()))
    assert bool(torch.autograd.grad(textbook, logits)[0].isnan().any())


def test_uniform_is_log_v_with_no_gradient() -> None:
    logits = torch.full((2, 1000), 7.0, dtype=torch.float64, requires_grad=True)
    _, entropy = logprob_and_entropy(logits, torch.tensor([0, 999]))
    assert entropy.tolist() == pytest.approx([math.log(1000)] * 2, abs=TIGHT)
    (gradient,) = torch.autograd.grad(entropy.sum(), logits)
    assert float(gradient.abs().max()) <= TIGHT
    one_less = torch.zeros(1, 999, dtype=torch.float64)
    assert float(logprob_and_entropy(one_less, torch.tensor([0]))[1]) != pytest.approx(math.log(1000), abs=TIGHT)


def test_a_token_of_no_probability() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 1.0]], requires_grad=True)
    logprob, entropy = logprob_and_entropy(logits, torch.tensor([1]))
    assert logprob.tolist() == [-math.inf]
    assert entropy.item() == pytest.approx(plain([0.0, -math.inf, 1.0], 0)[1], abs=FLOAT32)
    assert bool(torch.autograd.grad(entropy.sum(), logits)[0].isfinite().all())


@pytest.mark.parametrize("broken", [[math.nan, 0.0, 1.0], [0.0, math.inf, 1.0], [-math.inf] * 3])
def test_broken_logits_are_not_taken_for_certainty(broken: list[float]) -> None:
    logprob, entropy = logprob_and_entropy(torch.tensor([broken]), torch.tensor([2]))
    assert math.isnan(float(entropy))
    assert not math.isfinite(float(logprob))


def test_half_precision_is_reduced_in_float32() -> None:
    logits = random_logits(5, (200,), torch.bfloat16)
    truth = plain(logits.tolist(), 7)
    found = [float(value) for value in logprob_and_entropy(logits, torch.tensor(7))]
    assert found == pytest.approx(truth, abs=FLOAT32)
    assert float(naive_entropy(logits)) != pytest.approx(truth[1], abs=FLOAT32)


def test_a_temperature_for_each_state() -> None:
    logits = random_logits(6, (4, 3, 11))
    tokens = torch.randint(0, 11, (4, 3), generator=torch.Generator().manual_seed(6))
    temperature = torch.linspace(0.3, 2.5, 12, dtype=torch.float64).view(4, 3)
    found = logprob_and_entropy(logits, tokens, temperature=temperature)
    for row in range(4):
        for column in range(3):
            one = logits[row, column].tolist(), int(tokens[row, column])
            truth = plain(*one, float(temperature[row, column]))
            assert [float(value[row, column]) for value in found] == pytest.approx(truth, abs=TIGHT)
            assert [float(value[row, column]) for value in found] != pytest.approx(plain(*one, 1.01), abs=TIGHT)
    same = logprob_and_entropy(logits, tokens, temperature=torch.full((4, 3), 0.7, dtype=torch.float64))
    assert all(map(torch.equal, same, logprob_and_entropy(logits, tokens, temperature=0.7)))


def test_gradients_with_a_temperature_for_each_state() -> None:
    logits = random_logits(7, (3, 6)).requires_grad_()
    temperature = torch.tensor([0.4, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    tokens = torch.tensor([0, 5, 2])
    assert torch.autograd.gradcheck(lambda z: logprob_and_entropy(z, tokens, temperature=temperature.detach()), logits)
    logprob, entropy = logprob_and_entropy(logits, tokens, temperature=temperature)
    (logprob + entropy).sum().backward()
    assert temperature.grad is None


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_positive(temperature: float) -> None:
    for wrong in (temperature, torch.tensor([1.0, temperature])):
        with pytest.raises(ConfigError, match="above 0"):
            logprob_and_entropy(torch.zeros(2, 3), torch.tensor([0, 1]), temperature=wrong)
