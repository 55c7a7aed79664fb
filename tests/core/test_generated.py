"""Generated cases of log-prob, entropy and covariance against brute force: many small ones, few of them tame.

Each case draws its sizes, padding, order, temperatures, chunks, entries of -inf, offset and sharpness. A thousand in
every run; ten thousand with `pytest -m slow`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from covent.core.covariance import batch_center, token_covariance
from covent.core.entropy import logprob_and_entropy
from covent.core.lm_head import logprob_and_entropy_from_hidden
from tests.support.tolerances import CHUNKED, LARGE_OFFSET, NEAR_ZERO_ENTROPY, TIGHT

QWEN_VOCABULARY = 151_936


class Case(NamedTuple):
    """A batch of states and everything that must not matter, or must matter as the definition says."""

    seed: int
    num_states: int
    vocabulary: int
    token_chunk: int
    vocab_chunk: int
    temperature: float | None
    """None: another one for each state."""
    scale: float
    """Spread of the logits: large ones give entropies near zero."""
    offset: float
    dead: float
    """Share of the entries at -inf."""


cases = st.builds(
    Case,
    seed=st.integers(0, 2**31),
    num_states=st.integers(1, 4),
    vocabulary=st.integers(1, 9),
    token_chunk=st.integers(1, 5),
    vocab_chunk=st.integers(1, 10),
    temperature=st.none() | st.sampled_from([1.0, 0.6, 2.0]),
    scale=st.sampled_from([0.0, 1.0, 5.0, 60.0]),
    offset=st.sampled_from([0.0, -40.0, 1e3, 1e6]),
    dead=st.sampled_from([0.0, 0.3, 0.8]),
)


def brute(logits: list[float], token: int, temperature: float) -> tuple[float, float]:
    """log p(token) and the entropy, one entry at a time; log1p keeps the likeliest entry's share of it."""
    top = logits.index(max(logits))
    d = [(z - logits[top]) / temperature for z in logits]
    rest = math.fsum(math.exp(x) for i, x in enumerate(d) if i != top)
    log_total = math.log1p(rest)
    terms = [math.exp(x - log_total) * (log_total - x) for x in d if x > -math.inf]
    return d[token] - log_total, math.fsum(terms)


def drawn(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """(logits, tokens, temperature of each state); each state has a live entry."""
    generator = torch.Generator().manual_seed(case.seed)
    shape = (case.num_states, case.vocabulary)
    logits = case.offset + case.scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    dead = torch.rand(shape, generator=generator) < case.dead
    dead[torch.arange(shape[0]), torch.randint(shape[1], (shape[0],), generator=generator)] = False
    tokens = torch.randint(shape[1], (shape[0],), generator=generator)
    each = 0.2 + 2 * torch.rand(shape[0], generator=generator, dtype=torch.float64)
    temperature = each if case.temperature is None else torch.full_like(each, case.temperature)
    return logits.masked_fill(dead, -torch.inf), tokens, temperature


def check_entropy(case: Case) -> None:
    """From logits and from hidden states; in any order of states; after padding with states of NaN."""
    logits, tokens, temperature = drawn(case)
    rows = zip(logits.tolist(), tokens.tolist(), temperature.tolist(), strict=True)
    truth = [brute(*row) for row in rows]
    given_temperature = temperature if case.temperature is None else case.temperature
    loose = LARGE_OFFSET if case.offset else CHUNKED
    same = {"rel": CHUNKED, "abs": 0.0}

    logprob, entropies = logprob_and_entropy(logits, tokens, temperature=given_temperature)
    found = list(zip(logprob.tolist(), entropies.tolist(), strict=True))
    for (logp, entropy), (true_logp, true_entropy) in zip(found, truth, strict=True):
        assert logp == pytest.approx(true_logp, rel=CHUNKED, abs=CHUNKED)
        # Relative: near certainty too, down to entropies that no float could tell from 0 beside 1.
        assert entropy == pytest.approx(true_entropy, **same)

    # hidden = one-hot rows, so that the head's columns are the logits.
    hidden = torch.eye(case.num_states, dtype=torch.float64)
    alive = logits != -torch.inf
    bias = torch.zeros(case.vocabulary, dtype=torch.float64)
    bias[~alive.any(dim=0)] = -torch.inf
    weight = logits.where(alive, torch.full_like(logits, case.offset - 1e8)).T.contiguous()
    chunks = {"token_chunk": case.token_chunk, "vocab_chunk": case.vocab_chunk}
    order = torch.randperm(case.num_states, generator=torch.Generator().manual_seed(case.seed))
    shuffled = logprob_and_entropy_from_hidden(
        hidden[order], weight, tokens[order], bias=bias, temperature=temperature[order], **chunks
    )
    for place, row in enumerate(order.tolist()):
        if math.isfinite(truth[row][0]):
            assert float(shuffled[0][place]) == pytest.approx(truth[row][0], rel=loose, abs=loose)
        assert float(shuffled[1][place]) == pytest.approx(truth[row][1], rel=loose, abs=0.0)

    junk = torch.cat([logits, torch.full((2, case.vocabulary), torch.nan, dtype=torch.float64)])
    more = logprob_and_entropy(
        junk, torch.cat([tokens, tokens.new_zeros(2)]), temperature=torch.cat([temperature, temperature.new_ones(2)])
    )
    assert more[1][: case.num_states].tolist() == [entropy for _, entropy in found]


def check_covariance(case: Case) -> None:
    """Padding, order and a constant offset leave each token's covariance alone."""
    generator = torch.Generator().manual_seed(case.seed)
    shape = (case.num_states, case.vocabulary)
    mask = torch.rand(shape, generator=generator) >= case.dead
    mask[0, 0] = True
    logprobs = -torch.empty(shape, dtype=torch.float64).exponential_(1.0, generator=generator)
    advantages = torch.randn(shape, generator=generator, dtype=torch.float64)
    pairs = list(zip(logprobs[mask].tolist(), advantages[mask].tolist(), strict=True))
    mean_l, mean_a = (math.fsum(column) / len(pairs) for column in zip(*pairs, strict=True))
    truth = [(x - mean_l) * (a - mean_a) for x, a in pairs]

    values = [(t + shift).masked_fill(~mask, torch.nan) for t, shift in ((logprobs, 0.0), (advantages, case.offset))]
    padded = [torch.nn.functional.pad(t, (0, 2), value=torch.nan) for t in values]
    wide = torch.nn.functional.pad(mask, (0, 2))
    order = torch.randperm(case.num_states, generator=generator)
    shuffled = [*(t[order] for t in padded), wide[order]]
    found = token_covariance(*shuffled, center=batch_center(*shuffled))[order.argsort()]
    tolerance = LARGE_OFFSET if case.offset else TIGHT
    assert found[wide].tolist() == pytest.approx(truth, rel=tolerance, abs=10 * tolerance)
    assert bool((found[~wide] == 0).all())


class LargeCase(NamedTuple):
    """One state over the vocabulary of a real model, in float32, near certainty."""

    seed: int
    rest: float
    """log10 of the probability that is left to all entries but one."""
    spread: float
    offset: float
    temperature: float
    dead: float


large_cases = st.builds(
    LargeCase,
    seed=st.integers(0, 2**31),
    rest=st.floats(-7.4, -0.5),
    spread=st.sampled_from([0.0, 1.0, 3.0]),
    offset=st.sampled_from([0.0, 200.0, -200.0]),
    temperature=st.sampled_from([1.0, 0.6]),
    dead=st.sampled_from([0.0, 0.5]),
)


def check_large(case: LargeCase) -> None:
    """float32 logits against brute force in float64 on the same logits."""
    generator = torch.Generator().manual_seed(case.seed)
    logits = case.spread * torch.randn(QWEN_VOCABULARY, generator=generator, dtype=torch.float64)
    logits[torch.rand(QWEN_VOCABULARY, generator=generator) < case.dead] = -torch.inf
    token = int(torch.randint(QWEN_VOCABULARY, (), generator=generator))
    logits[token] = -torch.inf
    others = float((logits / case.temperature).logsumexp(dim=0))
    logits[token] = case.temperature * (others - math.log(10.0) * case.rest)
    single = (logits + case.offset).float()
    true_logprob, truth = brute(single.tolist(), token, case.temperature)
    assert truth > 1e-6 / 2
    logprob, entropy = logprob_and_entropy(single, torch.tensor(token), temperature=case.temperature)
    assert float(entropy) == pytest.approx(truth, rel=NEAR_ZERO_ENTROPY, abs=0.0)
    assert float(logprob) == pytest.approx(true_logprob, rel=NEAR_ZERO_ENTROPY, abs=0.0)


few = settings(max_examples=1_000, suppress_health_check=list(HealthCheck))
many = settings(max_examples=10_000, suppress_health_check=list(HealthCheck))


@few
@given(cases)
def test_a_thousand_entropies(case: Case) -> None:
    check_entropy(case)


@few
@given(cases)
def test_a_thousand_covariances(case: Case) -> None:
    check_covariance(case)


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(large_cases)
def test_large_vocabularies(case: LargeCase) -> None:
    check_large(case)


@pytest.mark.slow
@settings(max_examples=500, suppress_health_check=list(HealthCheck))
@given(large_cases)
def test_many_large_vocabularies(case: LargeCase) -> None:
    check_large(case)


@pytest.mark.slow
@many
@given(cases)
def test_ten_thousand_entropies(case: Case) -> None:
    check_entropy(case)


@pytest.mark.slow
@many
@given(cases)
def test_ten_thousand_covariances(case: Case) -> None:
    check_covariance(case)


def test_the_cases_are_hard() -> None:
    """The textbook forms fail on cases such as these."""
    sharp = Case(3, 4, 9, 1, 1, 1.0, 60.0, 1e6, 0.3)
    logits, tokens, _ = drawn(sharp)
    truth = [brute(row, token, 1.0)[1] for row, token in zip(logits.tolist(), tokens.tolist(), strict=True)]
    log_p = logits.log_softmax(-1)
    assert (-(log_p.exp() * log_p).sum(-1)).tolist() != pytest.approx(truth, rel=CHUNKED, abs=0.0)
    textbook = logits.logsumexp(-1) - (logits.softmax(-1) * logits.masked_fill(logits == -torch.inf, 0)).sum(-1)
    assert textbook.tolist() != pytest.approx(truth, rel=NEAR_ZERO_ENTROPY, abs=0.0)
