"""The plots of the report, each with a caption and a table. A function returns None when it has nothing to show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from covent.law import Forecast, fit_line
from covent.law import accuracy as law_accuracy
from covent.law.series import counted
from covent.logs.results import FitResult
from covent.logs.run_folder import END_STEPS, entropies
from covent.report import numbers as n
from covent.report.accuracy import accuracy_changes
from covent.report.agreement import correlation, slope, sum_by_step
from covent.report.chart import FAINT, INK, MUTED, OKABE_ITO, Chart, Style, dots, figure, line, stacked, table
from covent.report.probes import by_rollout_step, probe_series
from covent.report.summary import LawSummary
from covent.store.reader import Run
from covent.store.schema import Estimate, UpdateRow
from covent.store.series import law_series

FORECAST_COLORS = {0.15: OKABE_ITO[4], 0.30: OKABE_ITO[5]}
"""Orange for the forecast from 15 %, sky blue for the one from 30 %."""

QUANTILES = {"min": 0.35, "p01": 0.5, "p50": 1.0, "p90": 0.8, "p99": 0.9, "p99.9": 0.65, "max": 0.35}
"""Quantiles of the token covariance that are drawn, with their opacity."""


def entropy_chart(runs: Sequence[Run], styles: Sequence[Style]) -> Chart | None:
    """Policy entropy against rollout step: single steps faint, their running mean strong."""
    chart, parts = figure("rollout step"), []
    for run, style in zip(runs, styles, strict=True):
        steps, values = entropies(run)
        if not values:
            continue
        smooth = running_mean(values)
        if len(runs) <= len(OKABE_ITO):
            chart.add_trace(line(steps, values, style.label, style.color, width=1, opacity=0.35, in_legend=False))
        chart.add_trace(line(steps, smooth, style.label, style.color, dash=style.dash, width=2.4))
        parts.append((style.label, table(["step", "entropy, nats", f"{END_STEPS}-step mean"], steps, values, smooth)))
    if not parts:
        return None
    chart.update_yaxes(rangemode="tozero")
    return Chart(
        anchor="entropy",
        title="Policy entropy",
        y_label="nats",
        caption=f"Thin: each rollout step. Strong: the mean of the {END_STEPS} steps up to it. A line near 0 is a"
        " policy that samples one answer again and again. The logarithmic axis shows whether it still falls.",
        figure=chart,
        table=stacked(parts),
        log_switch=True,
    )


def accuracy_chart(runs: Sequence[Run], styles: Sequence[Style]) -> Chart | None:
    """Validation accuracy against step, with the training reward behind it."""
    chart, parts = figure("rollout step"), []
    for run, style in zip(runs, styles, strict=True):
        known = [(row.step, row.reward.value) for row in run.steps if row.reward.value is not None]
        steps, rewards = [step for step, _ in known], running_mean([value for _, value in known])
        rows = sorted((row for row in run.evaluations if row.split == "validation"), key=lambda row: row.step)
        chart.add_trace(line(steps, rewards, f"{style.label}, training", style.color, width=1.2, opacity=0.45))
        if rows:
            at, values = [row.step for row in rows], [row.avg.value for row in rows]
            trace = line(at, values, f"{style.label}, validation", style.color, dash=style.dash)
            trace.update(mode="lines+markers", marker={"color": style.color, "symbol": style.symbol, "size": 5})
            chart.add_trace(trace)
        columns = ["step", f"training reward, {END_STEPS}-step mean", "validation avg@k"]
        validation = {row.step: row.avg.value for row in rows}
        parts.append((style.label, table(columns, steps, rewards, [validation.get(step) for step in steps])))
    if not any(part.rows for _, part in parts):
        return None
    chart.update_yaxes(tickformat=".0%")
    # Markers at step 0 would make the axis begin below it.
    last = max(run.steps[-1].step for run in runs if run.steps)
    chart.update_xaxes(range=[-0.01 * last - 0.5, last + 0.01 * last + 0.5])
    return Chart(
        anchor="accuracy",
        title="Accuracy",
        y_label="share right",
        caption="Strong, with markers: avg@k on fixed validation problems that no training prompt repeats. Faint: the"
        f" training reward, mean of the {END_STEPS} steps up to it.",
        figure=chart,
        table=stacked(parts),
    )


def law_chart(run: Run, style: Style, law: LawSummary) -> Chart | None:
    """Accuracy against entropy with the fitted law, its ceiling and its rival, for one run."""
    fitted = law.fit
    if fitted is None or fitted.a is None or fitted.b is None or fitted.ceiling is None:
        return None
    series = law_series(run, law.source)
    rival = fit_line(series.entropy, series.accuracy, unit="fraction")
    entropy = np.linspace(0.0, float(series.entropy.max()) * 1.03, 80)
    chart = figure("policy entropy H, nats")
    x = entropy.tolist()
    for forecast in law.forecasts:
        if forecast.law.a is not None and forecast.law.b is not None:
            name = f"law, first {n.percent(forecast.fraction, 0)}"
            y = law_accuracy(entropy, forecast.law.a, forecast.law.b).tolist()
            chart.add_trace(line(x, y, name, FORECAST_COLORS[forecast.fraction], dash="dash", width=1.6))
    if rival.intercept is not None and rival.slope is not None:
        y = (rival.intercept + rival.slope * entropy).tolist()
        chart.add_trace(line(x, y, "line in H", MUTED, dash="dot", width=2.2))
    chart.add_trace(line(x, law_accuracy(entropy, fitted.a, fitted.b).tolist(), "law", INK, width=1.8))
    if fitted.identified:
        ceiling = [fitted.ceiling, fitted.ceiling]
        chart.add_trace(line([0.0, x[-1]], ceiling, "ceiling", MUTED, dash="dash", width=1.0))
    hover = "step %{customdata}<br>H %{x:.4f}<br>R %{y:.3f}"
    at = series.step.tolist()
    name = "points"
    chart.add_trace(
        dots(
            series.entropy.tolist(),
            series.accuracy.tolist(),
            name,
            style.color,
            symbol=style.symbol,
            hover=hover,
            data=at,
        )
    )
    chart.update_yaxes(tickformat=".0%")
    chart.update_xaxes(rangemode="tozero")
    return Chart(
        anchor=f"law-{law.source}",
        title=style.label,
        y_label=f"accuracy R ({'validation avg@k' if law.source == 'validation' else 'training reward'})",
        caption="Time runs to the left. Each point is one validation evaluation against the mean entropy of the steps"
        " around it; such averaging raises R² by itself.",
        note=f"{_ceiling_note(fitted)} R² {n.fixed(fitted.r2, 3)} for the law,"
        f" {n.fixed(rival.r2, 3)} for the straight line, over {counted(fitted.n, 'point')} of"
        f" {counted(law.window or 0, 'step')}.",
        figure=chart,
        table=table(
            ["known at step", "entropy H", "accuracy R"], at, series.entropy.tolist(), series.accuracy.tolist()
        ),
    )


def _ceiling_note(law: FitResult) -> str:
    """The ceiling in a caption, with what its reader must know."""
    if not law.identified or law.ceiling is None:
        return "No ceiling: the law is not identified."
    text = f"Ceiling {n.percent(law.ceiling)}"
    text += "" if law.is_possible else ": above 100 %, impossible; the points do not fix it"
    return f"{text}{'; another curve fits clearly better, so do not rely on it' if law.is_beaten else ''}."


def forecast_chart(run: Run, style: Style, law: LawSummary) -> Chart | None:
    """What the first parts of a run said about the rest, against what happened."""
    if not any(f.unconditional.accuracy or f.conditional.accuracy for f in law.forecasts):
        return None
    series = law_series(run, law.source)
    steps, observed = series.step.tolist(), series.accuracy.tolist()
    chart = figure("rollout step")
    columns: dict[str, dict[float, float]] = {}
    for forecast in law.forecasts:
        color, share = FORECAST_COLORS[forecast.fraction], n.percent(forecast.fraction, 0)
        chart.add_vline(x=forecast.cut, line={"color": color, "width": 1, "dash": "dot"})
        for kind, dash, prediction in (
            ("forecast", "solid", forecast.unconditional),
            ("told later H", "dot", forecast.conditional),
        ):
            if prediction.accuracy is not None:
                name = f"{kind}, {share}"
                chart.add_trace(line(forecast.later_steps, prediction.accuracy, name, color, dash=dash))
                columns[name] = dict(zip(forecast.later_steps, prediction.accuracy, strict=True))
    chart.add_trace(dots(steps, observed, "observed", style.color, symbol=style.symbol, size=6))
    chart.update_yaxes(tickformat=".0%")
    predicted = [[values.get(float(step)) for step in steps] for values in columns.values()]
    return Chart(
        anchor="forecast",
        title=style.label,
        y_label="validation avg@k",
        caption="Solid: the forecast proper; entropy is extrapolated and put into the law, nothing after the vertical"
        " line is used. Dotted: the law told the entropy that was observed later, which tests the law but forecasts"
        " nothing.",
        note="Error at the end: "
        + "; ".join(f"{n.points(f.unconditional.end_error)} from {n.percent(f.fraction, 0)}" for f in law.forecasts)
        + "."
        + (" Above 100 % a curve is impossible." if _is_beyond_reach(law.forecasts) else ""),
        figure=chart,
        table=table(["known at step", "observed", *columns], steps, observed, *predicted),
    )


def _is_beyond_reach(forecasts: Sequence[Forecast]) -> bool:
    """Whether a drawn prediction lies above 100 %."""
    drawn = [f.unconditional.accuracy or [] for f in forecasts] + [f.conditional.accuracy or [] for f in forecasts]
    return any(value > 1 for values in drawn for value in values)


def entropy_change_chart(run: Run, style: Style) -> Chart | None:
    """Predicted, accounted and observed entropy change, added up over the rollout steps."""
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
    accounted = np.cumsum(series.explained["accounted"]).tolist()
    chart.add_trace(line(steps, accounted, "Lemma 1", OKABE_ITO[2], dash="dash"))
    sums = [np.cumsum(values).tolist() for values in series.explained.values()]
    return Chart(
        anchor="change",
        title=style.label,
        y_label="entropy change so far, nats",
        note=f"At the end Lemma 1 gives {n.nats(accounted[-1])}, observed were {n.nats(float(observed[-1]))}.",
        caption="Lemma 1 accounts for a step from the logits before and after it; where it lies on the observed line,"
        " it explains the change. It leaves out what is of second order in a step: little each time, but where it keeps"
        " one sign it adds up, and the lines part. Theorems 1 and 2 predict from the batch before the step, as minus"
        " the covariance times the step size of a plain gradient step. The optimizer's steps are of another size, so"
        " their lines are stretched by the factor in the legend to end where the observed one does: only their shape"
        " speaks.",
        figure=chart,
        table=table(["step", "observed", *series.explained], steps, observed.tolist(), *sums),
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
    hover = "step %{customdata}<br>%{x:.3g} → %{y:.3g}"
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
    )


def _stretched(name: str, predicted: float, observed: float) -> tuple[float, str]:
    """The factor that brings a predicted total to the observed one, and the name that says so; 1 if signs differ."""
    if predicted * observed <= 0:
        return 1.0, name
    return observed / predicted, f"{name} × {n.plain(observed / predicted, 2)}"


def covariance_chart(run: Run, style: Style) -> Chart | None:
    """Quantiles of the token covariance over rollout steps, with the band of Clip-Cov where there is one."""
    if not run.updates:
        return None
    by_step: dict[int, list[dict[str, float]]] = {}
    for row in run.updates:
        by_step.setdefault(row.step, []).append(row.covariance.quantiles | {"mean": row.covariance.mean})
    steps = sorted(by_step)
    names = [name for name in QUANTILES if all(name in reading for step in steps for reading in by_step[step])]
    columns = {
        name: [float(np.median([reading[name] for reading in by_step[step]])) for step in steps]
        for name in [*names, "mean"]
    }
    chart = figure("rollout step")
    for place, name in enumerate(names):
        color, dash = (INK, "solid") if name == "p50" else (style.color, ("dot", "solid", "solid", "dash")[place % 4])
        chart.add_trace(line(steps, columns[name], name, color, dash=dash, width=1.6, opacity=QUANTILES[name]))
    section = run.header.config.get("control")
    sections = section if isinstance(section, list) else [section]
    bounds = {key: value for each in sections if isinstance(each, dict) for key, value in each.items()}
    for key in ("clip_cov_lb", "clip_cov_ub"):
        if isinstance(bounds.get(key), int | float):
            name = f"{key} {bounds[key]:g}"
            chart.add_trace(line([steps[0], steps[-1]], [bounds[key]] * 2, name, INK, dash="longdash", width=1.2))
    return Chart(
        anchor="covariance",
        title=style.label,
        y_label="token covariance (log π − mean)(A − mean)",
        caption="Median over the updates of each rollout step. Most tokens sit at 0; the few in the upper tail drive"
        " entropy down. Clip-Cov draws from the band between its two bounds, KL-Cov from the top.",
        figure=chart,
        table=table(["step", *columns], steps, *columns.values()),
    )


def share_chart(runs: Sequence[Run], styles: Sequence[Style]) -> Chart | None:
    """Share of tokens a control was asked for and touched, over rollout steps."""
    chart, parts, remarks = figure("rollout step"), [], []
    for run, style in zip(runs, styles, strict=True):
        rows = [row for row in run.updates if row.control.asked_frac is not None and row.control.num_tokens]
        if not rows:
            continue
        at = np.array([row.step for row in rows], dtype=np.int64)
        steps, selected = sum_by_step(at, np.array([row.control.num_selected for row in rows], dtype=np.float64))
        _, tokens = sum_by_step(at, np.array([row.control.num_tokens for row in rows], dtype=np.float64))
        _, asked = sum_by_step(
            at, np.array([(row.control.asked_frac or 0.0) * row.control.num_tokens for row in rows], dtype=np.float64)
        )
        x, realised = steps.tolist(), (selected / tokens).tolist()
        wanted = (asked / tokens).tolist()
        chart.add_trace(line(x, wanted, f"{style.label}, asked", style.color, dash="dash", width=1.4))
        chart.add_trace(line(x, running_mean(realised), f"{style.label}, touched", style.color, width=2.2))
        chart.add_trace(
            line(x, realised, f"{style.label}, touched", style.color, width=0.8, opacity=0.3, in_legend=False)
        )
        parts.append((style.label, table(["step", "asked", "touched"], x, wanted, realised)))
        remarks += _remarks(style.label, rows)
    if not parts:
        return None
    chart.update_yaxes(tickformat=".2~%", rangemode="tozero")
    return Chart(
        anchor="share",
        title="Tokens the control touched",
        y_label="share of the tokens that carry gradient",
        note=" ".join(remarks),
        caption=f"Dashed: what the setting asks for. Strong: what was touched, mean of the {END_STEPS} steps up to it."
        " A little below the dashed line: the number of tokens is rounded down. Far below: there were too few"
        " candidates, and the control took them all.",
        figure=chart,
        table=stacked(parts),
        log_switch=True,
    )


def _remarks(label: str, rows: Sequence[UpdateRow]) -> list[str]:
    """What a control remarked, except where it took all candidates or found none, which the plot shows."""
    notes = [
        row.control.note for row in rows if not row.control.took_all_candidates and row.control.num_candidates != 0
    ]
    return [f"{label}, in {notes.count(n)} of {len(rows)} updates: “{n}”" for n in dict.fromkeys(filter(None, notes))]


def pass_chart(runs: Sequence[Run], styles: Sequence[Style]) -> Chart | None:
    """Every accuracy on the test problems before and after, with intervals."""
    chart, parts = figure(""), []
    changes = [[change for change in accuracy_changes(run) if change.split == "test"] for run in runs]
    if not any(change.end for found in changes for change in found):
        return None
    names = list(dict.fromkeys(change.measure for found in changes for change in found))
    if not names:
        return None
    starting_points = {run.header.start_model for run in runs}
    shared = len(starting_points) == 1 and None not in starting_points
    width = 0.7 / (len(runs) + 1)
    for place, (found, style) in enumerate(zip(changes, styles, strict=True)):
        by_name = {change.measure: change for change in found}
        kept = [name for name in names if name in by_name]
        starts = [(names.index(name), start) for name in kept if (start := by_name[name].start) is not None]
        if starts and (place == 0 or not shared):
            label = "start" if shared else f"{style.label}, start"
            x = [at - 0.35 + width / 2 for at, _ in starts]
            chart.add_trace(_interval_dots(x, [value for _, value in starts], label, MUTED, f"{style.symbol}-open"))
        ends = [(names.index(name), end) for name in kept if (end := by_name[name].end) is not None]
        x = [at - 0.35 + width * (place + 1.5) for at, _ in ends]
        chart.add_trace(_interval_dots(x, [end for _, end in ends], style.label, style.color, style.symbol))
        start_text = [n.estimate(by_name[name].start) for name in kept]
        end_text = [n.estimate(by_name[name].end) for name in kept]
        paired = [n.difference(by_name[name].difference) for name in kept]
        parts.append((style.label, table(["measure", "start", "end", "paired"], kept, start_text, end_text, paired)))
    chart.update_xaxes(tickvals=list(range(len(names))), ticktext=names, range=[-0.5, len(names) - 0.5])
    # On a phone the names do not fit side by side; slanted upwards, the last one stays inside the plot.
    chart.update_xaxes(autotickangles=[0, -45, -90])
    chart.update_yaxes(tickformat=".0%")
    for edge in range(1, len(names)):
        chart.add_vline(x=edge - 0.5, line={"color": FAINT, "width": 1})
    return Chart(
        anchor="pass",
        title="Before and after",
        y_label="share right, with 95 % intervals over problems",
        caption="avg@k: how often a sample is right. pass@k: how often one of k samples is. Where avg@k rises and"
        " pass@k falls, the policy got surer but reaches less. Bars that overlap are compared better by the paired"
        " column.",
        figure=chart,
        table=stacked(parts),
    )


def running_mean(values: Sequence[float], window: int = END_STEPS) -> list[float]:
    """The mean of the last `window` values up to each one; of fewer at the start."""
    return [float(np.mean(values[max(0, i + 1 - window) : i + 1])) for i in range(len(values))]


def _interval_dots(x: Sequence[float], values: Sequence[Estimate], name: str, color: str, symbol: str) -> go.Scatter:
    trace = dots(x, [value.value for value in values], name, color, symbol=symbol, size=9, hover="%{y:.1%}")
    trace.update(
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [value.high - value.value for value in values],
            "arrayminus": [value.value - value.low for value in values],
            "color": color,
            "thickness": 1.5,
            "width": 3,
        }
    )
    return trace
