"""Token dumps: what prime-rl, slime and ROLL write of the tokens of a step, or JSON Lines of one's own.

A line is one response with a list in each column, or one token. Nothing here depends on torch.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from covent.errors import MissingPathError
from covent.logs.dump_columns import NAMES, column, column_name
from covent.logs.rows import LARGEST_STEP, LogError, as_number, parsed
from covent.logs.token_lines import Token, gathered, responses_of

LARGEST = 1e100
"""No log-probability and no advantage is larger; products of two that are not have room in float64."""

STD_FLOOR = 1e-6
"""verl and TRL add it to the standard deviation of a group's rewards."""

_SHOWN = 40
_PICKLE_SUFFIXES = {".pt", ".pth", ".pkl", ".pickle"}


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """The tokens of one step that carry gradient, one entry each; sequences are numbered in the order of the dump."""

    step: int | None
    logprob: NDArray[np.float64]
    """log π of the sampled token under the measured policy, nats."""
    advantage: NDArray[np.float64]
    old_logprob: NDArray[np.float64] | None
    """Under the policy that sampled; None where the dump has one log-probability."""
    entropy: NDArray[np.float64] | None
    """Exact entropy at the position, nats."""
    sequence: NDArray[np.int64]
    position: NDArray[np.int64]
    group: NDArray[np.int64]
    """Number of the prompt; the sequence itself where the dump does not say."""
    tokens: list[str] | None
    """Text or id of each token."""
    notes: list[str] = field(default_factory=list)

    @property
    def num_sequences(self) -> int:
        return int(np.unique(self.sequence).size)

    def __len__(self) -> int:
        return self.logprob.size


@dataclass
class _Response:
    """One line of a dump, before tokens without gradient are left out."""

    where: str
    step: int | None
    group: str | None
    """None where the dump does not say."""
    reward: float | None
    logprob: list[float | None]
    advantage: list[float | None] | None
    mask: list[bool]
    old_logprob: list[float | None] | None
    entropy: list[float | None] | None
    tokens: list[str] | None
    policy: str
    """The column that its log-probabilities come from."""


def read_dump(path: Path | str, *, group_advantages: bool = False) -> list[TokenBatch]:
    """The tokens of a dump, one batch for each step in it.

    Args:
        path: a JSON Lines file; a folder of them, such as prime-rl's `token_exports` with `step_N/rank_N.jsonl`; or a
            run folder of covent, whose samples.jsonl holds a few responses of each validation.
        group_advantages: where the dump has no advantages, take A = (r - mean) / (std + 1e-6) over the responses to the
            same prompt. ROLL's dump needs it.

    Raises:
        MissingPathError: no such file, or no dump in the folder.
        LogError: a line is damaged, a column is missing, lists differ in length, or a number that counts is not finite.
    """
    path = Path(path)
    notes: list[str] = []
    responses = [response for file in _files(path) for response in _responses(file, notes)]
    _check_policies(responses)
    if not responses:
        raise LogError(f"{path} holds no response. Give a dump with one response, or one token, a line.")
    steps: dict[int | None, list[_Response]] = {}
    for response in responses:
        steps.setdefault(response.step, []).append(response)
    ordered = sorted(steps.items(), key=lambda item: -1 if item[0] is None else item[0])
    return [_batch(path, step, found, group_advantages, list(dict.fromkeys(notes))) for step, found in ordered]


def _check_policies(responses: Sequence[_Response]) -> None:
    """Log-probabilities of two policies in one dump are two quantities."""
    other = next((response for response in responses if response.policy != responses[0].policy), None)
    if other is not None:
        raise LogError(
            f"{other.where} has its log-probabilities in '{other.policy}', {responses[0].where} in"
            f" '{responses[0].policy}': they are those of different policies. Give one column on every line."
        )


def _files(path: Path) -> list[Path]:
    if path.suffix in _PICKLE_SUFFIXES:
        raise LogError(
            f"{path} is a pickle, which covent never opens, since opening one runs its code. In the environment that"
            " wrote it (slime: --save-debug-train-data), load it with torch and turn its samples into JSON"
            " Lines: for s in loaded['samples']:"
            " print(json.dumps({k: v.tolist() if hasattr(v, 'tolist') else v for k, v in s.items()}))"
        )
    if not path.exists():
        raise MissingPathError(f"{path} does not exist. Give a token dump: a JSON Lines file, or a folder of them.")
    if not path.is_dir():
        # Also a pipe: a dump is read once.
        return [path]
    if (path / "run.json").is_file():
        # A run folder of covent: of its files only this one has tokens.
        if not (path / "samples.jsonl").is_file():
            raise MissingPathError(
                f"{path} is a run folder that kept no samples (samples_kept=0), so it has no tokens."
            )
        return [path / "samples.jsonl"]
    files = sorted(path.rglob("*.jsonl"), key=lambda file: (file.parent.as_posix(), file.name))
    if not files:
        raise MissingPathError(f"{path} holds no .jsonl file. Give the folder that the engine wrote token dumps to.")
    return files


def _responses(path: Path, notes: list[str]) -> Iterator[_Response]:
    tokens: list[Token] = []
    for number, line in enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = parsed(line)
        except ValueError as error:
            raise LogError(f"{where} is not JSON: {error}. Each line must be one JSON object.") from error
        if not isinstance(row, Mapping):
            raise LogError(f"{where} is a JSON {type(row).__name__}; each line must be one JSON object.")
        if isinstance(column(row, "logprob"), int | float):
            tokens.append((where, row))
        else:
            yield _response(where, row)
    for members in responses_of(tokens, notes):
        yield _response(members[0][0], gathered(members))


def _response(where: str, row: Mapping[str, object]) -> _Response:
    logprob = _floats(where, row, "logprob")
    if logprob is None:
        raise LogError(
            f"{where} has no log-probabilities: {', '.join(NAMES['logprob'])} are known. It has"
            f" {', '.join(list(row)[:10])}."
        )
    length = len(logprob)
    mask = _mask(where, row, length)
    old = None if column_name(row, "old_logprob") == column_name(row, "logprob") else _floats(where, row, "old_logprob")
    columns = {
        "old_logprob": old,
        "advantage": _advantages(where, row, length),
        "entropy": _floats(where, row, "entropy"),
    }
    for name, values in {**columns, "mask": mask}.items():
        if values is not None and len(values) != length:
            raise LogError(
                f"{where}: {name} has {len(values)} entries and the log-probabilities {length}; they must be aligned."
            )
    tokens = column(row, "token")
    group, reward = column(row, "group"), column(row, "reward")
    return _Response(
        where=where,
        step=_step(where, row),
        group=None if group is None else json.dumps(group, sort_keys=True),
        reward=_finite(where, "reward", reward) if isinstance(reward, int | float) else None,
        logprob=logprob,
        mask=mask,
        # slime's tokens begin with the prompt.
        tokens=[str(token) for token in tokens][-length:]
        if isinstance(tokens, list) and len(tokens) >= length
        else None,
        policy=column_name(row, "logprob") or "",
        **columns,
    )


def _mask(where: str, row: Mapping[str, object], length: int) -> list[bool]:
    """Which tokens count; all where the dump has no mask."""
    mask = column(row, "mask")
    if mask is None:
        return [True] * length
    if not isinstance(mask, list):
        raise LogError(f"{where}: mask is {mask!r}; a list with 0 or 1 for each token is needed.")
    wrong = next((value for value in mask if not isinstance(value, int | float) or value not in (0, 1)), None)
    if wrong is not None or None in mask:
        raise LogError(f"{where}: mask holds {wrong!r}; each entry is 0 or 1, as a number or as true and false.")
    return [bool(value) for value in mask]


def _step(where: str, row: Mapping[str, object]) -> int | None:
    """The step of a line, also where it is written as a word."""
    step = column(row, "step")
    value = as_number(step) if isinstance(step, str) else step
    if step is None:
        return None
    # NaN fails the comparison, and integers of any length can be compared.
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < LARGEST_STEP:
        whole = int(value)
        if whole == value:
            return whole
    raise LogError(f"{where}: step is {_short(step)}; a step is a whole number from 0 on, below 2**53.")


def _finite(where: str, column: str, value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isfinite(number) and abs(number) <= LARGEST:
        return number
    raise LogError(f"{where}: {column} is {_short(value)}, which it cannot be.")


def _short(value: object) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**20 else "an integer of more than 20 digits"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _floats(where: str, row: Mapping[str, object], name: str) -> list[float | None] | None:
    values = column(row, name)
    if values is None:
        return None
    if not isinstance(values, list):
        raise LogError(f"{where}: {name} is {type(values).__name__}; a list with one number a token is needed.")
    wrong = next((v for v in values if v is not None and (isinstance(v, bool) or not isinstance(v, int | float))), None)
    if wrong is not None:
        raise LogError(f"{where}: {name} holds {wrong!r}, which is no number.")
    return [None if value is None else _wide_float(value) for value in values]


def _wide_float(value: float) -> float:
    """An integer too large for float64 is infinite there, and refused where the mask says that it counts."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _advantages(where: str, row: Mapping[str, object], length: int) -> list[float | None] | None:
    value = column(row, "advantage")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [_wide_float(value)] * length
    return _floats(where, row, "advantage")


def _batch(
    path: Path, step: int | None, responses: list[_Response], group_advantages: bool, notes: list[str]
) -> TokenBatch:
    label = str(path) if step is None else f"{path} (step {step})"
    lacking = next((response for response in responses if response.advantage is None), None)
    if lacking is not None:
        if not group_advantages:
            raise LogError(
                f"{lacking.where} has no advantages. If they are GRPO's, covent can take them from the rewards of the"
                " responses to one prompt: --group-advantages."
            )
        _standardise(responses)
        notes.append("Advantages were taken from rewards: (r - mean) / (std + 1e-6) over the responses to one prompt.")
    has_old = all(response.old_logprob is not None for response in responses)
    has_entropy = all(response.entropy is not None for response in responses)
    has_tokens = all(response.tokens is not None for response in responses)
    notes += _missing(responses)
    groups = {name: number for number, name in enumerate(dict.fromkeys(response.group for response in responses))}
    known_groups = None not in groups and len(groups) > 1
    kept = [[index for index, counts in enumerate(response.mask) if counts] for response in responses]
    if not any(kept):
        raise LogError(f"{label}: no token carries gradient: the mask is empty everywhere.")
    return TokenBatch(
        step=step,
        logprob=_picked(responses, kept, "logprob"),
        advantage=_picked(responses, kept, "advantage"),
        old_logprob=_picked(responses, kept, "old_logprob") if has_old else None,
        entropy=_picked(responses, kept, "entropy") if has_entropy else None,
        sequence=np.array([n for n, rows in enumerate(kept) for _ in rows], dtype=np.int64),
        position=np.array([index for rows in kept for index in rows], dtype=np.int64),
        group=np.array(
            [
                groups[r.group] if known_groups else n
                for n, (r, rows) in enumerate(zip(responses, kept, strict=True))
                for _ in rows
            ],
            dtype=np.int64,
        ),
        tokens=[(r.tokens or [])[i] for r, rows in zip(responses, kept, strict=True) for i in rows]
        if has_tokens
        else None,
        notes=notes,
    )


def _missing(responses: Sequence[_Response]) -> list[str]:
    """What not every response has, and is not used for that reason."""
    notes = []
    for part, spoken in (("entropy", "entropy"), ("old_logprob", "log-probabilities of the policy that sampled")):
        count = sum(getattr(response, part) is not None for response in responses)
        if count == 0 and part == "entropy":
            notes.append("The dump has no entropy.")
        elif 0 < count < len(responses):
            notes.append(f"Only {count} of {len(responses)} responses have {spoken}, which is not used therefore.")
    unnamed = sum(response.group is None for response in responses)
    if 0 < unnamed < len(responses):
        notes.append(f"{unnamed} of {len(responses)} responses name no prompt, so each response counts as a prompt.")
    return notes


def _picked(responses: list[_Response], kept: list[list[int]], column: str) -> NDArray[np.float64]:
    """A column over the tokens that count.

    Raises:
        LogError: one of them is missing or not finite.
    """
    values = []
    for response, rows in zip(responses, kept, strict=True):
        entries: list[float | None] = getattr(response, column)
        for index in rows:
            value = entries[index]
            if value is None or not abs(value) <= LARGEST:
                raise LogError(
                    f"{response.where}: {column}[{index}] is {value}, though the mask says that the token counts."
                )
            values.append(value)
    return np.array(values, dtype=np.float64)


def _standardise(responses: list[_Response]) -> None:
    groups: dict[str, list[_Response]] = {}
    for response in responses:
        if response.reward is None:
            raise LogError(f"{response.where} has neither advantages nor a reward; one of the two is needed.")
        if response.group is None:
            raise LogError(
                f"{response.where} names no prompt, and advantages of a group need one on each line:"
                f" {', '.join(NAMES['group'])}."
            )
        groups.setdefault(response.group, []).append(response)
    for members in groups.values():
        rewards = [response.reward for response in members if response.reward is not None]
        if len(members) < 2:
            raise LogError(
                f"{members[0].where} is the only response to its prompt, so its advantage cannot be taken from a group."
            )
        centred = np.array(rewards) - np.mean(rewards)
        scale = float(np.std(rewards, ddof=1)) + STD_FLOOR
        for response, value in zip(members, centred / scale, strict=True):
            response.advantage = [float(value)] * len(response.logprob)
