"""What follows from the settings alone: task, model, exams, header, and the conditions of a run."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy
import torch
import transformers

from covent import __version__
from covent.errors import ConfigError
from covent.provenance import commit
from covent.store.schema import SCHEMA_VERSION, RunHeader
from covent.tasks import Problem, Split, Task, TaughtTask, make_task, problems
from covent.trackers.watch import check
from covent.train.config import TrainConfig
from covent.train.evaluate import Exam
from covent.train.fingerprints import code_hash, config_hash, tokenizer_hash
from covent.train.model import LanguageModel, load_model, max_response_tokens
from covent.train.prompts import check_prompts, data_task
from covent.train.state import RunState

_NUM_FINGERPRINTED = 512


@dataclass(frozen=True)
class Setup:
    """Everything a run needs that is not its state."""

    config: TrainConfig
    task: Task
    device: str
    max_tokens: int
    validation: Exam
    test: Exam
    probe_problems: Sequence[Problem]
    """Whose responses are the probe states."""
    initial_weights: str

    @classmethod
    def of(cls, config: TrainConfig) -> tuple[Setup, RunState]:
        """Task, model and exams, and the state of a run that has not begun.

        Raises: CoventError for settings that cannot be met.
        """
        check(config.report_to)
        device = device_of(config.device)
        make_deterministic(config.threads, device)
        task = make_task(config.task, config.seed, config.verifier, config.reward)
        dtype = arithmetic_of(config.dtype, device, downloaded=config.model.path is not None)
        model = load_model(config.model, task, seed=config.seed, dtype=dtype, device=device)
        model = model.sampled_by(config.sampler, responses_per_forward=config.optimizer.responses_per_micro_batch)
        max_tokens = max_response_tokens(config, task, model)
        check_prompts(model, task, max_tokens, setting="rollout.max_response_tokens")
        state = RunState.fresh(model)
        setup = cls(
            config,
            task,
            device,
            max_tokens,
            _exam(config, task, "validation", max_tokens),
            _exam(config, task, "test", max_tokens),
            _first(config, task, "validation", config.probe_prompts, "probe_prompts"),
            state.initial_weights,
        )
        return setup, state

    def header(self, model: LanguageModel) -> RunHeader:
        """What run.json says."""
        return RunHeader(
            schema_version=SCHEMA_VERSION,
            name=self.config.label,
            created=now(),
            config=self.config.model_dump(mode="json"),
            seed=self.config.seed,
            threads=self.config.threads,
            versions={**_versions(), "platform": platform.platform()},
            commit=commit(),
            hardware=_hardware(self.device),
            num_parameters=model.num_parameters,
            start_model=None,
        )

    def conditions(self) -> dict[str, str]:
        """All that must be the same for a run to go on bit for bit, by name.

        Settings by their dotted names; `data`, the problems; `weights`, the model before its warm start; of a model
        folder `tokenizer` and `model_config`; `reward_code`, of a reward function; `hardware`; `versions.torch` and so
        on.
        """
        return {
            **settings_by_name(self.config.model_dump(mode="json")),
            "data": self._data_fingerprint(),
            "weights": self.initial_weights,
            **self._files(),
            "hardware": _hardware(self.device),
            **{f"versions.{name}": version for name, version in _versions().items()},
        }

    def _files(self) -> dict[str, str]:
        """Hashes of files that a run reads beside data and weights."""
        found = {}
        if path := self.config.model.path:
            found |= {"tokenizer": tokenizer_hash(Path(path)), "model_config": config_hash(Path(path))}
        if function := self.config.reward.function:
            found["reward_code"] = code_hash(Path(function.rpartition(":")[0]))
        return found

    def _data_fingerprint(self) -> str:
        """Hash of the held-out problems, of the first train problems, of demonstrations to some of them, and of all
        rows of a data set."""
        task = self.task
        first = list(islice(problems(task, "train", self.config.seed + 1), _NUM_FINGERPRINTED))
        rng = Random(0)  # noqa: S311 - not cryptography
        shown = [task.demonstration(problem, rng) for problem in first[:16]] if isinstance(task, TaughtTask) else []
        drawn = [(each.prompt, each.answer) for each in [*first, *self.validation.problems, *self.test.problems]]
        facts = [drawn, shown]
        if data := data_task(task):
            facts.append([(data.fingerprint, "")])
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def settings_by_name(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as one level of dotted names with their values as JSON.

    Example:
      >>> settings_by_name({"steps": 3, "optimizer": {"lr": 0.1}})
      {'steps': '3', 'optimizer.lr': '0.1'}
    """
    found: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= settings_by_name(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = json.dumps(value)
    return found


def now() -> str:
    """UTC time, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _first(config: TrainConfig, task: Task, split: Split, wanted: int, setting: str) -> list[Problem]:
    """The first held-out problems. Raises: ConfigError when there are not so many."""
    found = list(islice(problems(task, split, config.evaluation.problem_seed), wanted))
    if len(found) < wanted:
        raise ConfigError(
            f"The task '{config.task.name}' has only {len(found)} {split} problems; {setting} asks for {wanted}."
            f" Set {setting} to {len(found)} or less."
        )
    return found


def _exam(config: TrainConfig, task: Task, split: Literal["validation", "test"], max_tokens: int) -> Exam:
    settings = config.evaluation
    is_test = split == "test"
    wanted = settings.test_problems if is_test else settings.validation_problems
    return Exam(
        split=split,
        problems=_first(config, task, split, wanted, f"evaluation.{split}_problems"),
        num_samples=settings.test_samples if is_test else settings.validation_samples,
        greedy=is_test,
        max_tokens=max_tokens,
        responses_per_forward=config.rollout.responses_per_forward,
        seed=config.seed,
        max_error_frac=config.verifier.max_error_frac,
    )


def device_of(asked: str) -> str:
    """Where to compute. Raises: ConfigError: a GPU was asked for, and there is none."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda': torch finds no CUDA GPU here. Use device=cpu, or device=auto.")
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return asked


def arithmetic_of(asked: str, device: str, *, downloaded: bool) -> torch.dtype:
    """The dtype of matrix products. A model that was made here is so small that bfloat16 would win nothing."""
    if asked == "auto":
        asked = "bfloat16" if downloaded and device == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    found: torch.dtype = getattr(torch, asked)
    return found


def make_deterministic(threads: int, device: str) -> None:
    """The same settings give the same numbers, on one device and at one number of CPU threads."""
    torch.set_num_threads(threads)
    # cuBLAS is reproducible only with a fixed workspace, and reads this when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # On a GPU a few operations, such as cumsum, have no deterministic version: torch warns and goes on.
    torch.use_deterministic_algorithms(True, warn_only=device == "cuda")
    # Progress is ours to show.
    transformers.utils.logging.disable_progress_bar()


def _hardware(device: str) -> str:
    """What the numbers are computed on; a CPU's vector instructions change their rounding."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"CPU {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _versions() -> dict[str, str]:
    return {
        "covent": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": numpy.__version__,
    }
