"""Why entropy changed: predicted, accounted for and observed, step by step, and by cause."""

from __future__ import annotations

import numpy as np

from covent.report import numbers as n
from covent.report.agreement import correlation, slope
from covent.report.chart import INK, MUTED, OKABE_ITO, Chart, Style, dots, figure, line, table
from covent.report.probes import by_rollout_step, probe_series
from covent.store.reader import Run


def entropy_change_chart(run: Run, style: Style) -> Chart | None:
    """Predicted, accounted and observed entropy change, added up over the rollout steps, and what is left over."""
    single = probe_series(run)
    if single is None:
        return None
    series = by_rollout_step(single)
    steps, observed = series.step.tolist(), np.cumsum(series.observed)
    chart = figure("rollout step")
    for name, predicted, color, dash in (
        ("Theorem 1", series.explained["theorem 1"], OKABE_ITO[3], "dot"),
        ("Theorem 2", series.explained["theorem 2"], OKABE_ITO[5], "dashdot"),
    ):
        stretch, label = _stretched(name, float(predicted.sum()), float(observed[-1]))
        chart.add_trace(line(steps, (stretch * np.cumsum(predicted)).tolist(), label, color, dash=dash))
    chart.add_trace(line(steps, observed.tolist(), "observed", INK, width=3.4, opacity=0.45))
    accounted = np.cumsum(series.explained["accounted"])
    chart.add_trace(line(steps, accounted.tolist(), "Lemma 1", OKABE_ITO[2], dash="dash"))
    rest = observed - accounted
    chart.add_trace(line(steps, rest.tolist(), "left over", MUTED, width=1.4))
    sums = [np.cumsum(values).tolist() for values in series.explained.values()]
    names = ["step", "observed", *series.explained, "left over by Lemma 1"]
    return Chart(
        anchor="change",
        title=style.label,
        y_label="entropy change so far, nats",
        note=f"At the end Lemma 1 gives {n.nats(float(accounted[-1]))}, observed were {n.nats(float(observed[-1]))}:"
        f" {n.nats(float(rest[-1]))} left over.",
        caption="Lemma 1 accounts for a step from the logits before and after it; where it lies on the observed line,"
        " it explains the change. It leaves out what is of second order in a step: little each time, but where it keeps"
        " one sign it adds up, and the lines part. Theorems 1 and 2 predict from the batch before the step, as minus"
        " the covariance times the step size of a plain gradient step. The optimizer's steps are of another size, so"
        " their lines are stretched by the factor in the legend to end where the observed one does: only their shape"
        " speaks.",
        figure=chart,
        table=table(names, steps, observed.tolist(), *sums, rest.tolist()),
        about="entropy change since the start on the probe states, nats",
        links="x",
    )


def agreement_chart(run: Run, style: Style) -> Chart | None:
    """Accounted and predicted against observed entropy change, one point a rollout step."""
    single = probe_series(run)
    if single is None:
        return None
    series = by_rollout_step(single)
    steps, observed, accounted = series.step.tolist(), series.observed, series.explained["accounted"]
    predicted = series.explained["theorem 2"]
    chart = figure("accounted or predicted, nats per step")
    ends = [float(min(observed.min(), accounted.min())), float(max(observed.max(), accounted.max()))]
    chart.add_trace(line(ends, ends, "identity", MUTED, width=1))
    stretch, label = _stretched("Theorem 2", float(predicted.sum()), float(observed.sum()))
    hover = "step %{customdata}<br>%{x:.3g} → %{y:.3g}<extra></extra>"
    for name, values, color, symbol in (
        (label, stretch * predicted, OKABE_ITO[5], "diamond-open"),
        ("Lemma 1", accounted, OKABE_ITO[2], "circle"),
    ):
        points = dots(values.tolist(), observed.tolist(), name, color, symbol=symbol, size=6, hover=hover, data=steps)
        chart.add_trace(points.update(opacity=0.75))
    columns = [values.tolist() for values in series.explained.values()]
    return Chart(
        anchor="agreement",
        title=style.label,
        y_label="observed, nats per rollout step",
        caption="One point a rollout step. On the line, the number says exactly what happened. Theorem 2 is stretched"
        " as above.",
        note=f"Lemma 1: correlation {n.fixed(correlation(accounted, observed), 3)}, slope"
        f" {n.fixed(slope(accounted, observed))}. Theorem 2: correlation {n.fixed(correlation(predicted, observed))}.",
        figure=chart,
        table=table(["step", "observed", *series.explained], steps, observed.tolist(), *columns),
        about="entropy change of each rollout step on the probe states, nats",
        links="data",
    )


def attribution_chart(run: Run, style: Style) -> Chart | None:
    """The entropy change of the attributed optimizer steps by cause, added up, with the rest that no cause explains."""
    rows = run.attributions
    if not rows:
        return None
    steps, observed = [row.step for row in rows], np.cumsum([row.observed for row in rows])
    causes = list(dict.fromkeys(cause for row in rows for cause in row.parts))
    parts = {cause: np.cumsum([row.parts.get(cause, 0.0) for row in rows]) for cause in causes}
    rest = np.cumsum([row.unattributed + row.second_order_logits + row.second_order_entropy for row in rows])
    chart = figure("rollout step")
    for place, (cause, values) in enumerate(parts.items()):
        color = OKABE_ITO[place % len(OKABE_ITO)]
        dash = ("solid", "dash", "dot", "dashdot")[place // len(OKABE_ITO) % 4]
        chart.add_trace(line(steps, values.tolist(), cause, color, dash=dash))
    chart.add_trace(line(steps, rest.tolist(), "unexplained rest", MUTED, dash="dot"))
    chart.add_trace(line(steps, observed.tolist(), "observed", INK, width=3.4, opacity=0.45))
    share = abs(float(rest[-1])) / size if (size := abs(float(observed[-1]))) else None
    return Chart(
        anchor="attribution",
        title=style.label,
        y_label="entropy change so far, nats",
        caption="First-order change by cause on the probe states, summed over the optimizer steps that were attributed."
        " The rest is of second order, or named by no cause (docs/attribution.md).",
        note=f"{len(rows)} of {len(run.updates)} optimizer steps were attributed. Observed in them"
        f" {n.nats(float(observed[-1]))}; unexplained {n.nats(float(rest[-1]))} ({n.share(share)}).",
        figure=chart,
        table=table(
            ["step", "update", "observed", *causes, "unexplained rest"],
            steps,
            [row.update for row in rows],
            observed.tolist(),
            *(values.tolist() for values in parts.values()),
            rest.tolist(),
        ),
        links="x",
    )


def _stretched(name: str, predicted: float, observed: float) -> tuple[float, str]:
    """The factor that brings a predicted total to the observed one, and the name that says so; 1 if signs differ."""
    if predicted * observed <= 0:
        return 1.0, name
    return observed / predicted, f"{name} × {n.plain(observed / predicted, 2)}"
