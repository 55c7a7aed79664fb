"""The sampler against full forward passes and the model's own distribution; no response depends on its company."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import chisquare

from covent.core.keys import key
from covent.rollout import sampler
from covent.rollout.batch import Responses, score
from covent.rollout.sampler import sample
from tests.support.small_model import shared_model
from tests.support.tolerances import CACHED_FORWARD, CHANCE
from tests.support.unpadded import alone, as_list, listed

PROMPTS = ["Q 1 + 2 A", "Q 3 * 4 - 5 + 6 A", "Q 7 - 7 - 7 A"]
KEY = key(0, "rollout")


def draw(
    prompts: list[str] = PROMPTS,
    groups: list[int] | None = None,
    *,
    num_samples: int = 4,
    max_tokens: int = 12,
    number: int = KEY,
    temperature: float = 1.0,
) -> Responses:
    model = shared_model()
    return sample(
        model.network,
        [model.encode_prompt(text) for text in prompts],
        groups=list(range(len(prompts))) if groups is None else groups,
        num_samples=num_samples,
        max_tokens=max_tokens,
        end_id=model.end_id,
        pad_id=model.pad_id,
        key=number,
        temperature=temperature,
    )


def texts(responses: Responses) -> dict[tuple[int, int], list[int]]:
    """The tokens of each response by (group, sample)."""
    names = zip(responses.group.tolist(), responses.sample.tolist(), strict=True)
    rows = zip(names, responses.response_ids, responses.mask, strict=True)
    return {name: ids[mask].tolist() for name, ids, mask in rows}


@pytest.mark.parametrize("temperature", [1.0, 0.5, 1.7])
def test_scores_are_those_of_a_full_forward(temperature: float) -> None:
    """No cache, no padding, no company: the log-prob at the sampling temperature, the entropy at 1."""
    model, drawn = shared_model(), draw(temperature=temperature)
    for row in range(len(drawn)):
        found = as_list(listed(drawn, row, drawn.logprobs, drawn.entropies))
        assert found == pytest.approx(as_list(alone(model, drawn, row, temperature)), abs=CACHED_FORWARD)
        wrong = as_list(alone(model, drawn, row, temperature + 0.1))
        assert found != pytest.approx(wrong, abs=CACHED_FORWARD)


def test_the_learner_scores_the_same() -> None:
    drawn = draw(temperature=0.8)
    with torch.no_grad():
        logprobs, entropies = score(shared_model().network, drawn, temperature=0.8)
    for found, truth in ((logprobs, drawn.logprobs), (entropies, drawn.entropies)):
        assert found[drawn.mask].tolist() == pytest.approx(truth[drawn.mask].tolist(), abs=CACHED_FORWARD)
    with torch.no_grad():
        another, _ = score(shared_model(seed=1).network, drawn, temperature=0.8)
    assert another[drawn.mask].tolist() != pytest.approx(drawn.logprobs[drawn.mask].tolist(), abs=CACHED_FORWARD)


def test_a_response_does_not_depend_on_its_company() -> None:
    together = texts(draw())
    for group, prompt in enumerate(PROMPTS):
        assert texts(draw([prompt], [group])).items() <= together.items()
    assert texts(draw(PROMPTS[::-1], [2, 1, 0])) == together
    fewer = texts(draw(num_samples=2))
    assert fewer == {name: ids for name, ids in together.items() if name[1] < 2}
    shorter = texts(draw(max_tokens=5))
    assert shorter == {name: ids[:5] for name, ids in together.items()}


def test_another_group_key_or_sample_is_another_response() -> None:
    base = list(texts(draw(PROMPTS[:1], [0], num_samples=6)).values())
    assert list(texts(draw(PROMPTS[:1], [0], num_samples=6)).values()) == base
    assert list(texts(draw(PROMPTS[:1], [7], num_samples=6)).values()) != base
    assert list(texts(draw(PROMPTS[:1], [0], num_samples=6, number=key(1, "rollout"))).values()) != base
    assert len({tuple(ids) for ids in base}) > 1


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_frequencies_are_the_models_probabilities(temperature: float) -> None:
    """First tokens, and second tokens after the most frequent first one."""
    model, num_samples = shared_model(), 4000
    drawn = draw(PROMPTS[:1], num_samples=num_samples, max_tokens=2, temperature=temperature)
    first, second = drawn.response_ids[:, 0], drawn.response_ids[:, 1]
    favourite = int(first[first != model.end_id].mode().values)
    prompt = model.encode_prompt(PROMPTS[0])
    with torch.no_grad():
        logits = model.network(input_ids=torch.tensor([[*prompt, favourite]])).logits[0, -2:]

    def p_value(tokens: torch.Tensor, index: int, at: float) -> float:
        expected = (logits[index] / at).softmax(dim=-1) * len(tokens)
        counts = tokens.bincount(minlength=len(expected)).double()
        rare = expected < 5
        pooled = [torch.cat([v[~rare], v[rare].sum()[None]]) for v in (counts, expected)]
        kept = pooled[1] > 0
        return float(chisquare(pooled[0][kept].tolist(), pooled[1][kept].tolist()).pvalue)

    after_favourite = second[first == favourite]
    assert len(after_favourite) > 200
    for tokens, index in ((first, 0), (after_favourite, 1)):
        assert p_value(tokens, index, temperature) > CHANCE
        assert p_value(tokens, index, 2 * temperature) < CHANCE


def test_greedy_takes_the_most_likely_token() -> None:
    model, drawn = shared_model(), draw(num_samples=1, temperature=0.0)
    for row in range(3):
        context = drawn.prompt_ids[row][drawn.prompt_mask[row]].tolist()
        for token in drawn.response_ids[row][drawn.mask[row]].tolist():
            with torch.no_grad():
                logits = model.network(input_ids=torch.tensor([context])).logits[0, -1].tolist()
            assert token == logits.index(max(logits)) != logits.index(sorted(logits)[-2])
            context.append(token)
        found = as_list(listed(drawn, row, drawn.logprobs, drawn.entropies))
        assert found == pytest.approx(as_list(alone(model, drawn, row)), abs=CACHED_FORWARD)
    assert texts(draw(num_samples=1, temperature=0.0, number=9)) == texts(drawn)
    almost = texts(draw(num_samples=1, temperature=1e-3))
    assert almost == texts(drawn)


def test_ends_and_truncation() -> None:
    model, drawn = shared_model(), draw(num_samples=40, max_tokens=6)
    lengths, ended = drawn.mask.sum(dim=1).tolist(), []
    for row, length in enumerate(lengths):
        ids = drawn.response_ids[row].tolist()
        assert drawn.mask[row].tolist() == [column < length for column in range(6)]
        assert model.end_id not in ids[: length - 1]
        assert ids[length:] == [model.pad_id] * (6 - length)
        ended.append(ids[length - 1] == model.end_id)
        assert ended[-1] or length == 6
    assert drawn.truncated.tolist() == [not end for end in ended]
    assert 0 < sum(ended) < len(ended)
    assert any(end and length == 6 for end, length in zip(ended, lengths, strict=True)), "an end at the limit is an end"
    assert bool((drawn.logprobs[~drawn.mask] == 0).all()) and bool((drawn.entropies[~drawn.mask] == 0).all())
    assert bool((drawn.logprobs[drawn.mask] < 0).all()) and bool((drawn.entropies[drawn.mask] > 0).all())


def test_sampling_stops_when_all_have_ended() -> None:
    drawn = draw(PROMPTS[:1], num_samples=1, max_tokens=500)
    assert drawn.response_ids.shape[1] == int(drawn.mask.sum()) < 500
    assert not bool(drawn.truncated.any())


def test_impossible_tokens_are_never_drawn() -> None:
    """Entries of -inf, at either end of the vocabulary, under a model whose head is biased to them."""
    model = shared_model()
    impossible = [0, 1, 2, len(model.tokenizer) - 1]

    def forbid(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        return output.index_fill(-1, torch.tensor(impossible), -math.inf)

    assert {0, 2} & {token for ids in texts(draw(num_samples=50)).values() for token in ids}
    handle = model.network.lm_head.register_forward_hook(forbid)
    try:
        drawn = draw(num_samples=50)
    finally:
        handle.remove()
    assert not set(impossible) & set(drawn.response_ids[drawn.mask].tolist())
    assert bool(drawn.logprobs.isfinite().all()) and bool(drawn.entropies.isfinite().all())


@pytest.mark.parametrize(("number", "expected"), [(0.0, 1), (0.499, 1), (0.5, 3), (1 - 2**-53, 3)])
def test_the_ends_of_the_unit_interval_fall_on_possible_tokens(
    number: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probabilities 0, 1/2, 0, 1/2, 0: each number falls into the half-open interval of a token that can occur."""
    monkeypatch.setattr(sampler, "token_uniform", lambda key, identity: torch.full((1,), number, dtype=torch.float64))
    model = shared_model()
    logits = torch.full((len(model.tokenizer),), -math.inf, dtype=torch.float64)
    logits[1] = logits[3] = 0.0
    handle = model.network.lm_head.register_forward_hook(lambda module, inputs, output: logits.expand_as(output))
    try:
        drawn = draw(PROMPTS[:1], num_samples=1, max_tokens=1)
    finally:
        handle.remove()
    assert drawn.response_ids.tolist() == [[expected]]
