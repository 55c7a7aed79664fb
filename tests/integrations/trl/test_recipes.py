"""The recipes are what TRL and covent take, the presets are the paper's, and the one for a CPU runs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="TRL is not installed; `make test-trl` sets up its own environment")

from covent.controls import ClipCov, KLCov
from covent.integrations.trl import CoventConfig
from covent.integrations.trl.checks import require_settings, updates_per_generation
from covent.store.reader import read_run
from tests.contract.source import ROOT

pytestmark = [pytest.mark.trl, pytest.mark.filterwarnings("ignore")]

RECIPES = ROOT / "recipes" / "trl"
PAPER = {
    "clip_cov_7b": (
        ClipCov(clip_cov_ratio=2e-4, clip_cov_lb=1, clip_cov_ub=5, clip_ratio_low=1, clip_ratio_high=1),
        5e-7,
    ),
    "kl_cov_7b": (KLCov(kl_cov_ratio=2e-3, ppo_kl_coef=1), 5e-7),
    "clip_cov_32b": (ClipCov(clip_cov_ratio=2e-4, clip_cov_lb=1, clip_cov_ub=5), 1e-6),
    "kl_cov_32b": (KLCov(kl_cov_ratio=2e-4, ppo_kl_coef=1), 1e-6),
}
script: dict[str, Any] = runpy.run_path(str(RECIPES / "train.py"))


def test_every_recipe_is_looked_at() -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} == {*PAPER, "cpu"}


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("world", [8, 32])
def test_a_preset_is_the_papers(name: str, world: int) -> None:
    path = RECIPES / f"{name}.yaml"
    # This machine has no GPU to say yes to bf16 and vLLM.
    recipe = script["read"](path, ["trl.bf16=false", "trl.use_cpu=true", "trl.use_vllm=false", "trl.report_to=[]"])
    args = script["arguments"](recipe, world=world)
    covent = CoventConfig.model_validate(recipe["covent"])
    control, lr = PAPER[name]
    assert covent.control == control
    assert covent.scope == "window"
    assert args.learning_rate == lr
    assert updates_per_generation(args, args.num_iterations) == 8
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps * world == 256
    assert (args.num_generations, args.temperature, args.beta, args.weight_decay) == (8, 1.0, 0.0, 0.0)
    require_settings(covent, args, num_iterations=args.num_iterations, is_rloo=False)
    text = path.read_text()
    assert "Where they differ" in text and "Not run by us" in text


def test_a_batch_that_does_not_divide_is_refused() -> None:
    recipe = script["read"](RECIPES / "cpu.yaml", [])
    with pytest.raises(SystemExit, match="multiple"):
        script["arguments"](recipe, world=3)


def test_the_cpu_recipe_runs(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["trl.max_steps=8", f"trl.output_dir={tmp_path}", f"covent.run_folder={folder}", "covent.law_every=1"]
    script["main"]([str(RECIPES / "cpu.yaml"), *words])
    run = read_run(folder)
    assert run.status.state == "finished" and len(run.steps) == 4
    assert re.fullmatch(r"clip_cov", run.updates[0].control.name)
    assert any(row.control.num_selected for row in run.updates)
