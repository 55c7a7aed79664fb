"""The warm start learns, is cached by content, and mends its cache."""

import math
import os
from pathlib import Path

import pytest
import torch

from covent.errors import ConfigError, NonFiniteError
from covent.tasks import make_task
from covent.train.config import TrainConfig
from covent.train.model import LanguageModel, load_model, weights_hash
from covent.train.state import RunState
from covent.train.warm_start import warm_start
from tests.support.tiny import tiny_config


def _fresh(config: TrainConfig) -> LanguageModel:
    task = make_task(config.task, config.seed)
    return load_model(config.model, task, seed=config.seed, dtype=torch.float32, device="cpu")


def _start(config: TrainConfig) -> tuple[str, int]:
    """Hash of the warm-started weights and the number of training steps it took."""
    seen: list[int] = []
    model = _fresh(config)
    state = RunState.fresh(model)
    warm_start(state, make_task(config.task, config.seed), config, progress=lambda done, _: seen.append(done))
    assert state.at.start_model is not None
    return state.at.start_model, len(seen) - 1


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_the_second_time_nothing_is_trained(own_cache: Path) -> None:
    config = tiny_config()
    trained, steps = _start(config)
    assert steps == config.warm_start.steps
    assert _start(config) == (trained, 0)


def test_whatever_it_depends_on_makes_another_start(own_cache: Path) -> None:
    hashes = {
        _start(config)[0]
        for config in (
            tiny_config(),
            tiny_config(seed=1),
            tiny_config(warm_start={"lr": 0.009}),
            tiny_config(task={"max_operations": 3}),
            tiny_config(model={"intermediate_size": 64}),
        )
    }
    assert len(hashes) == 5
    # Negative control: what RL does with the start does not change it.
    assert _start(tiny_config(optimizer={"lr": 0.5}))[0] in hashes


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_cache_is_trained_anew(own_cache: Path, damage: str) -> None:
    config = tiny_config()
    trained, _ = _start(config)
    (cached,) = own_cache.rglob("*.safetensors")
    content = bytearray(cached.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    else:
        content[-100] ^= 1
    cached.write_bytes(content)
    assert _start(config) == (trained, config.warm_start.steps)
    assert _start(config) == (trained, 0)


def test_a_model_that_knows_what_its_teachers_know_is_left_alone(own_cache: Path) -> None:
    unchecked, steps = _start(tiny_config())
    checked, checked_steps = _start(tiny_config(warm_start={"min_teacher_frac": 0.01}))
    assert (checked, checked_steps) == (unchecked, steps)


def test_a_model_that_does_not_is_trained_on_and_then_refused(own_cache: Path) -> None:
    seen: list[int] = []
    config = tiny_config(warm_start={"steps": 2, "min_teacher_frac": 0.9, "max_rounds": 3})
    with pytest.raises(ConfigError, match=r"After 3 rounds of 2 steps .*min_teacher_frac asks for 0\.9"):
        warm_start(
            RunState.fresh(_fresh(config)),
            make_task(config.task, config.seed),
            config,
            progress=lambda done, _: seen.append(done),
        )
    assert seen == [1, 2] * 3
    assert list(own_cache.rglob("*.safetensors")) == []


def test_a_loss_that_is_not_finite_ends_it_without_a_warning_of_torch(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> torch.Tensor:
        return torch.tensor(2.0, requires_grad=True) * math.nan

    monkeypatch.setattr("covent.train.warm_start._demonstration_loss", broken)
    with pytest.raises(NonFiniteError, match=r"loss is nan at step 0\. Lower warm_start\.lr"):
        _start(tiny_config())
    with pytest.warns(UserWarning, match="requires_grad"):
        float(broken())


def test_no_cache_leaves_nothing_behind(own_cache: Path) -> None:
    _start(tiny_config(warm_start={"cache": False}))
    assert list(own_cache.iterdir()) == []


def test_no_steps_leave_the_model_as_it_is(own_cache: Path) -> None:
    config = tiny_config(warm_start={"steps": 0})
    assert _start(config)[0] == weights_hash(_fresh(config))
    assert os.listdir(own_cache) == []
