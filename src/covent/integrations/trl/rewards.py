"""Reward functions of TRL in a child process: what hangs, raises, exits or answers nonsense is named and survived."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

from covent.errors import ConfigError
from covent.verifiers.functions import RewardCall, RewardFunction
from covent.verifiers.settings import RewardSettings
from covent.verifiers.verdict import Judgement, Verdict
from covent.verifiers.watch import ErrorWatch

_SHOWN_CHARS = 60
_SHOWN_FAULTS = 3
_TRLS_OWN = ("trainer_state", "log_extra", "log_metric", "environments")
"""What TRL passes beside the columns of the data set, and a child cannot have: objects of the trainer's process."""

_log = logging.getLogger(__name__)


class KillableReward:
    """A reward function to be given to TRL, called in a child that is killed at its deadline.

    A completion that it raises for, hangs at, or answers with NaN, infinity or text has no reward: its advantage is 0
    and it leaves its group's mean. So has `None`, which TRL counts as "does not apply" as long as another function has
    an answer. When a call for all completions fails, each is tried alone to find the culprits.
    """

    def __init__(
        self, function: str | Callable[..., Any], *, timeout_s: float = 60.0, max_error_frac: float = 0.01
    ) -> None:
        """Args:
        function: `path/to/file.py:name`, or a function of an importable file, which the child loads by its path. It is
            TRL's `fn(prompts, completions, completion_ids, **columns) -> list`.
        timeout_s: wall time of one call.
        max_error_frac: the run stops when the function has failed for more than this share of the newest completions
            of one process, 100 or more.

        Raises:
          ConfigError: it cannot be loaded, or lies in the program that runs.
          MissingPathError: no such file.

        Example:
          >>> KillableReward(lambda completions, **columns: [])
          Traceback (most recent call last):
          covent.errors.ConfigError: A killable reward is loaded in a child by its file and name, and '<lambda>' ...
        """
        place = function if isinstance(function, str) else _place(function)
        self.__name__ = place.rpartition(":")[2]
        self.faults: list[tuple[int, Judgement]] = []
        """Of the last call: the completion's place in it, and what was wrong."""
        self.unjudged: list[bool] = []
        """Of the last call, one entry a completion."""
        self._function = RewardFunction(RewardSettings(function=place, signature="trl", timeout_s=timeout_s))
        self._watch = ErrorWatch(max_error_frac)

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """The rewards, as TRL wants them; None where there is none.

        Raises: VerifierError: too many of the newest completions could not be judged.
        """
        columns = {name: column for name, column in columns.items() if name not in _TRLS_OWN}
        _require_plain(self.__name__, columns)
        calls = [
            RewardCall(
                prompt=prompts[row],
                completion=completions[row],
                response="",
                token_ids=[int(token) for token in completion_ids[row]],
                columns={name: column[row] for name, column in columns.items()},
                label=f"completion {row}, prompt '{_shown(prompts[row])}'",
            )
            for row in range(len(completions))
        ]
        judgements = self._function.judge(calls)
        self.unjudged = [judgement.verdict is Verdict.ERROR for judgement in judgements]
        self.faults = [(row, judgement) for row, judgement in enumerate(judgements) if judgement.is_fault]
        said = dict.fromkeys(judgement.reason or judgement.warning for _, judgement in self.faults)
        for words in list(said)[:_SHOWN_FAULTS]:
            _log.warning("%s", words)
        self._watch.see(judgements, f"the reward function {self.__name__}")
        return [judgement.reward for judgement in judgements]

    def close(self) -> None:
        """End the child; it also ends with this process."""
        self._function.close()


def text_of(said: Any) -> str:
    """A prompt or completion for people: a text, or the content of the last of its messages."""
    return str(said if isinstance(said, str) else said[-1]["content"] if said else "")


def _shown(prompt: Any) -> str:
    return text_of(prompt)[-_SHOWN_CHARS:].replace("\n", " ")


def _place(function: Callable[..., Any]) -> str:
    """`file:name` of a function that another process can load."""
    name = getattr(function, "__qualname__", type(function).__name__)
    named = getattr(inspect.getmodule(function), name, None) is function
    if not named or function.__module__ == "__main__":
        raise ConfigError(
            f"A killable reward is loaded in a child by its file and name, and '{name}' of {function.__module__} cannot"
            " be: it must be a plain function at the top of a file other than the program that runs. Put it into one,"
            " say rewards.py, and give 'rewards.py:name'."
        )
    return f"{inspect.getfile(function)}:{name}"


def _require_plain(function: str, columns: dict[str, Any]) -> None:
    """Refuse columns that cannot be sent to a child."""
    for name, column in columns.items():
        try:
            json.dumps(column)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"The column '{name}' of the data set cannot be sent to the process of the reward function"
                f" {function}: {error}. Leave the column out of the data set, or give TRL the function itself."
            ) from error
