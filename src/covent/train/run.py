"""Set up a run, run it, and leave a run folder that can be read however it ended."""

from __future__ import annotations

import datetime
import os
import platform
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy
import torch
import transformers

from covent import __version__
from covent.errors import ConfigError, CoventError
from covent.law import Forecaster
from covent.provenance import commit
from covent.rollout.sampler import sample
from covent.store.schema import SCHEMA_VERSION, RejectedRow, RunHeader, StepRow
from covent.store.writer import RunWriter
from covent.tasks import Task, make_task, problems
from covent.train.config import TrainConfig, config_yaml
from covent.train.evaluate import Exam
from covent.train.loop import Loop
from covent.train.model import LanguageModel, load_model, max_response_tokens
from covent.train.probes import Probes
from covent.train.prompts import check_prompts
from covent.train.rollouts import RolloutSource
from covent.train.warm_start import warm_start

Progress = Callable[[str, int, int], None]
"""Called with (phase, done, total); phases are `warm start` and `rl`."""


def train(config: TrainConfig, folder: Path, *, progress: Progress | None = None) -> None:
    """One run from the first weight to the final test, recorded in a new run folder.

    Raises:
      CoventError: bad settings, before the folder exists.
      RunExistsError: the folder is taken.
      KeyboardInterrupt: after the folder's status is `interrupted`; all rows so far are readable.
    """
    start = time.perf_counter()
    tell = progress or (lambda phase, done, total: None)
    device = _device(config)
    _make_deterministic(config.threads, device)
    task = make_task(config.task, config.seed, config.verifier, config.reward)
    dtype = {"float32": torch.float32, "float64": torch.float64}[config.dtype]
    model = load_model(config.model, task, seed=config.seed, dtype=dtype, device=device)
    check_prompts(model, task, max_response_tokens(config, task, model))
    header = _header(config, model, device)
    with RunWriter.create(folder, header, config_yaml(config), num_steps=config.steps) as writer:
        done = 0

        def after_step(row: StepRow) -> None:
            nonlocal done
            done = row.step + 1
            writer.status("running", step=done, seconds=time.perf_counter() - start)
            tell("rl", done, config.steps)

        for row in getattr(task, "rejected", ()):
            writer.append("rejected_rows", RejectedRow(place=row.place, reason=row.reason, row=row.row))
        try:
            start_model = warm_start(model, task, config, progress=lambda done, total: tell("warm start", done, total))
            writer.header(header.model_copy(update={"start_model": start_model}))
            message = _rl(config, task, model, writer, after_step)
        except KeyboardInterrupt:
            writer.status("interrupted", step=done, message="Ctrl-C", seconds=time.perf_counter() - start)
            raise
        except (CoventError, RuntimeError) as error:
            writer.status("failed", step=done, message=str(error), seconds=time.perf_counter() - start)
            raise
        writer.status("finished", step=done, message=message, seconds=time.perf_counter() - start)


def _rl(
    config: TrainConfig,
    task: Task,
    model: LanguageModel,
    writer: RunWriter,
    after_step: Callable[[StepRow], None],
) -> str:
    """Test → all rollout steps → test; the final weights last. Returns why it stopped early, or nothing."""
    max_tokens = max_response_tokens(config, task, model)
    validation, test = _exam(config, task, "validation", max_tokens), _exam(config, task, "test", max_tokens)
    loop = Loop(
        config=config,
        model=model,
        optimizer=torch.optim.Adam(model.network.parameters(), lr=config.optimizer.lr, betas=config.optimizer.betas),
        source=RolloutSource(model, task, config, problems(task, "train", config.seed + 1), max_tokens),
        validation=validation,
        probes=_probes(config, task, model, max_tokens),
        writer=writer,
        forecaster=Forecaster(config.steps, every=config.evaluation.every),
    )

    def take_test(step: int) -> None:
        if test.problems:
            evaluation, verdicts = test.take(model, task, step)
            writer.append("evaluations", evaluation)
            for verdict in verdicts:
                writer.append("verdicts", verdict)

    take_test(0)
    num_done = 0

    def count_step(row: StepRow) -> None:
        nonlocal num_done
        num_done = row.step + 1
        after_step(row)

    message = loop.run(count_step)
    take_test(num_done)
    model.save(writer.folder / "model")
    return message


def _exam(config: TrainConfig, task: Task, split: str, max_tokens: int) -> Exam:
    settings = config.evaluation
    is_test = split == "test"
    wanted = settings.test_problems if is_test else settings.validation_problems
    found = list(islice(problems(task, "test" if is_test else "validation", settings.problem_seed), wanted))
    if len(found) < wanted:
        raise ConfigError(
            f"The task '{config.task.name}' has only {len(found)} {split} problems; evaluation.{split}_problems asks"
            f" for {wanted}."
        )
    return Exam(
        split="test" if is_test else "validation",
        problems=found,
        num_samples=settings.test_samples if is_test else settings.validation_samples,
        greedy=is_test,
        max_tokens=max_tokens,
        responses_per_forward=config.rollout.responses_per_forward,
        seed=config.seed,
        max_error_frac=config.verifier.max_error_frac,
    )


def _probes(config: TrainConfig, task: Task, model: LanguageModel, max_tokens: int) -> Probes | None:
    """One response of the start policy to each of the first validation problems."""
    if config.probe_prompts == 0:
        return None
    chosen = list(islice(problems(task, "validation", config.evaluation.problem_seed), config.probe_prompts))
    states = sample(
        model.network,
        [model.encode_problem(problem) for problem in chosen],
        groups=list(range(len(chosen))),
        num_samples=1,
        max_tokens=max_tokens,
        end_id=model.end_id,
        pad_id=model.pad_id,
        key=0,
    )
    return Probes(model, states)


def _device(config: TrainConfig) -> str:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda': torch finds no CUDA GPU here. Use device=cpu, or device=auto.")
    if config.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return config.device


def _make_deterministic(threads: int, device: str) -> None:
    torch.set_num_threads(threads)
    # cuBLAS is reproducible only with a fixed workspace, and reads this when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # On a GPU a few operations, such as cumsum, have no deterministic version: torch warns and goes on.
    torch.use_deterministic_algorithms(True, warn_only=device == "cuda")
    # Progress is ours to show.
    transformers.utils.logging.disable_progress_bar()


def _header(config: TrainConfig, model: LanguageModel, device: str) -> RunHeader:
    return RunHeader(
        schema_version=SCHEMA_VERSION,
        name=config.label,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        config=config.model_dump(mode="json"),
        seed=config.seed,
        threads=config.threads,
        versions={
            "covent": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "numpy": numpy.__version__,
            "platform": platform.platform(),
        },
        commit=commit(),
        hardware=torch.cuda.get_device_name() if device == "cuda" else f"CPU {platform.machine()}",
        num_parameters=model.num_parameters,
        start_model=None,
    )
