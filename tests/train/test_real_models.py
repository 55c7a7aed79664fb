"""LoRA, gradient checkpointing, token budgets and bfloat16 against the same computation without them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from covent import controls
from covent.controls import ClipCov, KLCov
from covent.core.plan import Measured, Plan
from covent.errors import ConfigError
from covent.rollout import forward
from covent.rollout.batch import Responses, score, state_logits
from covent.rollout.sampler import sample
from covent.train import adapters, setup
from covent.train.config import ModelSettings
from covent.train.forward_passes import TokenBudget, forward_passes
from covent.train.model import LanguageModel, load_model, trained
from covent.train.probes import PROBE_BYTES, chosen_states
from covent.train.step import OptimizerBatch, accumulate, learner_scores, measure
from tests.support.local_model import model_folder
from tests.support.small_model import TASK
from tests.support.tolerances import BFLOAT16_GAP, CACHED_FORWARD, FLOAT32

PROMPTS = ["What is 7 + 7?", "1", "user 0 1 2 3 4 5 6 7 8 9 system", "What is 3?"]
BUDGETS = [1, 30, 64, 200, 10**6]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model"))


def loaded(folder: Path, dtype: torch.dtype = torch.float64, **settings: Any) -> LanguageModel:
    settings = {"path": str(folder), **settings}
    return load_model(ModelSettings(**settings), TASK, seed=0, dtype=dtype, device="cpu")


def drawn(model: LanguageModel, *, num_samples: int = 6, temperature: float = 1.0) -> Responses:
    """Responses of very different lengths."""
    found = sample(
        model.network,
        [model.encode_prompt(prompt) for prompt in PROMPTS],
        groups=[0, 1, 2, 3],
        num_samples=num_samples,
        max_tokens=24,
        end_id=model.end_id,
        pad_id=model.pad_id,
        key=5,
        temperature=temperature,
    )
    # A model with random weights hardly ever ends; real responses do.
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 25, (len(found),), generator=generator)
    mask = found.mask & (torch.arange(found.mask.shape[1]) < lengths[:, None])
    columns = {name: getattr(found, name) for name in found.__dataclass_fields__}
    return Responses(**{**columns, "mask": mask})


def optimizer_batch(model: LanguageModel, responses: Responses, drift: float = 0.02) -> OptimizerBatch:
    """A batch whose policy has moved a little since it was sampled."""
    generator = torch.Generator().manual_seed(1)
    old, _ = learner_scores(model.network, responses, temperature=1.0, at_once=1000)
    advantages = torch.randn(len(responses), generator=generator, dtype=old.dtype)
    old = old + drift * torch.randn(old.shape, generator=generator, dtype=old.dtype) * responses.mask
    return OptimizerBatch(responses, advantages, old, 1.0, advantages > 0)


def planned(model: LanguageModel, batch: OptimizerBatch, control: Any, at_once: Any) -> tuple[Measured, Plan]:
    measured = measure(model, batch, temperature=1.0, at_once=at_once)
    return measured, controls.plan(measured, (control,), 7)


def gradient(model: LanguageModel) -> Tensor:
    return torch.cat([weight.grad.flatten() for weight in trained(model.network).values() if weight.grad is not None])


def test_every_response_is_in_one_pass_and_no_pass_is_over_budget(folder: Path) -> None:
    model = loaded(folder)
    responses = drawn(model)
    for tokens in BUDGETS:
        for most in (1, 5, 100):
            passes = forward_passes(responses, TokenBudget(tokens, most))
            assert sorted(row for rows in passes for row in rows.tolist()) == list(range(len(responses)))
            for rows in passes:
                part = responses.rows(rows).trimmed()
                area = len(part) * (part.prompt_ids.shape[1] + part.response_ids.shape[1])
                assert len(part) <= most and (area <= tokens or len(part) == 1)
                assert torch.equal(part.mask.sum(dim=1), responses.mask[rows].sum(dim=1))
                assert torch.equal(part.prompt_mask.sum(dim=1), responses.prompt_mask[rows].sum(dim=1))


def test_a_budget_saves_padding(folder: Path) -> None:
    """Of as many tokens as four responses a pass take, far fewer passes; the negative control is no sorting."""
    responses = drawn(loaded(folder), num_samples=16)
    area = responses.prompt_ids.shape[1] + responses.response_ids.shape[1]
    assert len(forward_passes(responses, TokenBudget(4 * area, 100))) < 0.8 * len(forward_passes(responses, 4))


@pytest.mark.parametrize("control", [ClipCov(clip_cov_ratio=0.1, clip_cov_lb=0.01), KLCov(kl_cov_ratio=0.1)])
def test_any_budget_chooses_the_same_tokens_and_gives_the_same_gradient(folder: Path, control: Any) -> None:
    outcomes = []
    for at_once in (1000, 5, *(TokenBudget(tokens, 1000) for tokens in BUDGETS)):
        model = loaded(folder)
        batch = optimizer_batch(model, drawn(model))
        measured, plan = planned(model, batch, control, at_once)
        accumulate(model, batch, measured, plan, temperature=1.0, at_once=at_once)
        outcomes.append((plan.chosen, measured.logprobs, gradient(model)))
    chosen, logprobs, truth = outcomes[0]
    assert 0 < int(chosen.sum()) < int(drawn(loaded(folder)).mask.sum())
    for found, scores, grad in outcomes[1:]:
        assert torch.equal(found, chosen)
        assert torch.allclose(scores, logprobs, rtol=0, atol=CACHED_FORWARD)
        assert torch.allclose(grad, truth, rtol=0, atol=CACHED_FORWARD)


def test_a_budget_that_forgot_the_order_would_be_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: results of sorted passes that are not brought back into order."""
    model = loaded(folder)
    responses = drawn(model)
    truth, _ = learner_scores(model.network, responses, temperature=1.0, at_once=1000)
    monkeypatch.setattr("covent.train.step.in_order", lambda parts, passes: torch.cat(parts))
    wrong, _ = learner_scores(model.network, responses, temperature=1.0, at_once=TokenBudget(64, 100))
    assert not torch.allclose(wrong, truth, rtol=0, atol=CACHED_FORWARD)


class Kept:
    """Bytes that a forward pass keeps for its backward pass, weights apart."""

    def __init__(self, model: LanguageModel) -> None:
        self.num_bytes = 0
        self._weights = {weight.data_ptr() for weight in model.network.parameters()}

    def pack(self, tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in self._weights:
            self.num_bytes += tensor.nbytes
        return tensor


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_recomputed_blocks_give_the_same_gradient_from_less_memory(folder: Path, lora_rank: int) -> None:
    if lora_rank:
        pytest.importorskip("peft", reason="needs the lora extra")
    found = []
    for recompute in (False, True):
        model = loaded(folder, gradient_checkpointing=recompute, lora_rank=lora_rank)
        # At first B = 0, and A has no gradient.
        moved_lora(model)
        ids = torch.tensor([model.encode_prompt(PROMPTS[2])] * 3)
        kept = Kept(model)
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
            hidden = forward.last_hidden(model.network, input_ids=ids, use_cache=False)
        hidden.square().cumsum(dim=1).sum().backward()
        assert not any(module.training for module in model.network.modules())
        found.append((kept.num_bytes, gradient(model)))
    (all_bytes, truth), (few_bytes, grad) = found
    assert torch.equal(grad, truth)
    assert float(grad.abs().max()) > 0
    assert few_bytes < 0.6 * all_bytes


def moved_lora(model: LanguageModel) -> None:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, weight in trained(model.network).items():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)


def test_lora_is_the_sum_of_two_products(folder: Path, tmp_path: Path) -> None:
    """The model with LoRA, the merged one that it saves, and one to whose weights a loop adds the products agree."""
    pytest.importorskip("peft", reason="needs the lora extra")
    model, plain = loaded(folder, lora_rank=2, lora_alpha=6), loaded(folder)
    responses = drawn(plain)
    with torch.no_grad():
        at_first, _ = score(model.network, responses)
        before, _ = score(plain.network, responses)
    assert torch.equal(at_first, before), "B is 0 at first"
    moved_lora(model)
    matrices = {name: weight.detach() for name, weight in trained(model.network).items()}
    assert {name.rpartition(".lora_")[0].rpartition(".")[2] for name in matrices} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }
    with torch.no_grad():
        for name, weight in plain.network.named_parameters():
            layer = name.removesuffix(".weight")
            if f"{layer}.lora_A.default.weight" in matrices:
                a, b = (matrices[f"{layer}.lora_{which}.default.weight"] for which in "AB")
                weight += 3.0 * b @ a
    model.save(tmp_path / "model")
    merged = loaded(tmp_path / "model")
    with torch.no_grad():
        found, truth, saved = (score(each.network, responses)[0] for each in (model, plain, merged))
    assert torch.allclose(found, truth, rtol=0, atol=CACHED_FORWARD)
    assert torch.allclose(saved, truth, rtol=0, atol=CACHED_FORWARD)
    assert not torch.allclose(truth, before, rtol=0, atol=1000 * CACHED_FORWARD)


# peft 0.19 asks transformers 5.23 by a name that is about to go.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_peft_reads_the_adapter(folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="needs the lora extra")
    model, plain = loaded(folder, lora_rank=2), loaded(folder)
    moved_lora(model)
    model.save(tmp_path / "model")
    responses = drawn(plain)
    with torch.no_grad():
        truth, _ = score(model.network, responses)
        before, _ = score(plain.network, responses)
        read = peft.PeftModel.from_pretrained(plain.network, tmp_path / "model" / "adapter", is_trainable=False)
        found, _ = score(read.get_base_model(), responses)
    assert torch.allclose(found, truth, rtol=0, atol=CACHED_FORWARD)
    assert not torch.allclose(before, truth, rtol=0, atol=1000 * CACHED_FORWARD)


class Backwards(set[str]):
    """A set in another order, as another process with other hashes has it."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(super().__iter__(), reverse=True))


def test_the_adapter_of_identical_runs_is_byte_identical(folder: Path, tmp_path: Path) -> None:
    """The negative control: peft's own file depends on the order of a set."""
    pytest.importorskip("peft", reason="needs the lora extra")
    model = loaded(folder, lora_rank=2)
    settings = model.network.peft_config["default"]
    modules = settings.target_modules
    assert len(modules) > 1
    written: dict[str, set[bytes]] = {"covent": set(), "peft": set()}
    for number, ordered in enumerate((sorted(modules), Backwards(modules))):
        settings.target_modules = ordered
        settings.save_pretrained(str(tmp_path / f"peft-{number}"))
        adapters.save_adapter(model.network, tmp_path / f"covent-{number}")
        for kind, found in written.items():
            found.add((tmp_path / f"{kind}-{number}" / "adapter_config.json").read_bytes())
        assert settings.target_modules is ordered, "the settings in use are left as they are"
    assert [len(written[kind]) for kind in ("covent", "peft")] == [1, 2]
    assert json.loads(written["covent"].pop())["target_modules"] == sorted(modules)


@pytest.mark.parametrize("modules", ["no_such_layer", ["embed_tokens"]])
def test_what_cannot_have_lora_is_named(folder: Path, modules: Any) -> None:
    pytest.importorskip("peft", reason="needs the lora extra")
    with pytest.raises(ConfigError, match=r"model\.target_modules = .*"):
        loaded(folder, lora_rank=2, target_modules=modules)


@pytest.mark.parametrize("smallest", [10**9, 1])
@pytest.mark.parametrize("lora_rank", [0, 2])
def test_in_bfloat16_sampler_and_learner_agree(
    folder: Path, smallest: int, lora_rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products in bfloat16, logits in float32, with logits and by the LM head's tiles; weights keep their dtype."""
    if lora_rank:
        pytest.importorskip("peft", reason="needs the lora extra")
    monkeypatch.setattr("covent.rollout.batch.HEAD_FROM_VOCABULARY", smallest)
    model = loaded(folder, dtype=torch.bfloat16, lora_rank=lora_rank)
    assert {weight.dtype for weight in trained(model.network).values()} == {torch.float32}
    frozen = {weight.dtype for weight in model.network.parameters() if not weight.requires_grad}
    assert frozen == ({torch.bfloat16} if lora_rank else set())
    responses = drawn(model)
    learner, _ = learner_scores(model.network, responses, temperature=1.0, at_once=3)
    assert learner.dtype == torch.float32
    gap = (learner - responses.logprobs)[responses.mask].abs().max()
    exact, _ = learner_scores(loaded(folder).network, responses, temperature=1.0, at_once=3)
    assert float(gap) < BFLOAT16_GAP
    rounding = float((learner - exact)[responses.mask].abs().max())
    assert FLOAT32 < rounding < BFLOAT16_GAP, "the products are rounded, and not by much"
    score(model.network, responses)[0][responses.mask].sum().backward()
    assert gradient(model).dtype == torch.float32


def test_logits_rounded_to_bfloat16_would_be_seen(folder: Path) -> None:
    """The negative control: the model's own head under autocast."""
    model = loaded(folder, dtype=torch.bfloat16)
    ids = torch.tensor([model.encode_prompt(PROMPTS[2])])
    with torch.no_grad():
        ours = forward.logits_of(model.network, keep=4, input_ids=ids)
        with torch.autocast("cpu", torch.bfloat16):
            own = model.network(input_ids=ids, logits_to_keep=4).logits
    assert ours.dtype == torch.float32 and own.dtype == torch.bfloat16
    assert not torch.equal(ours, ours.bfloat16().float())


def test_the_arithmetic_of_a_run_follows_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpu in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        assert setup.device_of("auto") == ("cuda" if gpu else "cpu")
        device = setup.device_of("auto")
        assert setup.arithmetic_of("auto", device, downloaded=True) == (torch.bfloat16 if gpu else torch.float32)
        assert setup.arithmetic_of("auto", device, downloaded=False) == torch.float32
        assert setup.arithmetic_of("float64", device, downloaded=True) == torch.float64
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert setup.arithmetic_of("auto", "cuda", downloaded=True) == torch.float32
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="finds no CUDA GPU"):
        setup.device_of("cuda")


def test_few_probe_states_are_kept_of_a_large_vocabulary(folder: Path) -> None:
    responses = drawn(loaded(folder))
    num_tokens = int(responses.mask.sum())
    for vocabulary, expected in ((19, num_tokens), (PROBE_BYTES // 8 // 10, 10), (2 * PROBE_BYTES, 1)):
        found = chosen_states(responses, vocabulary)
        assert int(found.sum()) == expected == int((found & responses.mask).sum())
        assert torch.equal(found, chosen_states(responses, vocabulary))
    ten = chosen_states(responses, PROBE_BYTES // 8 // 10)
    assert int(ten.any(dim=1).sum()) == 10, "no two of ten states belong to one of 24 responses"


def test_some_states_alone_have_logits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(folder)
    responses = drawn(model)
    chosen = responses.mask & (torch.arange(responses.mask.shape[1]) % 5 == 0)
    with torch.no_grad():
        truth = state_logits(model.network, responses, chosen)
        monkeypatch.setattr("covent.rollout.batch.HEAD_FROM_VOCABULARY", 1)
        rows: list[int] = []

        def counted(network: Any, hidden: Tensor, head: Any = forward.head_logits) -> Tensor:
            rows.append(len(hidden))
            return head(network, hidden)

        monkeypatch.setattr("covent.rollout.batch.head_logits", counted)
        found = state_logits(model.network, responses, chosen)
    assert rows == [int(chosen.sum())]
    assert torch.allclose(found, truth, rtol=0, atol=CACHED_FORWARD)
    assert not torch.allclose(found, truth.roll(1, 0), rtol=0, atol=CACHED_FORWARD)
