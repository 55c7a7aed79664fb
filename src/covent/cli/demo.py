"""`covent demo`: GRPO, Clip-Cov and KL-Cov from one start, then the report."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from covent.cli.extras import require_extra
from covent.cli.folders import next_free
from covent.cli.options import option
from covent.cli.output import Outcome, Output

if TYPE_CHECKING:
    from covent.train.demo import DemoRun


ATTRIBUTE_EVERY = 20
"""Optimizer steps between two whose entropy change is split by cause: some thirty points a run, at a few percent more
time."""


@dataclass
class Demo:
    """See entropy collapse and its two cures: train GRPO, Clip-Cov and KL-Cov from one start and write the report."""

    out: Annotated[Path | None, option("DIR")] = None
    """Folder to make. If not given: runs/demo, or the next free runs/demo-2, …"""
    seed: int = 0
    """Seed of everything: corpus, warm start, problems, sampling."""
    steps: Annotated[int | None, option("INT")] = None
    """Rollout steps of each run. If not given: as many as the trainer's default settings say."""
    json: bool = False
    """Print one JSON line last; text goes to standard error."""

    @cached_property
    def folder(self) -> Path:
        """The folder of the demo, with one run folder for each method: as asked, or the next free one."""
        return self.out or next_free(Path("runs") / "demo")

    def run(self, output: Output) -> Outcome:
        """Train, write the report, and say what happened and how to go on."""
        require_extra("train", "covent demo")
        from covent.stopping import on_signals

        with on_signals():
            return self._run(output)

    def _run(self, output: Output) -> Outcome:
        from covent.cli.summary import summary_tables
        from covent.report.compare import labels
        from covent.report.page import write_page
        from covent.report.subject import subjects
        from covent.store.reader import read_run
        from covent.train.config_file import parse_config
        from covent.train.demo import demo_runs, require_free

        require_free(self.folder)
        asked = {"seed": self.seed, "attribute_every": ATTRIBUTE_EVERY} | (
            {} if self.steps is None else {"steps": self.steps}
        )
        planned = demo_runs(self.folder, parse_config(asked, source="covent demo"))
        output.say(
            f"{', '.join(run.name for run in planned)} from one warm start, seed {self.seed}, in {self.folder}\n"
        )
        self._train(planned, output)
        runs = [read_run(run.folder) for run in planned]
        shown = subjects(runs)
        report = write_page(shown, self.folder / "report.html")
        summaries = [subject.summary for subject in shown if subject.summary is not None]
        output.console.print(summary_tables(labels(runs), summaries, output.console.width))
        output.say(
            f"\nreport: {report}"
            f"\ngo on:  covent train {planned[1].folder}.yaml control.clip_cov_ratio=0.006"
            "\n        what each number means: README.md"
        )
        return Outcome({"report": str(report), "runs": [summary.model_dump(mode="json") for summary in summaries]})

    def _train(self, planned: list[DemoRun], output: Output) -> None:
        """All runs, with their state on the terminal while they go on."""
        from rich.live import Live

        from covent.cli.live import LiveRun, live_table
        from covent.train.demo import demo

        runs = [LiveRun(run.name, run.folder, run.config.steps) for run in planned]
        warm_steps = planned[0].config.warm_start.steps
        warm_start = (0, warm_steps)
        with Live(live_table(runs, warm_start), console=output.console, auto_refresh=False) as live:

            def show() -> None:
                for run in runs:
                    run.read()
                live.update(live_table(runs, warm_start), refresh=True)

            def on_warm_start(done: int, total: int) -> None:
                nonlocal warm_start
                warm_start = (done, total)
                show()

            def on_poll() -> None:
                nonlocal warm_start
                warm_start = (warm_steps, warm_steps)
                show()

            demo(self.folder, planned, on_warm_start=on_warm_start, on_poll=on_poll)
