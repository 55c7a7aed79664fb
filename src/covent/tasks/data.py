r"""Problems from data sets, in the forms that verl and TRL read.

    verl   {"data_source": "gsm8k", "prompt": [{"role": "user", "content": "…"}], "reward_model": {"ground_truth": "7"},
            "extra_info": {…}}
    TRL    {"prompt": "…" or messages, "solution" or "answer" or "ground_truth": "7", any other columns}

Every row is looked at before the first step: a row that cannot be used stops the run with its file and line, unless
`skip_bad` is set; then it is left out, counted and kept in the run folder.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

from pydantic import Field

from covent.errors import DataError
from covent.tasks.base import Answer, Problem, Split, TaskSettings
from covent.tasks.row_files import RawRow, data_files, rows, split_folders
from covent.verifiers.exact import MAX_ANSWER_CHARS, bare_truth, judge_exactly
from covent.verifiers.mathematics import MathVerifier
from covent.verifiers.programs import ProgramVerifier, program_in, tests_of
from covent.verifiers.settings import VerifierSettings
from covent.verifiers.verdict import Judgement, Poll, keep_waiting

BOXED = "Let's think step by step and output the final answer within \\boxed{}."
"""The instruction of verl's mathematical data sets."""

_TRUTHS = ("solution", "answer", "ground_truth")
_ROLES = ("system", "user", "assistant", "tool")
_SHOWN_BAD = 5
_SHOWN_TESTS = 500


class DataSettings(TaskSettings):
    """Settings of a task whose problems come from files."""

    name: Literal["data"] = "data"
    path: str | tuple[str, ...] = Field(default=(), min_length=1)
    """A .jsonl or .parquet file, a folder of such files, a folder that `datasets` saved, or a list of these. Its rows
    are split by the hash of the prompt: one in ten for tests, one in ten for validation."""
    validation_path: str | tuple[str, ...] | None = None
    """Validation problems of their own; then no row of `path` is one."""
    test_path: str | tuple[str, ...] | None = None
    """Test problems of their own; then no row of `path` is one."""
    verifier: Literal["exact", "math", "code"] = "exact"
    r"""How an answer is judged. `exact`: the last `\boxed{}`, `<answer>` or `####`, as text and as a rational number.
    `math`: by math-verify too (the `math` extra). `code`: the last fenced block, by unit tests in a sandbox."""
    marked: bool = True
    r"""`math` only: the answer must be marked, as for `exact`; otherwise it is looked for anywhere in the response."""
    prompt_key: str = "prompt"
    """The column of the prompt: text, or a list of messages."""
    answer_key: str | None = None
    """The column of the right answer; None: reward_model.ground_truth, or the one of solution, answer, ground_truth."""
    source_key: str = "data_source"
    """The column that says where a row comes from, for reward functions and results by source."""
    prompt_form: Literal["auto", "chat", "text"] = "auto"
    """`auto`: messages go through the tokenizer's chat template, and text goes to the model as it is. `chat`: text too
    becomes a user's message. `text`: of messages, the last alone goes to the model as it is."""
    system_prompt: str | None = None
    """A system message before chats that have none."""
    instruction: str | None = None
    r"""Text after each prompt; `boxed` stands for verl's request for a final answer within `\boxed{}`."""
    max_prompt_chars: int = Field(default=20_000, ge=1)
    """A longer prompt makes a row unusable."""
    skip_bad: bool = False
    """Leave out rows that cannot be used instead of stopping; they are counted and kept in the run folder."""


@dataclass(frozen=True)
class RejectedProblem:
    """A row that was left out."""

    place: str
    reason: str
    row: str


class DataTask:
    """See the module's docstring."""

    def __init__(
        self,
        settings: DataSettings,
        verifier: VerifierSettings,
        *,
        judged_elsewhere: bool = False,
        for_training: bool = True,
    ) -> None:
        """Reads all rows.

        Args:
            settings: which files, and how their rows are read and judged.
            verifier: limits of the children that judge.
            judged_elsewhere: a reward function judges, and a row needs no answer of its own.
            for_training: split the rows; there must be one to train on. Otherwise all are test problems, in their
                order.

        Raises:
            DataError: rows that cannot be used, each with file and line; or none that can.
            MissingPathError, MissingExtraError: see `covent.tasks.row_files.rows`, and for `verifier = math`.
            IsolationError: `verifier = code`, and this machine cannot isolate programs.
        """
        self._settings, self._judged_elsewhere, self._for_training = settings, judged_elsewhere, for_training
        self._splits: dict[Split, list[Problem]] = {"train": [], "validation": [], "test": []}
        self.rejected: list[RejectedProblem] = []
        self._seen: dict[str, str] = {}
        self.num_rows = 0
        for split, path in self._paths():
            self._read(split, path)
        self._report("train" if for_training else "test")
        self._math = self._programs = None
        if settings.verifier == "math" and not judged_elsewhere:
            self._math = MathVerifier(verifier, marked=settings.marked)
        if settings.verifier == "code" and not judged_elsewhere:
            self._programs = ProgramVerifier(verifier)
            self._programs.warm()
        self.answer_format = (
            "The last fenced block, or all of the response, is the program."
            if settings.verifier == "code"
            else "The final answer is marked by \\boxed{}, <answer> or ####."
        )

    def stream(self, split: Split, seed: int) -> Iterator[Problem]:
        """See `Task`. Train problems come in epochs, each of them shuffled anew."""
        rng = Random(f"{split}/{seed}")  # noqa: S311 - not cryptography
        problems = list(self._splits[split])
        while problems:
            rng.shuffle(problems)
            yield from problems
            if split != "train":
                return

    def judge(self, answers: Sequence[Answer], poll: Poll = keep_waiting) -> list[Judgement]:
        """See `Task`."""
        if self._math is not None:
            return self._math.judge([(answer.text, answer.problem.answer) for answer in answers], poll)
        if self._programs is not None:
            return self._programs.judge([(program_in(answer.text), answer.problem.truth) for answer in answers], poll)
        return [judge_exactly(answer.text, answer.problem.answer) for answer in answers]

    def problems(self) -> Iterator[Problem]:
        """Every problem once, of all splits."""
        for problems in self._splits.values():
            yield from problems

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the bytes of all files in their order, hex: whether the data is what it was."""
        digest = hashlib.sha256()
        for split, path in self._paths():
            for file in data_files(path):
                with file.open("rb") as stream:
                    content = hashlib.file_digest(stream, "sha256").hexdigest()
                digest.update(f"{split} {content}\n".encode())
        return digest.hexdigest()

    def close(self) -> None:
        """End the children that judge."""
        for verifier in (self._math, self._programs):
            if verifier is not None:
                verifier.close()

    def _paths(self) -> Iterator[tuple[Split | None, Path]]:
        """Every file or folder, with its split; None where the hash of the prompt decides."""
        settings = self._settings
        for path in _listed(settings.path):
            folders = split_folders(path)
            yield from folders.items() or [(None, path)]
        yield from (("validation", path) for path in _listed(settings.validation_path))
        yield from (("test", path) for path in _listed(settings.test_path))

    def _read(self, split: Split | None, path: Path) -> None:
        form: type | None = None
        for row in rows(path):
            self.num_rows += 1
            try:
                problem = self._problem(row)
                form = form or type(_prompt(row, self._settings))
                if type(_prompt(row, self._settings)) is not form:
                    raise DataError("its prompt is text where the first row's is a chat, or the other way round")
                if (first := self._seen.get(problem.key)) is not None:
                    raise DataError(f"the same prompt as in {first}")
            except DataError as error:
                self.rejected.append(RejectedProblem(row.place, str(error), row.text))
                continue
            self._seen[problem.key] = row.place
            chosen = (split or self._split_of(problem)) if self._for_training else "test"
            self._splits[chosen].append(self._as_asked(problem))

    def _split_of(self, problem: Problem) -> Split:
        own = {"validation": self._settings.validation_path, "test": self._settings.test_path}
        return "train" if own.get(problem.split) is not None else problem.split

    def _report(self, needed: Split) -> None:
        """Raises: DataError: rows that cannot be used and shall not be skipped, or none that is needed."""
        bad, where = self.rejected, ", ".join(str(path) for _, path in self._paths())
        if bad and not self._settings.skip_bad:
            shown = "; ".join(f"{each.place}: {each.reason}" for each in bad[:_SHOWN_BAD])
            more = f"; and {len(bad) - _SHOWN_BAD} more" if len(bad) > _SHOWN_BAD else ""
            raise DataError(
                f"{len(bad)} of {self.num_rows} rows cannot be used: {shown}{more}."
                " Mend them, or leave them out with task.skip_bad=true (--skip-bad)."
            )
        if not self._splits[needed]:
            what = "No row to train on" if needed == "train" else "No row"
            raise DataError(f"{what} in {where}: {self.num_rows} rows, {len(bad)} of them left out.")

    def _problem(self, row: RawRow) -> Problem:
        """Raises: DataError with what is wrong with the row."""
        if row.values is None:
            raise DataError(row.problem)
        settings, values = self._settings, row.values
        prompt = _prompt(row, settings)
        messages = _messages(prompt) if isinstance(prompt, list) else ()
        text = "\n\n".join(message["content"] for message in messages) if messages else prompt
        if not isinstance(text, str):
            raise DataError(f"'{settings.prompt_key}' is a {type(prompt).__name__}, not text or a list of messages")
        _check_text(settings.prompt_key, text, settings.max_prompt_chars)
        truth = None if self._judged_elsewhere and not _has_truth(values, settings) else _truth(values, settings)
        answer, truth = self._read_truth(truth)
        return Problem(
            prompt=text,
            answer=answer,
            messages=messages,
            truth=truth,
            source=str(values.get(settings.source_key) or ""),
            place=row.place,
            columns={name: value for name, value in values.items() if name != settings.prompt_key},
        )

    def _read_truth(self, truth: Any) -> tuple[str, Any]:
        """The answer as text for people, and as the verifier takes it."""
        if self._judged_elsewhere:
            return str(truth if truth is not None else "")[:_SHOWN_TESTS], truth
        if self._settings.verifier == "code":
            shown = truth if isinstance(truth, str) else json.dumps(truth, default=str)
            return shown[:_SHOWN_TESTS], tests_of(truth)
        if isinstance(truth, list) and len(truth) == 1:
            (truth,) = truth
        if isinstance(truth, bool) or not isinstance(truth, str | int | float):
            raise DataError(f"the right answer is a {type(truth).__name__}, not text or a number")
        if isinstance(truth, float) and not math.isfinite(truth):
            raise DataError(f"the right answer is {truth}")
        answer = str(truth)
        _check_text("the right answer", answer, 10 * MAX_ANSWER_CHARS)
        if len(bare_truth(answer)) > MAX_ANSWER_CHARS:
            raise DataError(f"the right answer has more than {MAX_ANSWER_CHARS} characters and marks none of them")
        return answer, None

    def _as_asked(self, problem: Problem) -> Problem:
        """The problem as the model is to read it: with the instruction, as a chat or as text."""
        settings = self._settings
        messages = [dict(message) for message in problem.messages]
        text = messages[-1]["content"] if messages and settings.prompt_form == "text" else problem.prompt
        instruction = BOXED if settings.instruction == "boxed" else settings.instruction
        if instruction:
            text = f"{text} {instruction}"
            if messages:
                messages[-1]["content"] += f" {instruction}"
        if settings.prompt_form == "text":
            messages = []
        elif settings.prompt_form == "chat" and not messages:
            messages = [{"role": "user", "content": text}]
        if messages and settings.system_prompt and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": settings.system_prompt})
        if messages:
            text = "\n\n".join(message["content"] for message in messages)
        fields = {**vars(problem), "prompt": text, "messages": tuple(messages)}
        return Problem(**fields)


def _listed(paths: str | tuple[str, ...] | None) -> list[Path]:
    return [Path(path) for path in ((paths,) if isinstance(paths, str) else paths or ())]


def _prompt(row: RawRow, settings: DataSettings) -> Any:
    assert row.values is not None
    if row.values.get(settings.prompt_key) is None:
        has = ", ".join(row.values) or "no column"
        raise DataError(f"no '{settings.prompt_key}' (it has {has}); task.prompt_key names another column")
    return row.values[settings.prompt_key]


def _messages(prompt: list[Any]) -> tuple[Mapping[str, str], ...]:
    """Raises: DataError: no chat that ends with the user."""
    if not prompt:
        raise DataError("the prompt is a chat without messages")
    for number, message in enumerate(prompt, start=1):
        if not isinstance(message, dict) or not {"role", "content"} <= set(message):
            raise DataError(f"message {number} of the prompt is no object with role and content")
        if message["role"] not in _ROLES:
            raise DataError(f"message {number} has the role {message['role']!r}; known are {', '.join(_ROLES)}")
        if not isinstance(message["content"], str) or not message["content"].strip():
            raise DataError(f"message {number} has no text as its content")
    if prompt[-1]["role"] == "assistant":
        raise DataError("the prompt's last message is the assistant's; nothing is left to answer")
    return tuple({"role": message["role"], "content": message["content"]} for message in prompt)


def _check_text(what: str, text: str, max_chars: int) -> None:
    if not text.strip():
        raise DataError(f"{what} is empty")
    if len(text) > max_chars:
        raise DataError(f"{what} has {len(text)} characters, more than {max_chars}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(f"{what} holds half a character (a lone surrogate), which no tokenizer can read")


def _has_truth(values: Mapping[str, Any], settings: DataSettings) -> bool:
    try:
        _truth(values, settings)
    except DataError:
        return False
    return True


def _truth(values: Mapping[str, Any], settings: DataSettings) -> Any:
    """Raises: DataError: no right answer, or more than one column that could be it."""
    if settings.answer_key is not None:
        found: Any = values
        for part in settings.answer_key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if found is None:
            raise DataError(f"no '{settings.answer_key}', which task.answer_key names")
        return found
    model = values.get("reward_model")
    if isinstance(model, dict) and model.get("ground_truth") is not None:
        return model["ground_truth"]
    given = [name for name in _TRUTHS if values.get(name) is not None]
    if not given:
        raise DataError(
            f"no right answer: none of reward_model.ground_truth, {', '.join(_TRUTHS)}; task.answer_key names another"
        )
    if len(given) > 1:
        raise DataError(f"{' and '.join(given)} could both be the right answer; task.answer_key says which")
    return values[given[0]]
