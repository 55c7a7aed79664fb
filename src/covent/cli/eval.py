"""`covent eval`: what a model scores on a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from covent.cli.extras import require_extra
from covent.cli.options import option
from covent.cli.output import Outcome, Output

if TYPE_CHECKING:
    from rich.table import Table

    from covent.store.scores import OverSources, Score, Scores, SourceScores


@dataclass
class Eval:
    """Sample a model on a data set: avg@k, maj@k, pass@k and entropy, by source and over all of them."""

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """Folder of a transformers causal LM, or of a run, whose final model is meant."""
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """Rows in verl's form or TRL's: a .jsonl or .parquet file, or a folder. All of its rows are used."""
    settings: Annotated[tyro.conf.Positional[tuple[str, ...]], option("key=value ...")] = ()
    """For example samples_per_prompt=8 temperature=0.6 max_response_tokens=1024 task.verifier=math; all of them are
    explained in ScoringSettings of covent.train.config."""
    out: Annotated[Path | None, option("FILE")] = None
    """Write every response with its verdict to this file, one JSON line each, after each batch of
    responses_per_forward responses."""
    skip_bad: bool = False
    """Leave out rows of the data that cannot be used, as task.skip_bad=true."""
    json: bool = False
    """Print one JSON line last; text goes to standard error."""

    def run(self, output: Output) -> Outcome:
        """Sample and judge, then print the scores."""
        require_extra("train", "covent eval")
        from covent.stopping import on_signals

        with on_signals():
            from covent.train.config import ScoringSettings
            from covent.train.config_file import apply_overrides, parsed
            from covent.train.scoring import score_model

            asked: dict[str, object] = {"task": {"name": "data", "path": str(self.data)}}
            apply_overrides(asked, [*self.settings, *(["task.skip_bad=true"] if self.skip_bad else [])])
            settings = parsed(ScoringSettings, asked, source="covent eval")
            with output.progress() as progress:
                found = score_model(self.model, settings, out=self.out, progress=progress, warn=output.warn)
        output.say(f"{self.model} on {self.data}")
        output.console.print(scores_table(found))
        output.say(*_notes(found))
        return Outcome({"model": str(self.model), "data": str(self.data), "scores": found.model_dump(mode="json")})


def scores_table(found: Scores) -> Table:
    """One row a source, and both means over them where there are several. Intervals are 95 %."""
    from rich.table import Table

    from covent.report import numbers as n

    names = {"avg": "avg@k", "maj": "maj@k", "pass": "pass@k"}
    table = Table("source", "problems", "k", *names.values(), box=None, pad_edge=False)
    for each in found.sources:
        k = "greedy" if each.temperature == 0 else str(each.num_samples)
        best = each.pass_at.get(_widest(each))
        table.add_row(each.source or "all rows", str(each.num_problems), k, *_cells(each.avg, each.maj, best))
    means: dict[str, OverSources | None] = {
        "mean over samples": found.sample_weighted,
        "mean over sources": found.plain_mean,
    }
    widest = {_widest(each) for each in found.sources}
    for name, over in means.items() if len(found.sources) > 1 else ():
        if over is not None:
            best = over.pass_at.get(next(iter(widest))) if len(widest) == 1 else None
            table.add_row(name, str(found.num_problems), n.MISSING, *_cells(over.avg, over.maj, best))
    return table


def _widest(found: SourceScores) -> str:
    """The largest k of pass@k."""
    return str(max(map(int, found.pass_at), default=0))


def _cells(avg: Score | None, maj: Score | None, best: Score | None) -> list[str]:
    from covent.report import numbers as n

    def percent(score: Score | None) -> str:
        return n.MISSING if score is None else n.percent(score.value)

    if avg is None or avg.low is None or avg.high is None:
        return [percent(avg), percent(maj), percent(best)]
    interval = f"{percent(avg)} [{n.fixed(100 * avg.low, 1)}, {n.fixed(100 * avg.high, 1)}]"
    return [interval, percent(maj), percent(best)]


def _notes(found: Scores) -> list[str]:
    """What stands under the table: what was not an answer, and the entropy."""
    from covent.report import numbers as n

    total = found.num_responses

    def share(name: str) -> str:
        return n.share(sum(getattr(each, name).sum for each in found.sources) / total)

    entropy = found.sources[0].entropy
    for each in found.sources[1:]:
        entropy += each.entropy
    return [
        f"{total} responses: {share('unparsable')} without an answer, {share('truncated')} cut off at the length limit,"
        f" {share('error')} not judged",
        f"entropy {n.nats(entropy.value)} ({entropy.definition})",
    ]
