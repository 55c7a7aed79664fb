"""Padding, joining and scoring of responses against one response at a time, unpadded, in plain loops."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from covent.rollout.batch import Responses, join, pad_left, response_logits, score, scores_without_logits
from covent.train.model import LanguageModel
from tests.support.small_model import fresh_model, shared_model
from tests.support.tolerances import CACHED_FORWARD
from tests.support.unpadded import alone, as_list, listed

PROMPTS = ["Q 1 + 2 A", "Q 3 * 4 - 5 + 6 A", "Q 9 A"]
RESPONSES = ["1 + 2 is 3 answer 3", "3 answer", "9 - 9 is 0 0 is answer 0"]


def scored_by(model: LanguageModel, prompts: list[str], responses: list[str]) -> Responses:
    """A batch of given texts, with nothing that a sampler would know."""
    prompt_ids, prompt_mask = pad_left([model.encode_prompt(text) for text in prompts], model.pad_id)
    encoded = [model.encode_response(text) for text in responses]
    width = max(map(len, encoded))
    rows = torch.arange(len(encoded))
    unknown = torch.zeros(len(encoded), width, dtype=torch.float64)
    return Responses(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        response_ids=torch.tensor([ids + [model.pad_id] * (width - len(ids)) for ids in encoded]),
        mask=torch.tensor([[i < len(ids) for i in range(width)] for ids in encoded]),
        logprobs=unknown,
        entropies=unknown,
        truncated=rows < 0,
        group=rows + 100,
        sample=rows,
    )


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_scores_are_those_of_each_response_alone(temperature: float) -> None:
    model = shared_model()
    batch = scored_by(model, PROMPTS, RESPONSES)
    with torch.no_grad():
        logprobs, entropies = score(model.network, batch, temperature=temperature)
    for row in range(3):
        found = as_list(listed(batch, row, logprobs, entropies))
        assert found == pytest.approx(as_list(alone(model, batch, row, temperature)), abs=CACHED_FORWARD)
        another = as_list(alone(model, batch, row, temperature + 0.2))
        assert found != pytest.approx(another, abs=CACHED_FORWARD)


def test_left_padding_without_its_mask_would_matter() -> None:
    """The negative control of inert padding: the same ids with every position attended to give other logits."""
    model = shared_model()
    batch = scored_by(model, PROMPTS, RESPONSES)
    attended = Responses(
        **{f.name: getattr(batch, f.name) for f in fields(batch)} | {"prompt_mask": batch.prompt_ids >= 0}
    )
    with torch.no_grad():
        right, wrong = (response_logits(model.network, each)[0] for each in (batch, attended))
    assert float((right - wrong)[batch.mask[0]].abs().max()) > CACHED_FORWARD


def test_padding_ids_are_inert() -> None:
    model = shared_model()
    batch = scored_by(model, PROMPTS, RESPONSES)
    other_ids = torch.where(batch.prompt_mask, batch.prompt_ids, 7)
    other_response = torch.where(batch.mask, batch.response_ids, 5)
    changed = {"prompt_ids": other_ids, "response_ids": other_response}
    dirty = Responses(**{f.name: getattr(batch, f.name) for f in fields(batch)} | changed)
    with torch.no_grad():
        clean, found = (score(model.network, each) for each in (batch, dirty))
    for left, right in zip(clean, found, strict=True):
        assert left[batch.mask].tolist() == pytest.approx(right[batch.mask].tolist(), abs=CACHED_FORWARD)
    visible = Responses(
        **{f.name: getattr(batch, f.name) for f in fields(batch)} | {"prompt_ids": torch.full_like(other_ids, 7)}
    )
    with torch.no_grad():
        moved, _ = score(model.network, visible)
    assert moved[batch.mask].tolist() != pytest.approx(clean[0][batch.mask].tolist(), abs=CACHED_FORWARD)


def test_gradients_flow_and_padding_gives_none() -> None:
    gradients = []
    for prompts, responses in ((PROMPTS, RESPONSES), (PROMPTS[:1], RESPONSES[:1])):
        model = fresh_model()
        batch = scored_by(model, prompts, responses)
        logprobs, entropies = score(model.network, batch)
        (logprobs + entropies)[0][batch.mask[0]].sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.network.parameters()]))
    assert gradients[0].tolist() == pytest.approx(gradients[1].tolist(), abs=CACHED_FORWARD)
    assert float(gradients[0].abs().max()) > 0.01


def test_pad_left() -> None:
    ids, mask = pad_left([[5, 6], [7, 8, 9], [4]], pad_id=1)
    assert ids.tolist() == [[1, 5, 6], [7, 8, 9], [1, 1, 4]]
    assert mask.tolist() == [[False, True, True], [True, True, True], [False, False, True]]


def test_identity_is_group_sample_and_position() -> None:
    batch = scored_by(shared_model(), PROMPTS, RESPONSES)
    order = torch.tensor([2, 0])
    found = batch.rows(order).identity
    assert found.prompt[:, 0].tolist() == [102, 100]
    assert found.sample[:, -1].tolist() == [2, 0]
    assert found.position.tolist() == [list(range(batch.mask.shape[1]))] * 2


def test_join_pads_and_keeps_every_token() -> None:
    model = shared_model()
    parts = [scored_by(model, [PROMPTS[i]], [RESPONSES[i]]) for i in range(3)]
    joined = join(parts)
    assert len(joined) == 3
    assert joined.prompt_ids.shape == (3, max(p.prompt_ids.shape[1] for p in parts))
    assert joined.mask.shape == (3, max(p.mask.shape[1] for p in parts))
    for row, part in enumerate(parts):
        for name, mask_name in [("prompt_ids", "prompt_mask"), ("response_ids", "mask"), ("logprobs", "mask")]:
            kept = getattr(joined, name)[row][getattr(joined, mask_name)[row]]
            assert kept.tolist() == getattr(part, name)[0][getattr(part, mask_name)[0]].tolist()
    assert bool(joined.prompt_mask[:, -1].all()) and bool(joined.mask[:, 0].all()), "prompts end where responses begin"
    assert joined.group.tolist() == [100, 100, 100]
    with torch.no_grad():
        together, _ = score(model.network, joined)
        apart = [score(model.network, part)[0][0] for part in parts]
    for row in range(3):
        truth = apart[row][parts[row].mask[0]].tolist()
        assert together[row][joined.mask[row]].tolist() == pytest.approx(truth, abs=CACHED_FORWARD)
        assert together[row][joined.mask[row]].tolist() != pytest.approx(truth[::-1], abs=CACHED_FORWARD)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_a_large_vocabulary_is_scored_without_logits(temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same model both ways: values, gradients, and that no logits are made."""
    outcomes = []
    for smallest in (10**9, 1):
        monkeypatch.setattr("covent.rollout.batch.HEAD_FROM_VOCABULARY", smallest)
        model = fresh_model()
        batch = scored_by(model, PROMPTS, RESPONSES)
        calls: list[int] = []
        handle = model.network.lm_head.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        logprobs, entropies = score(model.network, batch, temperature=temperature)
        (2 * logprobs + entropies)[batch.mask].sum().backward()
        handle.remove()
        gradients = torch.cat([p.grad.flatten() for p in model.network.parameters()])
        outcomes.append((len(calls), [*logprobs[batch.mask].tolist(), *entropies[batch.mask].tolist()], gradients))
    (through, values, gradients), (without, found, found_gradients) = outcomes
    assert (through, without) == (1, 0)
    assert found == pytest.approx(values, abs=CACHED_FORWARD)
    assert torch.allclose(found_gradients, gradients, rtol=0, atol=CACHED_FORWARD)
    assert found != pytest.approx([value + 1e-6 for value in values], abs=CACHED_FORWARD)


def test_which_models_are_scored_without_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    network = fresh_model().network
    assert not scores_without_logits(network), "the default model is small"
    monkeypatch.setattr("covent.rollout.batch.HEAD_FROM_VOCABULARY", network.lm_head.out_features)
    assert scores_without_logits(network)
    monkeypatch.setattr(network.config, "model_type", "gemma2", raising=False)
    assert not scores_without_logits(network), "its logits are capped after the product"
