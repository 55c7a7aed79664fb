"""Three synthetic runs of full length, written once for all tests of the report."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from covent.report.summary import RunSummary, summarise
from covent.store.reader import Run, read_run
from tests.support.synthetic import SHAPES, write_run


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """One run a method, by method: grpo, clip_cov, kl_cov."""
    folder = tmp_path_factory.mktemp("runs")
    return {method: read_run(write_run(folder / method, method)) for method in SHAPES}


@pytest.fixture(scope="session")
def summaries(runs: dict[str, Run]) -> dict[str, RunSummary]:
    """Their summaries, by method."""
    return {method: summarise(run) for method, run in runs.items()}


@pytest.fixture(autouse=True, scope="session")
def few_positions_of_the_slider() -> Iterator[None]:
    """Each position is a fit of a second or so; two show what nine would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("covent.report.law_plots.FRACTIONS", (0.3, 0.6))
        yield
