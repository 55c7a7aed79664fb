"""What a data set is looked at for before the first step: prompts that do not fit, rows that were left out."""

from __future__ import annotations

from collections.abc import Callable

from covent.errors import DataError
from covent.store.schema import RejectedRow
from covent.store.writer import RunWriter
from covent.tasks import DataTask, RewardedTask, Task
from covent.train.model import LanguageModel

_SHOWN = 5


def data_task(task: Task) -> DataTask | None:
    """The task of a data set, whoever judges its responses; None for one that generates its problems."""
    own = task.task if isinstance(task, RewardedTask) else task
    return own if isinstance(own, DataTask) else None


def keep_rejected_rows(task: Task, writer: RunWriter, warn: Callable[[str], None]) -> None:
    """Rows of a data set that were left out go into the run folder, and their number to the user."""
    data = data_task(task)
    if data is None or not data.rejected:
        return
    for row in data.rejected:
        writer.append("rejected_rows", RejectedRow(place=row.place, reason=row.reason, row=row.row))
    warn(
        f"{len(data.rejected)} of {data.num_rows} rows of the data cannot be used and are left out; they are in"
        f" {writer.folder / 'rejected_rows.jsonl'}."
    )


def check_prompts(model: LanguageModel, task: Task, max_tokens: int, *, setting: str) -> None:
    """Encode each prompt of a data set once. A task that generates its problems keeps to its own limits.

    Args:
        model: whose tokenizer and positions count.
        task: any.
        max_tokens: length limit of a response.
        setting: that sets it.

    Raises: DataError: prompts that leave no room for a response, with their files and lines.
        ConfigError: chats, and the tokenizer has no template.
    """
    data = data_task(task)
    room = getattr(model.network.config, "max_position_embeddings", None)
    if data is None or room is None:
        return
    long = [
        f"{problem.place} ({length} tokens)"
        for problem in data.problems()
        if (length := len(model.encode_problem(problem))) + max_tokens > room
    ]
    if long:
        raise DataError(
            f"{len(long)} prompts leave no room for a response of {max_tokens} tokens in the model's {room} positions:"
            f" {', '.join(long[:_SHOWN])}{', …' if len(long) > _SHOWN else ''}. Lower {setting}, or leave"
            " them out with task.max_prompt_chars and task.skip_bad=true."
        )
