"""Run from the first weight to the final test, and leave a run folder that can be read and resumed however it ended."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from covent import controls, stopping
from covent.errors import CoventError, DiskError
from covent.law import Forecaster
from covent.rollout.batch import Responses
from covent.stopping import Stopped, on_signals
from covent.store.reader import read_header, read_run
from covent.store.schema import StepRow
from covent.store.writer import RunWriter
from covent.tasks import Problem
from covent.trackers.watch import watched
from covent.train.anchors import Anchors
from covent.train.checkpoints import save_checkpoint
from covent.train.config import TrainConfig
from covent.train.config_file import config_yaml
from covent.train.loop import Loop
from covent.train.model import LanguageModel
from covent.train.probes import Probes
from covent.train.prompts import keep_rejected_rows
from covent.train.rollouts import RolloutSource
from covent.train.setup import Setup
from covent.train.space import space_warning
from covent.train.state import Position, RunState, new_optimizer
from covent.train.warm_start import warm_start

Progress = Callable[[str, int, int], None]
"""Called with (phase, done, total); phases are `warm start` and `rl`."""


def train(
    config: TrainConfig,
    folder: Path,
    *,
    progress: Progress = lambda phase, done, total: None,
    warn: Callable[[str], None] = lambda message: None,
) -> None:
    """One run, recorded in a new run folder.

    Args:
      warn: called with what a person should know and can do something about.
    Raises:
      CoventError: bad settings, before the folder exists; a fault of the disk or of the numbers.
      RunExistsError: the folder is taken.
      Stopped: on SIGTERM or SIGINT, after the state was saved; `covent.train.resume.resume` goes on.
      KeyboardInterrupt: where signals are not handled here, after the folder's status is `interrupted`.
    """
    with on_signals():
        setup, state = Setup.of(config)
        stopping.poll()
        with RunWriter.create(folder, setup.header(state.model), config_yaml(config), num_steps=config.steps) as writer:
            if message := space_warning(config, state.model, folder):
                warn(message)
            Session(setup, state, writer, setup.conditions(), progress, warn).run()


@dataclass
class Session:
    """What one process does for a run: from where the state is to the end, a signal or a fault."""

    setup: Setup
    state: RunState
    writer: RunWriter
    conditions: Mapping[str, str]
    progress: Progress = lambda phase, done, total: None
    warn: Callable[[str], None] = lambda message: None
    saved: Position | None = None
    """Where the newest checkpoint stands."""
    _start: float = field(default_factory=time.perf_counter)

    def run(self) -> None:
        """All that is left. However it ends, the status says so and a signal's state is saved."""
        self._seconds_before = self.state.at.seconds
        config = self.setup.config
        # Trackers end after the status says how the run ended.
        with watched(self.writer.folder, config.report_to, config.project, self.warn) as self._look:
            self._run()

    def _run(self) -> None:
        try:
            self._until_the_end_or_a_signal()
        except Stopped as stopped:
            self._status("interrupted", f"{stopped.asked.name}; go on by: covent resume {self.writer.folder}")
            raise
        except KeyboardInterrupt:
            self._status("interrupted", "Ctrl-C")
            raise
        except (CoventError, RuntimeError, OSError) as error:
            # The disk may be what failed.
            with contextlib.suppress(DiskError):
                self._status("failed", str(error))
            raise
        self._status("finished", self.state.at.reason)

    def _until_the_end_or_a_signal(self) -> None:
        try:
            self._keep_rejected_rows()
            self._warm_start()
            self._rl()
        except Stopped:
            self._save()
            raise

    def _keep_rejected_rows(self) -> None:
        """Once a run: a checkpoint that has them says so by their mark."""
        if "rejected_rows" not in self.state.at.marks:
            keep_rejected_rows(self.setup.task, self.writer, self.warn)
            self.state.move(marks=self.writer.marks())

    def _warm_start(self) -> None:
        """From the first weight to the first checkpoint of RL; nothing to do when that is behind."""
        config, state = self.setup.config, self.state
        if state.at.phase == "warm start":
            warm_start(state, self.setup.task, config, progress=lambda *done: self.progress("warm start", *done))
        if state.at.phase == "warmed":
            states = _probe_states(self.setup.probe_problems, state.model, self.setup.max_tokens)
            header = read_header(self.writer.folder)
            self.writer.header(header.model_copy(update={"start_model": state.at.start_model}))
            state.probe_states = states
            state.optimizer = new_optimizer("rl", state.model.network, config)
            state.anchors = Anchors.of(state.model.network, config.controls)
            state.move(phase="rl", controls=controls.first_states(config.controls), marks=self.writer.marks())
            self._save()

    def _rl(self) -> None:
        """Test → all rollout steps → test; the final weights last."""
        config, state = self.setup.config, self.state
        if not state.at.tested:
            self._take_test()
            state.move(tested=True, marks=self.writer.marks())
        source = RolloutSource.resumed(
            state.model, self.setup.task, config, self.setup.max_tokens, state.at.num_groups, state.at.errors_counted
        )
        loop = Loop(
            config=config,
            state=state,
            source=source,
            validation=self.setup.validation,
            probes=None if state.probe_states is None else Probes(state.model, state.probe_states),
            writer=self.writer,
            forecaster=self._forecaster(),
            save=self._save,
        )

        def after_step(row: StepRow) -> None:
            self._status("running")
            self._look()
            self.progress("rl", row.step + 1, config.steps)

        loop.run(after_step)
        self._take_test()
        state.model.save(self.writer.folder / "model")

    def _take_test(self) -> None:
        if self.setup.test.problems:
            evaluation, verdicts = self.setup.test.take(self.state.model, self.setup.task, self.state.at.step)
            self.writer.append("evaluations", evaluation)
            for verdict in verdicts:
                self.writer.append("verdicts", verdict)

    def _forecaster(self) -> Forecaster:
        """As the rows so far have left it."""
        config = self.setup.config
        forecaster = Forecaster(config.steps, every=config.evaluation.every)
        if self.state.at.step or self.state.at.validated:
            run = read_run(self.writer.folder)
            accuracies = {row.step: row.avg.value for row in run.evaluations if row.split == "validation"}
            forecaster.recall([(row.step, row.entropy.value) for row in run.steps], accuracies)
        return forecaster

    def _save(self) -> None:
        """A checkpoint of the state, unless the newest one already is."""
        if self.saved == self.state.at:
            return
        self.writer.sync()
        self.state.move(seconds=self._seconds())
        keep = self.setup.config.checkpoint.keep
        save_checkpoint(self.writer.folder, self.state, self.conditions, keep=keep)
        self.saved = self.state.at

    def _status(self, state: str, message: str = "") -> None:
        self.writer.status(state, step=self.state.at.step, message=message, seconds=self._seconds())

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._start


def _probe_states(problems: Sequence[Problem], model: LanguageModel, max_tokens: int) -> Responses | None:
    """One response of the start policy to each problem; None when there is none."""
    if not problems:
        return None
    return model.sample(dict(enumerate(problems)), num_samples=1, max_tokens=max_tokens, key=0)
