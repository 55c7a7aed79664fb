"""Whether every prompt of a data set fits the model, looked at before the first step."""

from __future__ import annotations

from covent.errors import DataError
from covent.tasks import DataTask, RewardedTask, Task
from covent.train.model import LanguageModel

_SHOWN = 5


def check_prompts(model: LanguageModel, task: Task, max_tokens: int) -> None:
    """Encode each prompt of a data set once. A task that generates its problems keeps to its own limits.

    Args:
        model: whose tokenizer and positions count.
        task: any.
        max_tokens: length limit of a response.

    Raises: DataError: prompts that leave no room for a response, with their files and lines.
        ConfigError: chats, and the tokenizer has no template.
    """
    data = task.task if isinstance(task, RewardedTask) else task
    room = getattr(model.network.config, "max_position_embeddings", None)
    if not isinstance(data, DataTask) or room is None:
        return
    long = [
        f"{problem.place} ({length} tokens)"
        for problem in data.problems()
        if (length := len(model.encode_problem(problem))) + max_tokens > room
    ]
    if long:
        raise DataError(
            f"{len(long)} prompts leave no room for a response of {max_tokens} tokens in the model's {room} positions:"
            f" {', '.join(long[:_SHOWN])}{', …' if len(long) > _SHOWN else ''}. Lower rollout.max_response_tokens, or"
            " leave them out with task.max_prompt_chars and task.skip_bad=true."
        )
