"""The vLLM engine against the learner's own scores, on a fake with vLLM's calls; `make test-vllm` runs vLLM itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from covent import stopping
from covent.core.keys import key
from covent.errors import ConfigError, MissingExtraError
from covent.rollout.batch import Responses, score
from covent.rollout.vllm_engine import VllmEngine
from covent.train.config import ModelSettings, SamplerSettings
from covent.train.config_file import load_config
from covent.train.model import LanguageModel, load_model
from tests.support.small_model import TASK, fresh_model, shared_model
from tests.support.tiny import tiny_config, tiny_run

FAKE = Path(__file__).parents[1] / "support" / "fake_vllm"
PROMPTS = {4: "Q 1 + 2 A", 7: "Q 3 * 4 - 5 + 6 A", 9: "Q 7 - 7 - 7 A"}
GAP = 1e-4
"""Between float32 forward passes with and without padding, nats."""


@pytest.fixture
def fake_vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(FAKE)
    # The fake does as vLLM: it takes torch's function away.
    monkeypatch.setattr(torch, "set_num_threads", torch.set_num_threads)
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_LOGGING_LEVEL", "VLLM_CPU_OMP_THREADS_BIND"):
        monkeypatch.setenv(name, "")
    import vllm

    yield vllm
    for name in [name for name in sys.modules if name.split(".")[0] == "vllm"]:
        del sys.modules[name]


def engine(**settings: Any) -> VllmEngine:
    return VllmEngine(
        **{
            "weights": lambda network: network.state_dict(),
            "gpu_memory_utilization": 0.3,
            "max_model_len": None,
            "responses_per_forward": 5,
            **settings,
        }
    )


def draw(model: LanguageModel, by: VllmEngine, *, temperature: float = 1.0, max_tokens: int = 9) -> Responses:
    return by.sample(
        model.network,
        [model.encode_prompt(text) for text in PROMPTS.values()],
        groups=list(PROMPTS),
        num_samples=4,
        max_tokens=max_tokens,
        end_id=model.end_id,
        pad_id=model.pad_id,
        key=key(0, "rollout"),
        temperature=temperature,
    )


def gap(model: LanguageModel, drawn: Responses, temperature: float = 1.0) -> float:
    """Largest difference between the engine's log-probs and the learner's, nats."""
    with torch.no_grad():
        own, _ = score(model.network, drawn, temperature=temperature)
    return float((own - drawn.logprobs)[drawn.mask].abs().max())


@pytest.mark.usefixtures("fake_vllm")
class TestResponses:
    @pytest.mark.parametrize("temperature", [1.0, 0.6])
    def test_logprobs_are_the_learners_at_the_sampling_temperature(self, temperature: float) -> None:
        model = shared_model(dtype=torch.float32)
        drawn = draw(model, engine(), temperature=temperature)
        assert gap(model, drawn, temperature) < GAP
        assert gap(model, drawn, temperature + 0.1) > 100 * GAP

    def test_entropies_are_the_learners(self) -> None:
        model = shared_model(dtype=torch.float32)
        drawn = draw(model, engine(), temperature=0.6)
        with torch.no_grad():
            _, entropies = score(model.network, drawn)
        assert torch.allclose(drawn.entropies[drawn.mask], entropies[drawn.mask], atol=GAP)
        assert bool((drawn.entropies[~drawn.mask] == 0).all())

    def test_order_masks_and_ends(self) -> None:
        model = shared_model(dtype=torch.float32)
        drawn = draw(model, engine())
        assert drawn.group.tolist() == [4] * 4 + [7] * 4 + [9] * 4
        assert drawn.sample.tolist() == [0, 1, 2, 3] * 3
        for row in range(len(drawn)):
            tokens = drawn.response_ids[row][drawn.mask[row]].tolist()
            assert (tokens[-1] == model.end_id) != bool(drawn.truncated[row])
            assert model.end_id not in tokens[:-1]
            prompt = drawn.prompt_ids[row][drawn.prompt_mask[row]].tolist()
            assert prompt == model.encode_prompt(PROMPTS[int(drawn.group[row])])
        # Samples of a group differ, and the same call draws the same.
        assert len({tuple(row.tolist()) for row in drawn.response_ids[:4]}) > 1
        assert torch.equal(draw(model, engine()).response_ids, drawn.response_ids)

    def test_temperature_0_takes_the_most_likely_token_and_the_learners_logprob(self) -> None:
        model = shared_model(dtype=torch.float32)
        drawn = draw(model, engine(), temperature=0.0)
        assert torch.equal(drawn.response_ids[0], drawn.response_ids[3])
        assert gap(model, drawn) < GAP


def test_each_answer_is_of_the_weights_as_they_are(fake_vllm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, by = fresh_model(dtype=torch.float32), engine()
    draw(model, by)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.mul_(1.5)
    assert gap(model, draw(model, by)) < GAP
    assert fake_vllm.LLM.started >= 1
    # An engine that is not told samples from what the policy was.
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.mul_(1.5)
    monkeypatch.setattr(fake_vllm.LLM, "collective_rpc", lambda *_, **__: None)
    assert gap(model, draw(model, by)) > 100 * GAP


@pytest.mark.usefixtures("fake_vllm")
def test_lora_is_merged() -> None:
    pytest.importorskip("peft")
    settings = ModelSettings(hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32, lora_rank=2)
    model = load_model(settings, TASK, seed=0, dtype=torch.float32, device="cpu")
    with torch.no_grad():
        for name, weight in model.network.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    by = model.sampled_by(SamplerSettings(engine="vllm"), responses_per_forward=8).engine
    assert by is not None
    assert gap(model, draw(model, by)) < GAP


@pytest.mark.usefixtures("fake_vllm")
def test_the_number_of_threads_stays_ours() -> None:
    before = torch.set_num_threads
    draw(shared_model(dtype=torch.float32), engine())
    assert torch.set_num_threads is before
    assert torch.get_num_threads() == 1


@pytest.mark.usefixtures("fake_vllm")
def test_a_signal_need_not_wait_for_the_last_token(monkeypatch: pytest.MonkeyPatch) -> None:
    class Enough(Exception):
        """Stands for a signal."""

    polls = 0

    def poll() -> None:
        nonlocal polls
        polls += 1
        if polls == 3:
            raise Enough

    monkeypatch.setattr(stopping, "poll", poll)
    with pytest.raises(Enough):
        draw(shared_model(dtype=torch.float32), engine(), max_tokens=100)


def test_without_vllm_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match=r"covent\[vllm\].*sampler\.engine=torch"):
        draw(shared_model(dtype=torch.float32), engine())


@pytest.mark.usefixtures("fake_vllm")
def test_a_model_that_vllm_does_not_take() -> None:
    with pytest.raises(ConfigError, match=r"does not start with this model: Unknown dtype: float64.*sampler\.engine"):
        draw(shared_model(), engine())
    with pytest.raises(ConfigError, match=r"greater than the model's.*sampler\.max_model_len"):
        draw(shared_model(dtype=torch.float32), engine(max_model_len=10**7))


def test_a_temperature_that_vllm_does_not_have(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("rollout: {temperature: 0.005}\n")
    load_config(recipe, ["sampler.engine=torch"])
    with pytest.raises(ConfigError, match=r"vLLM samples at 0\.01 or more"):
        load_config(recipe, ["sampler.engine=vllm"])


@pytest.mark.usefixtures("fake_vllm")
def test_a_run(tmp_path: Path) -> None:
    """From warm start to test; the entropy's reading says whose it is."""
    assert tiny_config().sampler.engine == "torch"
    run = tiny_run(tmp_path / "run", sampler={"engine": "vllm"}, steps=2)
    assert run.status.state == "finished"
    assert {row.entropy.policy for row in run.steps} == {"learner"}
    assert {row.entropy.policy for row in run.evaluations} == {"learner"}
    gaps = [row.sampler_gap for row in run.steps if row.sampler_gap is not None]
    assert gaps
    assert max(gaps) < GAP
