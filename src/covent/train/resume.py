"""`covent resume`: take up a run from its newest whole checkpoint, under the same conditions, or say why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from covent import stopping
from covent.errors import ChangedRunError, CheckpointError, ConfigError, StoreError, suggestion
from covent.stopping import on_signals
from covent.store import checkpoint
from covent.store.checkpoint import Checkpoint
from covent.store.reader import read_header, read_resumes, read_status
from covent.store.rows import prefix_fault
from covent.store.schema import ROW_FILES, ResumeRow
from covent.store.writer import RunWriter
from covent.train.checkpoints import conditions_of, position_of, restore
from covent.train.config_file import config_yaml, load_config
from covent.train.run import Progress, Session
from covent.train.setup import Setup, now, settings_by_name
from covent.train.state import Position


@dataclass(frozen=True)
class Found:
    """What the run folder has to go on from."""

    checkpoint: Checkpoint | None
    """None: the run had recorded nothing yet, and begins."""
    set_aside: list[str] = field(default_factory=list)


def resume(
    folder: Path,
    overrides: Sequence[str] = (),
    allow: Sequence[str] = (),
    *,
    progress: Progress = lambda phase, done, total: None,
    warn: Callable[[str], None] = lambda message: None,
) -> bool:
    """Go on with a run; its rows and weights come out as if it had never stopped.

    Args:
      folder: a run folder.
      overrides: `key=value`, on top of the folder's config.yaml.
      allow: names of conditions that may differ from the run so far; a section's name stands for all in it.
      progress: as for `train`.
      warn: called with every checkpoint that cannot be used, and why.
    Returns: False when the run had finished, and nothing was done or written.
    Raises:
      MissingPathError: no run folder.
      RunLockedError: another process writes to it.
      CheckpointError: no checkpoint is whole.
      ChangedRunError: the conditions differ and are not allowed to.
      Stopped, KeyboardInterrupt, CoventError: as `train` does.
    """
    header = read_header(folder)
    if _has_finished(folder) and not overrides:
        return False
    config = load_config(folder / "config.yaml", list(overrides))
    with on_signals(), RunWriter.reopen(folder, config.steps) as writer:
        # Whoever had the lock may have finished the run.
        if _has_finished(folder) and not overrides:
            return False
        checkpoint.clean(folder / checkpoint.FOLDER)
        found = _newest_usable(folder, warn)
        setup, state = Setup.of(config)
        stopping.poll()
        conditions = setup.conditions()
        before = conditions_of(found.checkpoint) if found.checkpoint else settings_by_name(header.config)
        changes = _changes(before, conditions)
        _require_allowed(changes, [*allow, *_allowed_before(folder, changes)], known=list(conditions))
        if found.checkpoint is not None:
            restore(found.checkpoint, state, config)
        writer.status("running", step=state.at.step)
        writer.cut_back(state.at.marks)
        name = found.checkpoint.path.name if found.checkpoint else None
        row = ResumeRow(time=now(), checkpoint=name, step=state.at.step, set_aside=found.set_aside, changes=changes)
        writer.append("resumes", row)
        if changes:
            writer.config(config_yaml(config))
            as_it_was = {"created": header.created, "start_model": header.start_model}
            writer.header(setup.header(state.model).model_copy(update=as_it_was))
        # Under other conditions the next checkpoint must say so, even if nothing else has changed.
        saved = None if changes or found.checkpoint is None else state.at
        Session(setup, state, writer, conditions, progress, warn, saved).run()
    return True


def _has_finished(folder: Path) -> bool:
    try:
        return read_status(folder).state == "finished"
    except StoreError:
        # A power cut can leave an empty status; the checkpoints say how far the run is.
        return False


def _newest_usable(folder: Path, warn: Callable[[str], None]) -> Found:
    """The newest checkpoint that is whole and whose rows are there; newer ones are renamed.

    Raises: CheckpointError when there are checkpoints or rows, and no checkpoint is usable.
    """
    parent = folder / checkpoint.FOLDER
    reasons: list[str] = []
    without_rows: list[Path] = []
    set_aside: list[str] = []
    for path in checkpoint.numbered(parent):
        try:
            found = checkpoint.opened(path)
        except CheckpointError as error:
            bad = checkpoint.set_aside(path)
            reasons.append(f"checkpoint {path.name} is damaged and is now {bad.name}: {error}")
            set_aside.append(bad.name)
            continue
        if reason := _missing_rows(folder, position_of(found)):
            reasons.append(f"checkpoint {path.name} has lost its rows: {reason}")
            without_rows.append(path)
            continue
        # What comes now would not follow on these.
        set_aside += [checkpoint.set_aside(path).name for path in without_rows]
        for reason in reasons:
            warn(f"{reason}. Going on from {found.path.name}.")
        return Found(found, set_aside)
    if not reasons and not _has_rows(folder) and not any(parent.glob("*.bad")):
        return Found(None)
    raise CheckpointError(
        f"The run in {folder} cannot go on: {'; '.join(reasons) or 'it has no checkpoint that is whole'}. Nothing was"
        f" deleted. Put back what is damaged from a backup, a checkpoint under its name without .bad; or start again in"
        f" another folder: covent train {folder / 'config.yaml'}"
    )


def _missing_rows(folder: Path, position: Position) -> str:
    reasons = (prefix_fault(folder, kind, mark) for kind, mark in position.marks.items())
    return next((reason for reason in reasons if reason), "")


def _has_rows(folder: Path) -> bool:
    # Rows of the data that were left out are written before there is anything to save.
    files = (folder / f"{kind}.jsonl" for kind in ROW_FILES if kind not in ("resumes", "rejected_rows"))
    return any(path.is_file() and path.stat().st_size for path in files)


def _changes(before: Mapping[str, str], now_: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """What differs, by name: before, now. A run that has recorded nothing has settings only."""
    names = [name for name in dict.fromkeys([*before, *now_]) if before.get(name) != now_.get(name)]
    known = names if "data" in before else [name for name in names if name in before]
    return {name: (before.get(name, "not set"), now_.get(name, "not set")) for name in known}


def _allowed_before(folder: Path, changes: Mapping[str, tuple[str, str]]) -> list[str]:
    """Changes that were allowed when the run was last taken up, which no checkpoint has recorded since."""
    rows = read_resumes(folder)
    recorded = rows[-1].changes if rows else {}
    return [name for name, change in changes.items() if recorded.get(name) == change]


def _require_allowed(changes: Mapping[str, tuple[str, str]], allow: Sequence[str], known: list[str]) -> None:
    sections = {name.rpartition(".")[0] for name in [*known, *changes]}
    for word in allow:
        if word not in {*known, *changes, *sections}:
            raise ConfigError(f"--allow {word}: there is no such condition. {suggestion(word, known)}")
    refused = [name for name in changes if not any(name == word or name.startswith(f"{word}.") for word in allow)]
    if refused:
        lines = "\n".join(f"  {name}: {changes[name][0]} -> {changes[name][1]}" for name in refused)
        raise ChangedRunError(
            f"The run would not go on as it began; these differ:\n{lines}\nPut them back as they were, or allow them by"
            f" name, which the run folder will record: --allow {' --allow '.join(refused)}"
        )
