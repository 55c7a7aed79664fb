"""verl finds covent by itself; and what verl hides of plugins, `covent doctor --verl` says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl is not installed; `make test-verl` sets up its own environment")

from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.utils.config import omega_conf_to_dataclass

from covent.errors import EngineError
from covent.integrations.verl import CoventPolicyLossConfig, compatibility, doctor
from covent.integrations.verl.settings import LOSSES
from tests.contract.source import ROOT

pytestmark = [pytest.mark.verl, pytest.mark.filterwarnings("ignore")]

ASK = """
import verl
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY
print(sorted(name for name in (*POLICY_LOSS_REGISTRY, *TRAINER_REGISTRY) if "covent" in name))
"""


def python(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """This interpreter in a process of its own, in which verl finds its plugins as it would for anyone."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VERL_")}
    paths = [*variables.pop("paths", "").split(os.pathsep), str(ROOT), str(ROOT / "src")]
    return subprocess.run(
        [sys.executable, *words],
        env={**clean, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONWARNINGS": "ignore", **variables},
        capture_output=True,
        text=True,
    )


def test_verl_has_the_losses_and_the_trainer() -> None:
    from covent.integrations.verl.losses import policy_loss
    from covent.integrations.verl.trainer import CoventTrainer

    assert all(POLICY_LOSS_REGISTRY[name] is policy_loss for name in LOSSES)
    assert get_trainer_cls("covent") is CoventTrainer


@pytest.mark.parametrize(("policy", "found"), [("auto", True), ("none", False)])
def test_verl_loads_the_plugin_by_its_entry_point(policy: str, found: bool) -> None:
    asked = python("-c", ASK, VERL_USE_EXTERNAL_PLUGINS=policy)
    expected = "['covent', 'covent', 'covent_clip_cov', 'covent_kl_cov']" if found else "[]"
    assert asked.stdout.strip().splitlines()[-1] == expected, asked.stderr[-2000:]


def broken_package(folder: Path, code: str) -> None:
    """A package that is installed as far as Python can tell, with a plugin for verl."""
    (folder / "broken_plugin.py").write_text(code)
    info = folder / "broken_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[verl.plugins]\nbroken = broken_plugin\n")


def covent_doctor(**variables: str) -> tuple[int, list[str], str]:
    """(exit code, problems, everything it said)."""
    done = python("-m", "covent", "doctor", "--verl", "--json", **variables)
    return done.returncode, json.loads(done.stdout.splitlines()[-1])["problems"], done.stderr


def test_a_sound_environment_is_healthy(tmp_path: Path) -> None:
    broken_package(tmp_path, "")
    code, problems, said = covent_doctor(paths=str(tmp_path))
    assert (code, problems) == (0, []), said
    assert "broken, covent" in said


def test_a_broken_plugin_is_found(tmp_path: Path) -> None:
    broken_package(tmp_path, "import a_module_that_is_not_there")
    code, problems, _ = covent_doctor(paths=str(tmp_path))
    assert code == 1
    assert len(problems) == 1
    assert "'broken'" in problems[0] and "a_module_that_is_not_there" in problems[0]


def test_a_plugin_of_covent_that_fails_is_found_and_says_so(tmp_path: Path) -> None:
    """verl itself imports without a word."""
    (tmp_path / "transfer_queue.py").write_text("raise ImportError('no queue today')")
    silent = python("-c", "import verl", paths=str(tmp_path))
    assert silent.returncode == 0
    assert "plugin for verl was not loaded" in silent.stderr
    code, problems, _ = covent_doctor(paths=str(tmp_path))
    assert code == 1
    assert any("'covent'" in problem and "no queue today" in problem for problem in problems)


def test_a_switch_that_leaves_covent_out_is_found() -> None:
    code, problems, _ = covent_doctor(VERL_USE_EXTERNAL_PLUGINS="none")
    assert code == 1
    assert any("leaves covent out" in problem for problem in problems)


def test_another_loss_of_the_name_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POLICY_LOSS_REGISTRY, "covent", POLICY_LOSS_REGISTRY["vanilla"])
    assert "others of that name" in " ".join(doctor.verl_problems())


def test_a_loss_that_is_not_verls_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._loss_problems(POLICY_LOSS_REGISTRY) == []
    wrong = {**POLICY_LOSS_REGISTRY, "covent_kl_cov": POLICY_LOSS_REGISTRY["vanilla"]}
    assert "verl's own" in " ".join(doctor._loss_problems(wrong))


def test_every_hook_is_as_covent_knows_it() -> None:
    compatibility.require_hooks()


@pytest.mark.parametrize("place", sorted(compatibility.HOOKS))
def test_a_hook_that_has_changed_is_refused(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(compatibility.HOOKS, place, ("something", "else"))
    with pytest.raises(EngineError, match="this verl has changed"):
        compatibility.require_hooks()


def test_a_hook_that_is_gone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(compatibility.HOOKS, "verl.workers.engine_workers:TrainingWorker.steps", ())
    with pytest.raises(EngineError, match="has no"):
        compatibility.require_hooks()


def test_verl_takes_covents_settings_and_refuses_unknown_ones() -> None:
    given = {"_target_": "covent.integrations.verl.CoventPolicyLossConfig", "loss_mode": "covent", "scope": "micro"}
    made = omega_conf_to_dataclass(OmegaConf.create(given | {"control": [{"type": "kl_cov"}]}))
    assert isinstance(made, CoventPolicyLossConfig)
    assert (made.scope, made.kl_cov_ratio) == ("micro", 0.0002)
    with pytest.raises(Exception, match="scoop"):
        omega_conf_to_dataclass(OmegaConf.create(given | {"scoop": "micro"}))
