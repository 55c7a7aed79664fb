"""NaN and infinity, wherever they come from: never applied, named, counted, kept to look at; three in a row stop."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from covent.errors import NonFiniteError
from covent.rollout import batch as rollout_batch
from covent.rollout import sampler
from covent.store import checkpoint
from covent.store.reader import Run, read_run
from covent.tasks import Verdict
from covent.train import loop, rollouts, step
from covent.train.checkpoints import restore, save_checkpoint
from covent.train.config_file import parse_config
from covent.train.model import LanguageModel, weights_hash
from covent.train.run import train
from covent.train.setup import Setup
from tests.support.figures import figure
from tests.support.interrupted import settings
from tests.support.local_model import model_folder
from tests.tasks.test_data import json_lines, trl_row

BAD = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
STEP = 2
"""The rollout step that goes wrong."""


class Injection:
    """Turns one number bad from the moment that rollout step 2 begins, once or for ever."""

    def __init__(self, bad: float, for_ever: bool) -> None:
        self.bad = bad
        self.left = 10**9 if for_ever else 1
        self.model: LanguageModel | None = None
        self.armed = False

    def due(self) -> bool:
        """Whether to act now; each time counts."""
        if not self.armed or not self.left:
            return False
        self.left -= 1
        return True

    def spoil(self, tensor: torch.Tensor, count: int = 1) -> torch.Tensor:
        """The tensor with its first numbers bad, if it is time."""
        if not self.due():
            return tensor
        mask = torch.zeros_like(tensor, dtype=torch.bool)
        mask.view(-1)[:count] = True
        return torch.where(mask, self.bad, tensor)

    def spoil_row(self, logits: torch.Tensor) -> torch.Tensor:
        """All logits of the first token bad: a single -inf is an entry of the vocabulary that is switched off."""
        return self.spoil(logits, count=logits.shape[-1])


def into_reward(injection: Injection, patch: pytest.MonkeyPatch) -> None:
    given = Verdict.reward.fget
    patch.setattr(Verdict, "reward", property(lambda self: injection.bad if injection.due() else given(self)))


def into_advantage(injection: Injection, patch: pytest.MonkeyPatch) -> None:
    given = rollouts.group_standardised
    patch.setattr(rollouts, "group_standardised", lambda rewards, **named: injection.spoil(given(rewards, **named)))


def into_logits_of_the_sampler(injection: Injection, patch: pytest.MonkeyPatch) -> None:
    given = sampler.bad_logit
    patch.setattr(sampler, "bad_logit", lambda logits, mask: given(injection.spoil_row(logits), mask))


def into_logits(injection: Injection, patch: pytest.MonkeyPatch) -> None:
    given = rollout_batch.response_logits
    for module in (rollout_batch, step):
        patch.setattr(module, "response_logits", lambda *args: injection.spoil_row(given(*args)))


def into_loss(injection: Injection, patch: pytest.MonkeyPatch) -> None:
    given = loop.AGGREGATIONS["token-mean"]
    patch.setitem(loop.AGGREGATIONS, "token-mean", lambda *args: injection.spoil(given(*args)))


def into_gradient(injection: Injection, patch: pytest.MonkeyPatch) -> None:
    given = step.accumulate

    def accumulate(model: LanguageModel, *args: Any, **kwargs: Any) -> Any:
        found = given(model, *args, **kwargs)
        weight = next(model.network.parameters())
        weight.grad = injection.spoil(weight.grad)
        return found

    patch.setattr(step, "accumulate", accumulate)


def into_weight(injection: Injection, patch: pytest.MonkeyPatch) -> None:
    given = step.learner_scores

    def learner_scores(network: Any, *args: Any, **kwargs: Any) -> Any:
        weight = next(network.parameters())
        if injection.armed:
            weight.data = injection.spoil(weight.data)
        return given(network, *args, **kwargs)

    patch.setattr(loop, "learner_scores", learner_scores)


SOURCES: dict[str, tuple[Callable[[Injection, pytest.MonkeyPatch], None], str]] = {
    "reward": (into_reward, r"reward \S+ of group \d+, sample \d+"),
    "advantage": (into_advantage, "advantages"),
    "logits": (into_logits, "learner's logits"),
    "loss": (into_loss, "loss"),
    "gradient": (into_gradient, r"gradient of model\.embed_tokens\.weight"),
    "weight": (into_weight, r"weight model\.embed_tokens\.weight"),
}
CASES = [(source, bad) for source in SOURCES for bad in BAD]
short = {("reward", "nan"), ("logits", "-inf"), ("gradient", "inf"), ("weight", "nan")}
cases = pytest.mark.parametrize(
    ("source", "bad"), [pytest.param(*case, marks=[] if case in short else pytest.mark.slow) for case in CASES]
)


def injected(
    folder: Path, patch: pytest.MonkeyPatch, source: str, bad: str, *, for_ever: bool
) -> tuple[Run, list[tuple[str, str]]]:
    """A run with an injection, and the hashes of the weights before and after each update that was not applied."""
    injection = Injection(BAD[bad], for_ever)
    SOURCES[source][0](injection, patch)
    hashes: list[tuple[str, str]] = []
    sampled, execute = loop.Loop._sampled, loop.execute

    def watched_sampled(self: loop.Loop, number: int, clock: Any) -> Any:
        injection.armed = number >= STEP
        return sampled(self, number, clock)

    def watched_execute(model: LanguageModel, *args: Any, **kwargs: Any) -> Any:
        before = weights_hash(model)
        try:
            return execute(model, *args, **kwargs)
        except NonFiniteError:
            hashes.append((before, weights_hash(model)))
            raise

    patch.setattr(loop.Loop, "_sampled", watched_sampled)
    patch.setattr(loop, "execute", watched_execute)
    try:
        train(parse_config(settings("mini-batches"), source="test"), folder)
    except NonFiniteError as error:
        assert for_ever or source == "weight", error
    return read_run(folder), hashes


@cases
def test_once_is_left_out_named_and_counted(
    source: str, bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, hashes = injected(tmp_path / "run", monkeypatch, source, bad, for_ever=False)
    assert [before for before, _ in hashes] == [after for _, after in hashes]
    assert run.faults and all(fault.step >= STEP for fault in run.faults)
    fault = run.faults[0]
    assert re.fullmatch(SOURCES[source][1], fault.tensor)
    kept = run.folder / str(fault.rollout)
    assert json.loads(kept.read_text())["problems"]
    if source == "weight":
        # A weight stays bad: no step after it can be applied.
        assert run.status.state == "failed" and len(run.faults) == 3
        return
    assert run.status.state == "finished" and len(run.faults) == 1
    assert any("not applied" in note for note in run.notes)
    if fault.update is None:
        skipped = [row.step for row in run.steps if row.num_updates == 0]
        assert skipped == [STEP] or STEP not in [row.step for row in run.steps]
    else:
        assert fault.update not in [row.update for row in run.updates]
        assert next(row for row in run.steps if row.step == STEP).num_not_applied == 1
        assert set(load_file(kept.with_suffix(".safetensors"))) > {"rollout.advantages", "old_logprobs"}


@cases
def test_three_in_a_row_stop_the_run_and_are_never_saved(
    source: str, bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = injected(tmp_path / "run", monkeypatch, source, bad, for_ever=True)
    assert run.status.state == "failed"
    assert "3 faults in a row" in run.status.message and "covent resume" in run.status.message
    assert [fault.in_a_row for fault in run.faults] == [1, 2, 3]
    assert not (run.folder / "model").exists()
    for path in checkpoint.numbered(run.folder / checkpoint.FOLDER):
        monkeypatch.undo()
        _, state = Setup.of(parse_config(settings("mini-batches"), source="test"))
        restore(checkpoint.opened(path), state, parse_config(settings("mini-batches"), source="test"))
        assert all(bool(weight.isfinite().all()) for weight in state.model.network.parameters())
    figure(
        19, f"{{count}} of {len(CASES)} cases: not applied, named, counted, rollouts kept, stopped after 3; 0 silent"
    )


@pytest.mark.parametrize("for_ever", [False, True])
def test_bad_logits_of_the_sampler(for_ever: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "sampler", (into_logits_of_the_sampler, "sampler's logits"))
    run, _ = injected(tmp_path / "run", monkeypatch, "sampler", "nan", for_ever=for_ever)
    assert {fault.tensor for fault in run.faults} == {"sampler's logits"}
    assert (len(run.faults), run.status.state) == ((3, "failed") if for_ever else (1, "finished"))


@pytest.mark.parametrize("bad", [1e308, -1e308, 1e19])
def test_one_reward_too_large_is_left_out_named_and_counted(
    bad: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finite as a number; in float32 the first two are not, and the square of the third."""
    monkeypatch.setitem(BAD, "large", bad)
    run, hashes = injected(tmp_path / "run", monkeypatch, "reward", "large", for_ever=False)
    assert not hashes and run.status.state == "finished"
    (fault,) = run.faults
    assert re.fullmatch(rf"reward {re.escape(str(bad))} of group \d+, sample \d+", fault.tensor)
    assert fault.step == STEP and (run.folder / str(fault.rollout)).exists()
    assert [row.step for row in run.steps if row.reward.value is None] == [STEP]
    assert [(row.step, row.num_not_applied) for row in run.steps if row.num_updates == 0] == [(STEP, 1)]
    assert sum(row.num_not_applied for row in run.steps) == 1
    assert run.gaps == {}, "a fault that is kept is not called missing"
    (run.folder / "faults.jsonl").write_text("")
    assert "0 of the 1 optimizer steps" in read_run(run.folder).gaps["faults"][0]
    assert any("not applied" in note for note in run.notes)


@pytest.mark.parametrize(("size", "is_fine"), [(1e308, False), (1e19, False), (1e15, True)])
def test_a_reward_function_of_large_rewards(size: float, is_fine: bool, tmp_path: Path) -> None:
    """Both signs in a group. What float32 can hold is learnt from; of the rest the third rollout stops the run."""
    function = tmp_path / "rewards.py"
    function.write_text(
        f"def signs(completions, **columns):\n    return [({size}, {-size})[len(text) % 2] for text in completions]\n"
    )
    config = {
        **settings("mini-batches", warm_start={"steps": 0}),
        "task": {"name": "data", "path": str(json_lines(tmp_path / "rows.jsonl", [trl_row(n) for n in range(40)]))},
        "model": {"path": str(model_folder(tmp_path / "model"))},
        "reward": {"function": f"{function}:signs"},
    }
    with contextlib.nullcontext() if is_fine else pytest.raises(NonFiniteError, match="3 faults in a row"):
        train(parse_config(config, source="test"), tmp_path / "run")
    run = read_run(tmp_path / "run")
    if is_fine:
        assert (run.status.state, run.faults) == ("finished", [])
        assert sum(row.num_updates for row in run.steps) > 0
        return
    assert run.status.state == "failed"
    assert [(fault.in_a_row, fault.update) for fault in run.faults] == [(1, None), (2, None), (3, None)]
    assert all(fault.tensor.startswith("reward ") for fault in run.faults)
    assert [(row.reward.value, row.num_updates) for row in run.steps] == [(None, 0)] * 2


def test_without_the_checks_a_bad_gradient_would_be_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: the injection does reach the weights when nobody looks."""
    monkeypatch.setattr(step.math, "isfinite", lambda number: True)
    seen = []
    given = step.torch.nn.utils.clip_grads_with_norm_
    monkeypatch.setattr(
        step.torch.nn.utils,
        "clip_grads_with_norm_",
        lambda weights, *args: (seen.append(any(bool(w.grad.isnan().any()) for w in weights)), given(weights, *args)),
    )
    injection = Injection(math.nan, for_ever=False)
    injection.armed = True
    into_gradient(injection, monkeypatch)
    with pytest.raises(Exception, match="nan"):
        train(parse_config(settings("mini-batches"), source="test"), tmp_path / "run")
    assert seen[0]


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, state = Setup.of(parse_config(settings(), source="test"))
    with torch.no_grad():
        next(state.model.network.parameters()).view(-1)[3] = math.inf
    with pytest.raises(NonFiniteError, match=r"'model\.embed_tokens\.weight' is not finite"):
        save_checkpoint(tmp_path, state, {}, keep=2)
    assert list(tmp_path.iterdir()) == []


DEGENERATE: dict[str, dict[str, Any]] = {
    "all rewards equal": {"rollout": {"group_filter": "none"}},
    "all rewards equal, filtered": {"rollout": {"group_filter": "mixed"}},
    "all truncated": {"rollout": {"max_response_tokens": 1}},
    "groups of two": {"rollout": {"samples_per_prompt": 2, "prompts_per_step": 1}},
    "empty responses": {"rollout": {"group_filter": "none"}},
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_groups_are_counted_and_harmless(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "equal" in case:
        monkeypatch.setattr("covent.tasks.ClockTask.verdict", lambda task, problem, text: Verdict.WRONG)
    if case == "empty responses":
        monkeypatch.setattr(sampler, "_draw", lambda logits, *args: torch.ones(len(logits), dtype=torch.int64))
    config = parse_config(settings("kl_cov", steps=2, **DEGENERATE[case]), source="test")
    train(config, tmp_path / "run")
    run = read_run(tmp_path / "run")
    # The strict reader refuses rows with numbers that are not finite.
    assert (run.status.state, run.faults) == ("finished", [])
    for row in run.steps:
        if "equal" in case:
            assert row.num_all_wrong == row.num_groups == 4
            assert row.num_kept_groups == (0 if "filtered" in case else 4)
            assert (row.num_updates == 0) == ("filtered" in case)
        if case == "all truncated":
            assert row.truncated.sum >= row.truncated.count - row.response_length.count * 0.5
        if case == "empty responses":
            assert row.response_length.value == 1
    figure(21, f"{{count}} of {len(DEGENERATE)} kinds of degenerate groups counted, 0 NaN")
