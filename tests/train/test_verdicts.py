"""A response that could not be judged is in no baseline and in no loss; too many of them stop the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from covent.errors import VerifierError
from covent.store.reader import read_run
from covent.store.schema import VerifierFaultRow
from covent.tasks import Answer, ClockTask, GeneratedTask, Judgement, Verdict, make_task
from covent.train.config import TrainConfig
from covent.train.model import LanguageModel, load_model
from covent.train.rollouts import Rollout, RolloutSource
from covent.train.run import train
from tests.support.tiny import tiny_config
from tests.support.tolerances import FLOAT32

ERROR = Judgement.of(Verdict.ERROR, "the verifier is away")


def judge_with(monkeypatch: pytest.MonkeyPatch, *verdicts: Verdict | None) -> None:
    """Replace verdicts in turn, over and over; None keeps the task's own."""

    def judge(task: GeneratedTask, answers: Sequence[Answer], poll: object = None) -> list[Judgement]:
        own = [Judgement.of(task.verdict(answer.problem, answer.text)) for answer in answers]
        turns = [verdicts[i % len(verdicts)] for i in range(len(own))]
        return [
            judgement if verdict is None else Judgement.of(verdict, "the verifier is away")
            for judgement, verdict in zip(own, turns, strict=True)
        ]

    monkeypatch.setattr(ClockTask, "judge", judge)


def rollout(config: TrainConfig) -> tuple[Rollout, LanguageModel]:
    task = make_task(config.task, 0)
    model = load_model(config.model, task, seed=0, dtype=torch.float32, device="cpu")
    source = RolloutSource(model, task, config, task.stream("train", 0), max_tokens=6)
    return source.next(0), model


def config(**rollout: object) -> TrainConfig:
    return tiny_config(rollout={"group_filter": "none", **rollout}, verifier={"max_error_frac": 1.0})


def test_an_error_leaves_the_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Right, wrong, error, wrong: the mean is over three, not over four with a 0 in the error's place."""
    judge_with(monkeypatch, Verdict.RIGHT, Verdict.WRONG, Verdict.ERROR, Verdict.WRONG)
    found, _ = rollout(config())
    assert found.kept is not None
    assert found.group_sizes == (3,) * 8
    assert len(found.kept) == len(found.advantages) == len(found.rewards) == 24
    assert found.kept.sample.tolist() == [0, 1, 3] * 8
    std = (2 / 3 - 1 / 3) ** 0.5  # rewards 1, 0, 0 with n - 1
    expected = torch.tensor([2 / 3, -1 / 3, -1 / 3] * 8) / std
    torch.testing.assert_close(found.advantages, expected, atol=FLOAT32, rtol=FLOAT32)
    assert found.reward.sum == 8 and found.reward.count == 24
    assert found.error.sum == 8 and found.error.count == 32
    assert found.verdicts == {"error": 8, "right": 8, "wrong": 16}


def test_counted_as_wrong_it_would_move_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a time-out is the answer's doing, stays, and the advantages differ."""
    judge_with(monkeypatch, Verdict.RIGHT, Verdict.WRONG, Verdict.TIME_OUT, Verdict.WRONG)
    found, _ = rollout(config())
    assert found.group_sizes == (4,) * 8
    std = (3 / 4 * 1 / 3) ** 0.5  # rewards 1, 0, 0, 0 with n - 1
    expected = torch.tensor([3 / 4, -1 / 4, -1 / 4, -1 / 4] * 8) / std
    torch.testing.assert_close(found.advantages, expected, atol=FLOAT32, rtol=FLOAT32)
    assert found.error.sum == 0


def test_groups_are_mixed_by_what_was_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    judge_with(monkeypatch, Verdict.RIGHT, Verdict.RIGHT, Verdict.ERROR, Verdict.RIGHT)
    found, _ = rollout(config(group_filter="mixed"))
    assert found.kept is None and found.group_sizes == () and found.num_kept_groups == 0
    assert found.num_all_right == found.num_groups == 8 and found.num_all_wrong == 0


def test_a_group_without_any_judgement_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    judge_with(monkeypatch, *[Verdict.ERROR] * 4, Verdict.RIGHT, Verdict.NOT_APPLICABLE, Verdict.WRONG, Verdict.ERROR)
    found, _ = rollout(config())
    assert found.kept is not None
    assert found.group_sizes == (2,) * 4
    assert found.kept.group.tolist() == [1, 1, 3, 3, 5, 5, 7, 7]
    assert found.num_all_right == found.num_all_wrong == 0


def test_a_run_goes_on_without_them_and_keeps_them_for_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge_with(monkeypatch, *[None] * 7, Verdict.ERROR, *[None] * 3, Verdict.CRASH)
    train(tiny_config(verifier={"max_error_frac": 0.5}), tmp_path / "run")
    run = read_run(tmp_path / "run")
    for row in run.steps:
        assert row.error is not None and row.error.sum == row.verdicts["error"] > 0
        assert sum(row.verdicts.values()) == row.error.count == 32
        assert row.reward.count == 32 - row.error.sum
    assert {update.num_responses for update in run.updates if update.num_responses % 4}, "groups of three"
    lines = (tmp_path / "run" / "verifier_faults.jsonl").read_text().splitlines()
    faults = [VerifierFaultRow.model_validate_json(line) for line in lines]
    assert {fault.verdict for fault in faults} == {"error", "crash"}
    assert {fault.phase for fault in faults} == {"train"}
    assert all(fault.reason == "the verifier is away" and fault.prompt.startswith("Q ") for fault in faults)
    for evaluation in run.evaluations:
        assert evaluation.error is not None and evaluation.error.sum > 0
        assert 0 <= evaluation.avg.value <= 1


@pytest.mark.parametrize("settings", [{}, {"max_error_frac": 0.02}])
def test_too_many_stop_the_run_and_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, float]
) -> None:
    judge_with(monkeypatch, *[None] * 9, Verdict.ERROR)
    with pytest.raises(VerifierError, match=r"could not be judged.*the verifier is away.*max_error_frac"):
        train(tiny_config(verifier=settings), tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert run.status.state == "failed" and "the verifier is away" in run.status.message
    assert run.steps == []
