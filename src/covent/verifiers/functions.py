"""Reward functions that users wrote for TRL or verl, called in a child process, with every misbehaviour named.

Whatever the function does wrong is an `ERROR` of the samples it concerns: it is the verifier here. When a call for
many samples fails, each is tried alone to find and name the culprits, and the others are asked for together again, so
that a function that compares its samples still sees them side by side.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from covent.errors import ConfigError, MissingPathError
from covent.verifiers.children import Children, Limits, Outcome
from covent.verifiers.settings import RewardSettings
from covent.verifiers.verdict import Judgement, Poll, Verdict, keep_waiting

_TARGET = "covent.verifiers.function_child:load"
_GIVE_UP = 3
"""After so many samples that fail alone the rest is not tried: the function is broken, not the samples."""


@dataclass(frozen=True)
class RewardCall:
    """One response with all that either signature is given."""

    prompt: Any
    """Text, or a list of chat messages."""
    completion: Any
    """Text, or a list with the assistant's message."""
    response: str
    token_ids: Sequence[int] = ()
    source: str = ""
    ground_truth: Any = None
    extra_info: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The other columns of the data set's row."""
    label: str = ""
    """The sample's name in messages."""


class RewardFunction:
    """`path/to/file.py:name`, ready to be called."""

    def __init__(self, settings: RewardSettings) -> None:
        """Loads the function once, in a child, and looks at its parameters.

        Raises:
            MissingPathError: no such file.
            ConfigError: it cannot be loaded, is async, or its signature is neither given nor clear.
        """
        assert settings.function is not None
        path, _, name = settings.function.rpartition(":")
        if not path or not name:
            raise ConfigError(f"reward.function = '{settings.function}' must be path/to/file.py:name.")
        if not Path(path).is_file():
            raise MissingPathError(f"reward.function = '{settings.function}': there is no file '{path}'.")
        self.name = settings.function
        self._timeout_s, self._right_at = settings.timeout_s, settings.right_at
        self._children = Children(
            _TARGET,
            {"file": str(Path(path).resolve()), "name": name},
            size=1,
            limits=Limits(),
            preload=False,
            environment=os.environ,
            show_output=True,
        )
        self.signature = self._signature(settings.signature)

    def close(self) -> None:
        """End the child."""
        self._children.close()

    def _signature(self, asked: str) -> Literal["trl", "verl"]:
        outcome = self._children.ask("describe", self._timeout_s)
        if outcome.kind != "done":
            raise ConfigError(f"reward.function = '{self.name}' {_words(outcome)}")
        description = outcome.value
        if description["is_async"]:
            raise ConfigError(f"reward.function = '{self.name}' is async; make it a plain function.")
        if asked == "trl" or asked == "verl":
            return "trl" if asked == "trl" else "verl"
        if description["trl"] == description["verl"]:
            raise ConfigError(
                f"reward.function = '{self.name}' takes ({', '.join(description['parameters'])}), which is neither"
                " clearly TRL's form (prompts, completions, completion_ids, **columns) nor clearly verl's"
                " (data_source, solution_str, ground_truth, extra_info). Set reward.signature to trl or verl."
            )
        return "trl" if description["trl"] else "verl"

    def judge(self, calls: Sequence[RewardCall], poll: Poll = keep_waiting) -> list[Judgement]:
        """The judgement of each response; `reward` is the function's score.

        Args:
            calls: what the function is asked, in order.
            poll: see `Poll`.
        """
        if self.signature == "trl":
            return self._judge_together(list(calls), poll) if calls else []
        found: list[Judgement] = []
        for call in calls:
            failed = sum(judgement.verdict is Verdict.ERROR for judgement in found)
            if failed >= _GIVE_UP and failed == len(found):
                found.append(Judgement.of(Verdict.ERROR, f"not tried: {found[-1].reason}"))
            else:
                found += self._asked([call], poll)
        return found

    def _judge_together(self, calls: list[RewardCall], poll: Poll) -> list[Judgement]:
        """TRL's form: one call for all; if it fails, alone to find the culprits, then the others together again."""
        found = self._asked(calls, poll)
        if len(calls) == 1 or not _all_errors(found):
            return found
        alone: list[Judgement] = []
        for call in calls:
            if len(alone) >= _GIVE_UP and _all_errors(alone[:_GIVE_UP]):
                return found
            alone += self._asked([call], poll)
        innocent = [i for i, judgement in enumerate(alone) if judgement.verdict is not Verdict.ERROR]
        if len(innocent) == len(calls):
            return found  # only together do they fail: nobody can be named
        again = self._asked([calls[i] for i in innocent], poll)
        for i, judgement in zip(innocent, again, strict=True):
            alone[i] = judgement
        return alone

    def _asked(self, calls: list[RewardCall], poll: Poll) -> list[Judgement]:
        """One call of the function, for all of `calls`."""
        arguments = _trl_arguments(calls) if self.signature == "trl" else _verl_arguments(calls[0])
        request = {"signature": self.signature, "arguments": arguments, "count": len(calls)}
        outcome = self._children.ask(request, self._timeout_s, poll)
        labels = [call.label for call in calls]
        if outcome.kind != "done" or "fault" in outcome.value:
            words = _words(outcome) if outcome.kind != "done" else outcome.value["fault"]
            return [Judgement.of(Verdict.ERROR, f"{self.name} {words}{_about(label)}") for label in labels]
        changed = outcome.value["changed"]
        note = f"{self.name} changed its argument {', '.join(changed)}; it was given a copy" if changed else ""
        return [
            self._judgement(score, label, note) for score, label in zip(outcome.value["scores"], labels, strict=True)
        ]

    def _judgement(self, score: Mapping[str, Any], label: str, note: str) -> Judgement:
        if "fault" in score:
            return Judgement.of(Verdict.ERROR, f"{self.name} {score['fault']}{_about(label)}")
        value = score["score"]
        if value is None:
            return Judgement(Verdict.NOT_APPLICABLE, None, warning=note)
        right = score.get("right", value >= self._right_at)
        return Judgement(Verdict.RIGHT if right else Verdict.WRONG, value, warning=note)


def _all_errors(judgements: Sequence[Judgement]) -> bool:
    return all(judgement.verdict is Verdict.ERROR for judgement in judgements)


def _about(label: str) -> str:
    return f" ({label})" if label else ""


def _words(outcome: Outcome) -> str:
    return {
        "raised": f"raised {outcome.detail}",
        "time-out": f"did not return: {outcome.detail}",
        "starved": f"did not return: {outcome.detail}",
        "memory": "ran out of memory",
        "crash": f"ended its process twice: {outcome.detail}",
    }[outcome.kind]


def _trl_arguments(calls: Sequence[RewardCall]) -> dict[str, Any]:
    names = dict.fromkeys(name for call in calls for name in call.columns)
    columns = {name: [call.columns.get(name) for call in calls] for name in names}
    return columns | {
        "prompts": [call.prompt for call in calls],
        "completions": [call.completion for call in calls],
        "completion_ids": [list(call.token_ids) for call in calls],
    }


def _verl_arguments(call: RewardCall) -> dict[str, Any]:
    return {
        "data_source": call.source,
        "solution_str": call.response,
        "ground_truth": call.ground_truth,
        "extra_info": dict(call.extra_info),
    }
