"""A whole GRPO run of verl under Ray: FSDP2 on gloo with two ranks, and the run folder that it leaves. Minutes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl is not installed; `make test-verl` sets up its own environment")

from covent.cli.main import main as covent
from covent.store.reader import Run, read_run
from tests.integrations.verl.grpo import log, run

pytestmark = [pytest.mark.verl, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

RANKS, STEPS, UPDATES, SAMPLES = 2, 8, 2, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """KL-Cov, by the recipe for CPUs."""
    folder = tmp_path_factory.mktemp("grpo")
    done = run(folder, ranks=RANKS, steps=STEPS, own={})
    assert done.returncode == 0, (folder / "out.txt").read_text()[-6000:]
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> Run:
    return read_run(folder / "run")


def test_covents_losses_are_in_every_process_of_verl(folder: Path) -> None:
    """The driver, the task runner, two workers, and those of the rollout and of the reward."""
    noted = [path.read_text() for path in (folder / "processes").iterdir()]
    assert len(noted) >= 2 + RANKS + 2
    assert all(note.endswith(": covent covent_clip_cov covent_kl_cov") for note in noted)


def test_the_run_is_whole(found: Run) -> None:
    assert found.header.config["engine"]["ranks"] == RANKS
    assert (found.status.state, found.status.step) == ("finished", STEPS)
    assert [row.step for row in found.steps] == list(range(STEPS))
    assert [row.update for row in found.updates] == list(range(STEPS * UPDATES))
    assert [row.step for row in found.updates] == [update // UPDATES for update in range(STEPS * UPDATES)]
    assert all(row.num_updates == UPDATES and row.num_groups == 16 for row in found.steps)


def test_the_first_update_of_a_rollout_is_on_policy_and_the_second_is_not(found: Run) -> None:
    for row in found.updates:
        ratio = row.abs_log_ratio.value
        assert ratio is not None
        assert (ratio < 1e-5) == (row.update % UPDATES == 0)


def test_kl_cov_chose_what_it_was_asked_for(found: Run) -> None:
    for row in found.updates:
        assert row.control.name == "kl_cov"
        assert row.control.num_selected == int(0.01 * row.num_tokens) > 0
        assert row.num_responses == 8 * SAMPLES


def test_entropy_is_verls_own(found: Run, folder: Path) -> None:
    """verl's `actor/entropy` is the mean over the tokens of the rollout, and the updates have the same tokens."""
    logged = [row for row in log(folder) if "actor/entropy" in row]
    assert len(logged) == STEPS
    for step, row in zip(found.steps, logged, strict=True):
        assert step.entropy_token.value == pytest.approx(row["actor/entropy"], rel=1e-5)
        tokens = sum(update.num_tokens for update in found.updates if update.step == step.step)
        assert tokens == step.entropy_token.count


def test_verls_log_has_covents_names(folder: Path) -> None:
    logged = [row for row in log(folder) if "actor/entropy" in row]
    for row in logged:
        assert {"covent/entropy", "covent/covariance/p99", "covent/polarity", "covent/realised_frac"} <= row.keys()
        assert row["covent/num_selections"] == RANKS * UPDATES
        assert row["covent/realised_frac"] == pytest.approx(0.01, abs=0.005)


def test_the_sampler_is_the_learner(found: Run) -> None:
    """The test's rollout engine has the weights of the policy: another policy would differ by nats."""
    assert all(row.sampler_gap is not None and row.sampler_gap < 1e-4 for row in found.steps)


def test_validations_are_recorded(found: Run, folder: Path) -> None:
    assert [row.step for row in found.evaluations] == list(range(STEPS + 1))
    logged = [row["val-core/sums/acc/mean@2"] for row in log(folder) if "val-core/sums/acc/mean@2" in row]
    assert [row.avg.value for row in found.evaluations] == pytest.approx(logged)
    assert all((row.num_problems, row.num_samples) == (20, 2) for row in found.evaluations)


def test_samples_have_their_tokens(found: Run) -> None:
    assert {row.step for row in found.samples} == {1, 3, 5, 7}
    assert all(row.prompt.endswith("=") and "+" in row.prompt for row in found.samples)
    assert any(any(row.selected or []) for row in found.samples) or len(found.samples) == 16


@pytest.mark.parametrize("command", ["report", "fit", "forecast", "explain"])
def test_covent_reads_the_run(
    found: Run, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert covent([command, str(found.folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])
