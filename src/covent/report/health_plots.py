"""Whether the run had something to learn from: its groups, and the verifier that judged them."""

from __future__ import annotations

from collections.abc import Sequence

from covent.readings import Mean
from covent.report import numbers as n
from covent.report.chart import INK, MUTED, OKABE_ITO, Chart, Style, figure, line, table
from covent.report.plots import running_mean
from covent.store.reader import Run

FAULTS = ("time-out", "crash", "error")
"""Verdicts that are no plain judgement, as steps count them."""

LOOKS = {
    "cut off by length": (MUTED, "solid"),
    "no answer found": (OKABE_ITO[4], "solid"),
    "time-out": (OKABE_ITO[3], "dash"),
    "crash": (OKABE_ITO[0], "dot"),
    "error": (OKABE_ITO[1], "dashdot"),
}
"""Colour and dash of each share of the verifier's plot."""


def group_chart(run: Run, style: Style) -> Chart | None:
    """Shares of groups that teach nothing, since all their responses were right or all wrong, and of those kept."""
    rows = [row for row in run.steps if row.num_groups]
    if not rows:
        return None
    steps = [row.step for row in rows]
    shares = {
        "all right": [row.num_all_right / row.num_groups for row in rows],
        "all wrong": [row.num_all_wrong / row.num_groups for row in rows],
        "kept": [row.num_kept_groups / row.num_groups for row in rows],
    }
    chart = figure("rollout step")
    for (name, values), color, dash in zip(
        shares.items(), (OKABE_ITO[2], OKABE_ITO[0], INK), ("solid", "dash", "dot"), strict=True
    ):
        chart.add_trace(line(steps, running_mean(values), name, color, dash=dash))
    chart.update_yaxes(tickformat=".0%", range=[-0.02, 1.02])
    rounds = [row.num_generations for row in rows]
    again = f" Up to {max(rounds)} generation rounds a step." if max(rounds) > 1 else ""
    total = sum(row.num_groups for row in rows)
    idle = sum(row.num_all_right + row.num_all_wrong for row in rows) / total
    return Chart(
        anchor="groups",
        title=style.label,
        y_label="share of the groups",
        caption="Groups whose responses all have the same reward give no gradient: they were sampled for nothing. Kept"
        " are those that went into the updates. Running means.",
        note=f"Over the run {n.percent(idle)} of {total} groups were all right or all wrong.{again}",
        figure=chart,
        table=table(["step", *shares, "generation rounds"], steps, *shares.values(), rounds),
        about="shares of the groups, and how often it was generated in the step",
        links="x",
    )


def verifier_chart(run: Run, style: Style) -> Chart | None:
    """Shares of responses that were cut off, held no answer, or could not be judged properly."""
    rows = [row for row in run.steps if row.reward.count or row.verdicts]
    if not rows:
        return None
    steps = [row.step for row in rows]
    judged = any(row.verdicts for row in rows)
    responses = [max(sum(row.verdicts.values()), row.reward.count, 1) for row in rows]
    shares: dict[str, list[float | None]] = {"cut off by length": _values([row.truncated for row in rows])}
    if any(row.unparsable.count for row in rows):
        shares["no answer found"] = _values([row.unparsable for row in rows])
    for verdict in FAULTS if judged else ():
        shares[verdict] = [row.verdicts.get(verdict, 0) / count for row, count in zip(rows, responses, strict=True)]
    if all(row.error is not None for row in rows):
        shares["error"] = _values([row.error for row in rows if row.error is not None])
    chart = figure("rollout step")
    for name, values in shares.items():
        known = [0.0 if value is None else value for value in values]
        color, dash = LOOKS[name]
        chart.add_trace(line(steps, running_mean(known), name, color, dash=dash))
    highest = max(value or 0.0 for values in shares.values() for value in values)
    chart.update_yaxes(tickformat=".1~%", range=[-0.02 * max(highest, 0.01), 1.05 * max(highest, 0.01)])
    totals = {name: sum(row.verdicts.get(name, 0) for row in rows) for name in FAULTS}
    told = ", ".join(f"{count} {name}" for name, count in totals.items() if count) or "no time-out, crash or error"
    told = f"{told}." if judged else "how they were judged was not recorded."
    return Chart(
        anchor="verifier",
        title=style.label,
        y_label="share of the responses",
        caption="Time-outs and crashes are the answer's own doing and count as wrong; what could not be judged is in no"
        " baseline and carries no gradient. A verifier that fails teaches the wrong thing. Running means.",
        note=f"In {sum(responses)} training responses: {told} Rows of the data set left out: {len(run.rejected_rows)}.",
        figure=chart,
        table=table(["step", *shares], steps, *shares.values()),
        links="x",
    )


def _values(means: Sequence[Mean]) -> list[float | None]:
    return [mean.value for mean in means]
