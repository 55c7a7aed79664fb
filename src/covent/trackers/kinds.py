"""trackio, wandb and TensorBoard behind one interface. Each is imported where it is opened, in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from covent.errors import ConfigError, MissingExtraError, suggestion
from covent.store.schema import RunHeader
from covent.trackers.metrics import Point
from covent.trackers.unsent import FOLDER


class Tracker(Protocol):
    """Where numbers go."""

    def log(self, point: Point) -> None:
        """Hand on the numbers of one row."""
        ...

    def flush(self) -> None:
        """Bring everything handed on so far to where it stays, as far as the tracker lets that be asked."""
        ...

    def close(self) -> None:
        """The last call."""
        ...


def require(tracker: str) -> None:
    """Raises: ConfigError: no such tracker; MissingExtraError: its library is not installed."""
    if tracker not in KINDS:
        raise ConfigError(f"There is no tracker '{tracker}'. {suggestion(tracker, list(KINDS))}")
    if find_spec(tracker) is None:
        raise MissingExtraError(
            f"The tracker '{tracker}' needs its library, which is not installed. Install the extra:"
            f" pip install 'covent[{tracker}]'."
        )


def opened(tracker: str, folder: Path, header: RunHeader, project: str) -> Tracker:
    """A tracker, ready for the rows of a run. The same run folder is the same run to it, however often it is opened."""
    return KINDS[tracker](folder, header, project)


class _Trackio:
    def __init__(self, folder: Path, header: RunHeader, project: str) -> None:
        import trackio

        self._library: Any = trackio
        trackio.init(project=project, name=run_name(folder), config=_flat(header.config), resume="allow")

    def log(self, point: Point) -> None:
        self._library.log(point.values, step=point.step)

    def flush(self) -> None:
        """trackio writes in a thread of its own, and offers nothing to wait for before its end."""

    def close(self) -> None:
        self._library.finish()


class _Wandb:
    def __init__(self, folder: Path, header: RunHeader, project: str) -> None:
        import wandb

        name = run_name(folder)
        self._run: Any = wandb.init(
            project=project, name=name, id=name, resume="allow", dir=folder / FOLDER, config=header.config
        )
        self._known: set[str] = set()

    def log(self, point: Point) -> None:
        axis = f"{point.kind}/step"
        if point.kind not in self._known:
            self._known.add(point.kind)
            # wandb's own step only grows, and rows of several kinds have steps of their own.
            self._run.define_metric(axis)
            self._run.define_metric(f"{point.kind}/*", step_metric=axis)
        self._run.log({**point.values, axis: point.step})

    def flush(self) -> None:
        """wandb writes in a process of its own, and offers nothing to wait for before its end."""

    def close(self) -> None:
        self._run.finish()


class _TensorBoard:
    def __init__(self, folder: Path, header: RunHeader, project: str) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event: Any = Event
        self._summary: Any = Summary
        self._writer: Any = EventFileWriter(str(folder / FOLDER / "tensorboard"))

    def log(self, point: Point) -> None:
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in point.values.items()]
        event = self._event(wall_time=time.time(), step=point.step, summary=self._summary(value=values))
        self._writer.add_event(event)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


KINDS: Mapping[str, Callable[[Path, RunHeader, str], Tracker]] = {
    "trackio": _Trackio,
    "wandb": _Wandb,
    "tensorboard": _TensorBoard,
}
"""Every tracker by the name of its library, which is that of its extra too."""


def run_name(folder: Path) -> str:
    """What the run is called, from its folder: letters, digits and dashes.

    Example:
        >>> run_name(Path("runs/clock-2")), run_name(Path("runs/my run"))
        ('runs-clock-2', 'runs-my-run')
    """
    text = "-".join(folder.absolute().parts[-2:])
    return "".join(each if each.isascii() and each.isalnum() else "-" for each in text)[-64:].strip("-")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found
