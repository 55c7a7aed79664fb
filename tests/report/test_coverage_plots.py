"""What is said of pass@k before and after is what the counts of right answers say."""

from __future__ import annotations

import pytest

from covent.report.chart import styles
from covent.report.coverage_plots import first_and_last_test, pass_curves_chart
from covent.store.reader import Run


def told(run: Run, before: list[int], after: list[int]) -> str:
    """The note of the plot, for so many right answers of each problem before and after."""
    ends = [row for row in first_and_last_test(run) if row is not None]
    rows = [
        row.model_copy(update={"num_right": right, "num_problems": len(right)})
        for row, right in zip(ends, (before, after), strict=True)
    ]
    chart = pass_curves_chart([Run(**(vars(run) | {"evaluations": rows}))], styles([run]))
    assert chart is not None
    return chart.note


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ([1, 4, 2, 0], [2, 5, 3, 9], "ahead of its start at every k ("),
        # All samples together are enough for both.
        ([16, 16, 16, 16], [24, 24, 24, 24], "never behind its start ("),
        ([32, 32, 32, 32], [32, 32, 32, 32], "no difference from its start at any k ("),
        # In another order the sums differ in their last bits.
        ([1, 4, 2, 8, 7, 3, 3], [3, 7, 3, 8, 1, 4, 2], "no difference from its start at any k ("),
        ([16, 16, 16, 0], [2, 2, 2, 2], "behind its start at some k, and ahead of it at the largest ("),
        ([4, 4, 4, 4], [32, 32, 32, 0], "its start is ahead from k = "),
    ],
)
def test_who_is_ahead_is_said_exactly(runs: dict[str, Run], before: list[int], after: list[int], words: str) -> None:
    note = told(runs["grpo"], before, after)
    assert f"grpo: {words}" in note
