"""Reading a run folder, strictly: what is broken is an error with file and line; a torn last line alone is forgiven."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from covent.errors import MissingPathError, StoreError
from covent.store.coverage import Gaps, gaps, is_own
from covent.store.finite import first_non_finite
from covent.store.lock import abandoned
from covent.store.schema import (
    NO_STATUS,
    ROW_FILES,
    SCHEMA_VERSION,
    UNREADABLE_STATUS,
    AttributionRow,
    EvaluationRow,
    FaultRow,
    ForecastRow,
    RejectedRow,
    ResumeRow,
    Row,
    RunHeader,
    SampleRow,
    Status,
    StepRow,
    UpdateRow,
    VerdictRow,
    VerifierFaultRow,
)

AnyRow = TypeVar("AnyRow", bound=Row)

_KILLED = "its process is gone without a word: it was killed, or the machine went down"
_DAMAGED = "The file was changed or damaged; restore it, or run again."


@dataclass(frozen=True)
class Run:
    """A run folder in memory. Rows are in the order in which they were written."""

    folder: Path
    header: RunHeader
    status: Status
    steps: list[StepRow]
    updates: list[UpdateRow]
    evaluations: list[EvaluationRow]
    forecasts: list[ForecastRow]
    verdicts: list[VerdictRow]
    samples: list[SampleRow]
    attributions: list[AttributionRow] = field(default_factory=list)
    """Empty unless the run was asked for them."""
    verifier_faults: list[VerifierFaultRow] = field(default_factory=list)
    rejected_rows: list[RejectedRow] = field(default_factory=list)
    faults: list[FaultRow] = field(default_factory=list)
    resumes: list[ResumeRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What a reader of the run should know: a line that was cut off, a status that is missing."""
    gaps: Gaps = field(default_factory=dict)
    """By file what is missing in it: rows that other rows or the settings tell of, lines that could not be read."""
    is_header_lost: bool = False
    """Whether run.json could not be read: name and settings are then what else says them, all else in it is empty."""

    @property
    def name(self) -> str:
        return self.header.name

    @property
    def seed(self) -> int | None:
        """None where neither run.json nor config.yaml says it."""
        return None if self.is_header_lost and "seed" not in self.header.config else self.header.seed

    @property
    def remarks(self) -> list[str]:
        """`notes` and `gaps`."""
        return [*self.notes, *(sentence for sentences in self.gaps.values() for sentence in sentences)]


Fault = Callable[[Path, int | None, StoreError], None]
"""What to do with a file, or with one line of it, that cannot be read."""

Check = Callable[[str, AnyRow], None]
"""Raises StoreError where a row does not fit those before it; the text says where it stands."""


def refused(path: Path, line: int | None, error: StoreError) -> None:
    """A strict reader stops at the first fault."""
    raise error


def read_run(folder: Path | str) -> Run:
    """The run in `folder`.

    A row file that is missing holds no rows. A last line without newline that is not whole JSON was being written when
    the process died: it is dropped and noted. Everything else that does not fit the schema is an error.

    Args:
        folder: a folder with run.json in it.

    Raises:
        MissingPathError: `folder` does not exist, or has no run.json.
        StoreError: another schema version, or a file or line that does not fit the schema; the message has file:line.
    """
    folder = Path(folder)
    return run_of(folder, read_header(folder), refused)


def run_of(folder: Path, header: RunHeader, fault: Fault) -> Run:
    """The run in `folder` whose run.json says `header`; `fault` is called with what cannot be read."""
    notes: list[str] = []

    def rows(name: str, kind: type[AnyRow], *checks: Check[AnyRow]) -> list[AnyRow]:
        return _rows(folder / f"{name}.jsonl", kind, notes, fault, *checks)

    own = is_own(header.config)
    verdicts: list[Check[StepRow]] = [_rewards_are_verdicts] if own and not _has_reward_function(header) else []
    steps = rows("steps", StepRow, _increasing("step"), *verdicts)
    updates = rows("updates", UpdateRow, _increasing("update"))
    attributions = rows("attributions", AttributionRow, _increasing("update"))
    evaluations = rows("evaluations", EvaluationRow, *([_once()] if own else []))
    faults = rows("faults", FaultRow)
    resumes = rows("resumes", ResumeRow)
    verifier_faults = rows("verifier_faults", VerifierFaultRow)
    rejected_rows = rows("rejected_rows", RejectedRow)
    notes += _remarks(faults, resumes, len(verifier_faults), len(rejected_rows))
    status = _status(folder / "status.json", len(steps), notes, fault)
    notes += _disagreements(status, steps, faults)
    run = Run(
        folder=folder,
        header=header,
        status=status,
        steps=steps,
        updates=updates,
        evaluations=evaluations,
        forecasts=rows("forecasts", ForecastRow),
        verdicts=rows("verdicts", VerdictRow),
        samples=rows("samples", SampleRow),
        attributions=attributions,
        verifier_faults=verifier_faults,
        rejected_rows=rejected_rows,
        faults=faults,
        resumes=resumes,
        notes=notes,
    )
    return replace(run, gaps=gaps(run, {kind for kind in ROW_FILES if (folder / f"{kind}.jsonl").exists()}))


def read_header(folder: Path) -> RunHeader:
    """What the run in `folder` is.

    Raises:
        MissingPathError: `folder` does not exist, or has no run.json.
        StoreError: run.json is damaged or of another schema version.
    """
    if not (folder / "run.json").is_file():
        raise MissingPathError(_not_a_run(folder))
    return _header(folder / "run.json")


def read_status(folder: Path) -> Status:
    """Where the run in `folder` stands; one without status.json, or whose process is gone, was interrupted.

    Raises: StoreError.
    """
    return _status(folder / "status.json", 0, [])


def read_resumes(folder: Path) -> list[ResumeRow]:
    """Each time that the run in `folder` was taken up again. Raises: StoreError."""
    return _rows(folder / "resumes.jsonl", ResumeRow, [])


def _remarks(
    faults: list[FaultRow], resumes: list[ResumeRow], num_verifier_faults: int, num_rejected_rows: int
) -> list[str]:
    """What happened to the run beside its steps."""
    remarks = []
    if num_rejected_rows:
        remarks.append(f"Rows of the data set that were left out: {num_rejected_rows} (rejected_rows.jsonl).")
    if num_verifier_faults:
        remarks.append(f"Responses whose judging failed, at least: {num_verifier_faults} (verifier_faults.jsonl).")
    if faults:
        remarks.append(f"{len(faults)} optimizer steps or rollouts were not applied: not finite (faults.jsonl).")
    changed = sorted({name for row in resumes for name in row.changes})
    if changed:
        remarks.append(f"It was resumed with changes: {', '.join(changed)} (resumes.jsonl).")
    return remarks


def _not_a_run(folder: Path) -> str:
    if not folder.exists():
        return f"{folder} does not exist. Give the folder of a run: one that holds run.json."
    if not folder.is_dir():
        return f"{folder} is not a run folder: it is a file. Give the folder that holds run.json."
    inside = sorted(str(path.parent) for path in folder.glob("*/run.json"))
    hint = f" It contains run folders, though; give one or more of these: {' '.join(inside)}" if inside else ""
    return f"{folder} is not a run folder: it has no run.json.{hint or ' Give the folder that `covent train` wrote.'}"


def _header(path: Path) -> RunHeader:
    try:
        data: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is not JSON: {error}. Restore the file, or run again.") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{path} carries schema version {version!r}; this covent reads version {SCHEMA_VERSION}. Read it with the"
            f" covent that wrote it."
        )
    return _validated(RunHeader, path.read_bytes(), str(path))


def _status(path: Path, num_steps: int, notes: list[str], fault: Fault = refused) -> Status:
    try:
        if not _is_there(path):
            notes.append(f"{NO_STATUS}: the run is taken as interrupted.")
            return Status(state="interrupted", step=num_steps, num_steps=num_steps, message=NO_STATUS)
        status = _validated(Status, path.read_bytes(), str(path))
        if status.state == "running" and abandoned(path.parent):
            # A run that has just ended wrote so before it let go of the lock.
            status = _validated(Status, path.read_bytes(), str(path))
    except StoreError as error:
        fault(path, None, error)
        return Status(state="interrupted", step=num_steps, num_steps=num_steps, message=UNREADABLE_STATUS)
    if status.state == "running" and abandoned(path.parent):
        return status.model_copy(update={"state": "interrupted", "message": _KILLED})
    return status


def _rows(
    path: Path, kind: type[AnyRow], notes: list[str], fault: Fault = refused, *checks: Check[AnyRow]
) -> list[AnyRow]:
    try:
        if not _is_there(path):
            return []
    except StoreError as error:
        fault(path, None, error)
        return []
    # Only the newline byte ends a row: text may contain other characters that count as line ends in Unicode.
    *lines, last = path.read_bytes().split(b"\n")
    if last and _is_json(last):
        lines.append(last)
    elif last:
        notes.append(f"{path.name}:{len(lines) + 1} was cut off while it was written; this last line was dropped.")
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            row = _validated(kind, line, f"{path}:{number}")
            for check in checks:
                check(f"{path}:{number}", row)
        except StoreError as error:
            fault(path, number, error)
        else:
            found.append(row)
    return found


def _is_there(path: Path) -> bool:
    if path.exists() and not path.is_file():
        raise StoreError(f"{path} is a folder and should be a file. Remove or rename it; a run has no such folder.")
    return path.exists()


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _validated(kind: type[AnyRow], text: bytes, where: str) -> AnyRow:
    try:
        row = kind.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        message = (f"{place}: " if place else "") + first["msg"].removeprefix("Value error, ")
        more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise StoreError(f"{where} is not a valid {kind.__name__}: {message}{more}. {_DAMAGED}") from error
    # The JSON parser lets the words NaN and Infinity through, which no covent writer produces.
    if b"NaN" in text or b"Infinity" in text:
        found = first_non_finite(row.model_dump())
        if found is not None:
            raise StoreError(f"{where} holds a number that is not finite: {found[0]} is {found[1]}.")
    return row


def _increasing(name: str) -> Check[Any]:
    """Each row has a higher number than the one before."""
    before = -1

    def check(where: str, row: Row) -> None:
        nonlocal before
        value = getattr(row, name)
        if value <= before:
            raise StoreError(
                f"{where} has {name} {value} after {name} {before}; they must increase. Two runs may have written to"
                f" this folder: run again into a fresh one."
            )
        before = value

    return check


def _has_reward_function(header: RunHeader) -> bool:
    """Whether rewards are the scores of a user's function, of any size, rather than verdicts."""
    reward = header.config.get("reward")
    return isinstance(reward, dict) and reward.get("function") is not None


def _rewards_are_verdicts(where: str, row: StepRow) -> None:
    if not 0 <= row.reward.sum <= row.reward.count:
        raise StoreError(
            f"{where} has reward.sum {row.reward.sum:g} over reward.count {row.reward.count}; each response earns 0 or"
            f" 1. {_DAMAGED}"
        )


def _once() -> Check[EvaluationRow]:
    """Each evaluation is made once at a step."""
    lines: dict[tuple[str, int], str] = {}

    def check(where: str, row: EvaluationRow) -> None:
        before = lines.setdefault((row.split, row.step), where)
        if before != where:
            raise StoreError(
                f"{where} has step {row.step} and split {row.split} again, after line {before.rpartition(':')[2]}; each"
                f" evaluation is made once. {_DAMAGED}"
            )

    return check


def _disagreements(status: Status, steps: list[StepRow], faults: list[FaultRow]) -> list[str]:
    """Where status.json and the rows of steps.jsonl tell different stories. A rollout that was left out has no row."""
    notes = []
    told = {row.step for row in steps} | {row.step for row in faults if row.update is None}
    done = max(told, default=-1) + 1
    # A run writes the row first: killed in between, its row is one ahead.
    ahead = 0 if status.state == "finished" else 1
    if not status.step <= done <= status.step + ahead:
        rows = "are missing"
        if told:
            rows = f"end at step {done - 1}; the rest is missing"
        if done > status.step:
            rows = f"go on to step {done - 1}: status.json is behind them"
        notes.append(
            f"status.json says {status.state} after {status.step} rollout steps; the rows of steps.jsonl {rows}."
        )
    if steps and len(told) < done - min(told):
        notes.append(
            f"steps.jsonl holds {len(steps)} of the rollout steps {min(told)} to {done - 1}; the rest is missing."
        )
    return notes
