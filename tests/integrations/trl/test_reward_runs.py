"""TRL's runs on reward functions in a child: as good as their own, and what one fails at teaches nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="TRL is not installed; `make test-trl` sets up its own environment")

import torch
from trl import GRPOTrainer

from covent.errors import VerifierError
from covent.integrations.trl import CoventGRPOTrainer, CoventRLOOTrainer, KillableReward
from covent.store.reader import read_run
from tests.integrations.trl import rewards_to_load
from tests.support.tiny_trl import starts_low, trainer

pytestmark = [pytest.mark.trl, pytest.mark.filterwarnings("ignore")]


def weights(made: Any) -> torch.Tensor:
    made.train()
    return torch.cat([weight.detach().flatten() for weight in made.model.parameters()])


def test_a_good_function_gives_the_same_run(tmp_path: Path) -> None:
    plain = weights(trainer(CoventGRPOTrainer, tmp_path, reward=rewards_to_load.low_digits))
    reward = KillableReward(rewards_to_load.low_digits)
    assert torch.equal(weights(trainer(CoventGRPOTrainer, tmp_path, reward=reward)), plain)
    other = weights(trainer(CoventGRPOTrainer, tmp_path, reward=starts_low))
    assert not torch.equal(other, plain)


class _Kept:
    """The completions and advantages of each generation."""

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        output = super()._generate_and_score_completions(inputs)
        texts = self.processing_class.batch_decode(output["completion_ids"], skip_special_tokens=True)
        self.kept = [*getattr(self, "kept", []), (texts, output["advantages"].flatten())]
        return output


class KeptGRPO(_Kept, CoventGRPOTrainer):
    """Of GRPO."""


class KeptRLOO(_Kept, CoventRLOOTrainer):
    """Of RLOO."""


@pytest.mark.parametrize("kind", [KeptGRPO, KeptRLOO])
@pytest.mark.parametrize("function", [rewards_to_load.raises_at_seven, rewards_to_load.hangs_at_seven])
def test_what_it_fails_at_leaves_its_group(tmp_path: Path, kind: type, function: Any) -> None:
    """Beside a second function, which has a reward for every completion."""
    reward = KillableReward(function, timeout_s=1.0, max_error_frac=1.0)
    covent = {"run_folder": tmp_path / "run", "accuracy": "low_digits"}
    both = [reward, rewards_to_load.low_digits]
    made = trainer(kind, tmp_path, reward=both, covent=covent, max_steps=3)
    made.train()
    num_failed = 0
    for texts, advantages in made.kept:
        failed = torch.tensor([text.startswith("7") for text in texts])
        num_failed += int(failed.sum())
        rewards = 2 * torch.tensor(rewards_to_load.low_digits(texts))
        assert bool((advantages[failed] == 0).all())
        for group in range(0, len(texts), 4):
            judged = ~failed[group : group + 4]
            own = rewards[group : group + 4][judged]
            found = advantages[group : group + 4][judged]
            if kind is KeptGRPO and len(own) > 1 and float(own.std()) > 0:
                expected = (own - own.mean()) / (own.std() + 1e-4)
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert num_failed > 0
    run = read_run(tmp_path / "run")
    assert run.status.state == "finished"
    assert len(run.verifier_faults) == num_failed
    assert all(row.response.startswith("7") and row.verdict == "error" for row in run.verifier_faults)
    said = [row["covent/unjudged_frac"] for row in made.state.log_history if "covent/unjudged_frac" in row]
    assert sum(said) * 16 == pytest.approx(num_failed)


def test_without_it_the_run_ends(tmp_path: Path) -> None:
    made = trainer(GRPOTrainer, tmp_path, reward=rewards_to_load.raises_at_seven, max_steps=3)
    with pytest.raises(ValueError, match="seven"):
        made.train()


def test_a_broken_function_ends_it_with_its_name(tmp_path: Path) -> None:
    reward = KillableReward(rewards_to_load.raises_at_seven)
    made = trainer(CoventGRPOTrainer, tmp_path, reward=reward, covent={"run_folder": tmp_path / "run"}, max_steps=6)
    with pytest.raises(VerifierError, match="raises_at_seven"):
        made.train()
    assert read_run(tmp_path / "run").status.state == "failed"
