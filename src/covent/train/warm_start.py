"""Supervised training on generated demonstrations, cached by the hash of everything it depends on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from random import Random

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import Tensor
from transformers import PreTrainedModel

from covent import stopping
from covent.core.keys import key
from covent.core.reduce import masked_mean
from covent.errors import ConfigError, NonFiniteError
from covent.rollout.batch import Responses, pad_left, score
from covent.rollout.forward import arithmetic
from covent.tasks import Answer, Problem, Task, TaughtTask, Verdict, problems, taught
from covent.train.config import TrainConfig
from covent.train.model import LanguageModel, max_response_tokens, weights_hash
from covent.train.state import RunState, new_optimizer

_NUM_CHECKED = 512

# Raise when a change of this file or of a task changes the weights that the same settings give.
_RECIPE_VERSION = 1


def warm_start(
    state: RunState,
    task: Task,
    config: TrainConfig,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Train the model in place on demonstrations of train problems, or load the result of the same training.

    Args:
      state: before or in the middle of the warm start; after it, its position says so.
      progress: called with (steps done, steps in all).
    Raises:
      ConfigError: the model does not learn what its teachers know.
      Stopped: a signal asked for it; the state can go on from where it is.
    """
    settings = config.warm_start
    if settings.steps:
        task = taught(task, "warm_start.steps needs them: set warm_start.steps=0 to start from the model as it is.")
        folder = _cache_folder() / _fingerprint(state.initial_weights, state.model.network, task, config)
        begun = state.at.warm_steps > 0
        if begun or not (settings.cache and _load(state.model, folder)):
            _train_rounds(state, task, config, progress)
            if settings.cache:
                # The cache saves time and nothing else.
                with contextlib.suppress(OSError, SafetensorError):
                    _save(state.model, folder)
        progress(settings.steps, settings.steps)
    state.optimizer = None
    state.move(phase="warmed", start_model=weights_hash(state.model))


def _train_rounds(state: RunState, task: TaughtTask, config: TrainConfig, progress: Callable[[int, int], None]) -> None:
    """Train until the model has learnt what its teachers know. Some initialisations need more than one round.

    Raises: ConfigError when it has not after `max_rounds`.
    """
    settings = config.warm_start
    batches = _batches(task, config)
    for _ in range(state.at.warm_steps):
        next(batches)
    while True:
        done = state.at.warm_steps
        if done and done % settings.steps == 0:
            share = _teacher_share(state.model, task, config) if settings.min_teacher_frac else 1.0
            if share >= settings.min_teacher_frac:
                return
            if done >= settings.max_rounds * settings.steps:
                break
        _train_round(state, config, batches, progress)
    raise ConfigError(
        f"After {settings.max_rounds} rounds of {settings.steps} steps the warm-started model solves {share:.2f} of"
        " what the writers of its demonstrations solve; warm_start.min_teacher_frac asks for"
        f" {settings.min_teacher_frac:g}."
        " Raise warm_start.steps, or set warm_start.min_teacher_frac=0 to start from the model as it is."
    )


def _batches(task: TaughtTask, config: TrainConfig) -> Iterator[tuple[list[Problem], list[str]]]:
    """Train problems with a demonstration each, `batch_size` at a time; the same settings give the same batches."""
    stream = problems(task, "train", _corpus_seed(config))
    writers = Random(f"writers/{_corpus_seed(config)}")  # noqa: S311 - not cryptography
    while True:
        batch = list(islice(stream, config.warm_start.batch_size))
        yield batch, [task.demonstration(problem, writers) for problem in batch]


def _teacher_share(model: LanguageModel, task: TaughtTask, config: TrainConfig) -> float:
    """Right answers of the model over right answers of the writers, one response each to the same train problems."""
    chosen = list(islice(problems(task, "train", _corpus_seed(config)), _NUM_CHECKED))
    writers = Random(f"teachers/{_corpus_seed(config)}")  # noqa: S311 - not cryptography
    by_writers = task.judge(
        [Answer(problem, task.demonstration(problem, writers)) for problem in chosen], stopping.poll
    )
    responses = model.sample(
        dict(enumerate(chosen)),
        num_samples=1,
        max_tokens=max_response_tokens(config, task, model),
        key=key(config.seed, "warm start"),
    )
    texts = model.decode_all(responses)
    by_model = task.judge([Answer(problem, text) for problem, text in zip(chosen, texts, strict=True)], stopping.poll)
    num_taught, num_learnt = (sum(each.verdict is Verdict.RIGHT for each in part) for part in (by_writers, by_model))
    return num_learnt / max(num_taught, 1)


def _corpus_seed(config: TrainConfig) -> int:
    seed = getattr(config.task, "corpus_seed", None)
    return config.seed if seed is None else int(seed)


def _train_round(
    state: RunState,
    config: TrainConfig,
    batches: Iterator[tuple[list[Problem], list[str]]],
    progress: Callable[[int, int], None],
) -> None:
    """The rest of a round of `steps` supervised steps. Each round has an optimizer and a schedule of its own."""
    settings, model = config.warm_start, state.model
    first = state.at.warm_steps % settings.steps
    if first == 0:
        state.optimizer = new_optimizer("warm start", model.network, config)
    assert state.optimizer is not None
    for step in range(first, settings.steps):
        stopping.poll()
        for group in state.optimizer.param_groups:
            group["lr"] = settings.lr * _schedule(
                step, settings.lr_warmup_steps, settings.steps, settings.final_lr_frac
            )
        loss = _demonstration_loss(model, *next(batches))
        if not bool(torch.isfinite(loss)):
            raise NonFiniteError(
                f"The warm start's loss is {float(loss.detach())} at step {step}. Lower warm_start.lr."
            )
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.network.parameters(), 1.0)
        state.optimizer.step()
        state.move(warm_steps=state.at.warm_steps + 1)
        progress(step + 1, settings.steps)
    state.optimizer.zero_grad(set_to_none=True)


def _demonstration_loss(model: LanguageModel, batch: list[Problem], texts: list[str]) -> Tensor:
    """Mean negative log-prob of the demonstrations' tokens, nats."""
    device = model.network.device
    prompt_ids, prompt_mask = pad_left([model.encode_problem(problem) for problem in batch], model.pad_id)
    encoded = [model.encode_response(text) for text in texts]
    reversed_ids, reversed_mask = pad_left([ids[::-1] for ids in encoded], model.pad_id)
    rows = torch.arange(len(batch), device=device)
    mask = reversed_mask.flip(1).to(device)
    nothing = torch.zeros(mask.shape, device=device)
    responses = Responses(
        prompt_ids=prompt_ids.to(device),
        prompt_mask=prompt_mask.to(device),
        response_ids=reversed_ids.flip(1).to(device),
        mask=mask,
        logprobs=nothing,
        entropies=nothing,
        truncated=rows < 0,
        group=rows,
        sample=rows,
    )
    logprobs, _ = score(model.network, responses)
    return -masked_mean(logprobs, mask)


def _schedule(step: int, num_warmup: int, num_steps: int, final: float) -> float:
    """Linear warm-up, then cosine from 1 to `final`."""
    if step < num_warmup:
        return (step + 1) / num_warmup
    done = (step - num_warmup) / max(1, num_steps - num_warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))


def _fingerprint(initial_weights: str, network: PreTrainedModel, task: TaughtTask, config: TrainConfig) -> str:
    """Hash of the settings, the start weights, the environment and a sample of the corpus."""
    rng = Random(0)  # noqa: S311 - not cryptography
    drawn = [task.draw(rng) for _ in range(64)]
    parts = {
        "recipe": _RECIPE_VERSION,
        "start": initial_weights,
        "seed": config.seed,
        "task": config.task.model_dump(),
        "warm_start": config.warm_start.model_dump(exclude={"cache"}),
        "corpus": [(problem.prompt, problem.answer, task.demonstration(problem, rng)) for problem in drawn],
        "threads": config.threads,
        "torch": torch.__version__,
        "device": str(network.device),
        "dtype": str(arithmetic(network)).removeprefix("torch."),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "covent" / "warm_starts"


def _save(model: LanguageModel, folder: Path) -> None:
    """The file is named after its content's hash, and is renamed into place, so that half a file is never found."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        written = Path(temporary) / f"{weights_hash(model)}.safetensors"
        save_model(model.network, str(written))
        written.replace(folder / written.name)


def _load(model: LanguageModel, folder: Path) -> bool:
    """Load the cached weights; a file that is damaged is removed, and then there is nothing to load."""
    for path in sorted(folder.glob("*.safetensors")):
        start = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
        try:
            load_model(model.network, str(path), device=str(model.network.device))
            if weights_hash(model) == path.stem:
                return True
        except (SafetensorError, RuntimeError, OSError):
            pass
        model.network.load_state_dict(start)
        path.unlink(missing_ok=True)
    return False
