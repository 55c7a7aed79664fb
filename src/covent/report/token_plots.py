"""The tokens of each update as a whole: their covariance, its tail, what the controls took, and polarity."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from covent.logs.run_folder import END_STEPS
from covent.readings import COVARIANCE_EDGES
from covent.report import numbers as n
from covent.report.agreement import sum_by_step
from covent.report.chart import INK, MUTED, OKABE_ITO, Chart, Style, figure, line, stacked, table
from covent.report.plots import running_mean
from covent.store.reader import Run
from covent.store.schema import UpdateRow

QUANTILES = {"min": 0.35, "p01": 0.5, "p50": 1.0, "p90": 0.8, "p99": 0.9, "p99.9": 0.65, "max": 0.35}
"""Quantiles of the token covariance that are drawn, with their opacity."""

TOP_SHARES = ("0.0002", "0.002", "0.02", "0.2", "0.5")
"""The shares of the paper's Table 1, as rows name them."""

_TICKS = (-10, -1, -0.1, -0.01, 0.01, 0.1, 1, 10)
_STRETCHES = ("first third", "middle third", "last third")


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
    for name, bound in thresholds(run).items():
        chart.add_trace(line([steps[0], steps[-1]], [bound] * 2, name, INK, dash="longdash", width=1.2))
    return Chart(
        anchor="covariance",
        title=style.label,
        y_label="token covariance (log π − mean)(A − mean)",
        caption="Quantiles, median over the updates of each rollout step. Most tokens sit at 0; the few in the upper"
        " tail drive entropy down. Clip-Cov draws from the band between its two bounds, KL-Cov from the top.",
        figure=chart,
        table=table(["step", *columns], steps, *columns.values()),
        links="x",
    )


def histogram_chart(run: Run, style: Style) -> Chart | None:
    """Where the covariances of all tokens lie, in each third of the run, with the thresholds of the controls."""
    rows = [(row.step, row.covariance.histogram) for row in run.updates if row.covariance.histogram is not None]
    if not rows:
        return None
    last = rows[-1][0] + 1
    counts = np.zeros((3, len(COVARIANCE_EDGES) + 1))
    for step, histogram in rows:
        counts[min(2, 3 * step // last)] += histogram
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    chart = figure("token covariance")
    x = list(range(counts.shape[1]))
    for place, name in enumerate(_STRETCHES):
        y = [value if value > 0 else None for value in shares[place].tolist()]
        trace = line(x, y, name, style.color, dash=("dot", "dash", "solid")[place], opacity=(0.55, 0.75, 1.0)[place])
        trace.update(line_shape="hvh", customdata=bin_names(), hovertemplate="%{customdata}: %{y:.3%}<extra></extra>")
        chart.add_trace(trace)
    floor = float(shares[shares > 0].min())
    for name, bound in (thresholds(run) | _top_threshold(run, counts.sum(axis=0))).items():
        at = bin_place(bound)
        chart.add_trace(line([at, at], [floor, 1.0], name, INK, dash="longdash", width=1.2))
    chart.update_xaxes(tickvals=[bin_place(tick) for tick in _TICKS], ticktext=[f"{tick:g}" for tick in _TICKS])
    chart.update_yaxes(type="log", tickformat=".2~p", dtick=1)
    return Chart(
        anchor="histogram",
        title=style.label,
        y_label="share of the tokens in a bin",
        caption="Both axes are logarithmic: four bins a decade of covariance at either sign, what is next to 0 in the"
        " middle. Dashed lines are the thresholds of the control; ≈ marks one that was read off this histogram.",
        note=f"{int(counts.sum())} tokens of {len(rows)} updates.",
        figure=chart,
        table=table(["covariance", *_STRETCHES], bin_names(), *shares.tolist()),
    )


def tail_chart(run: Run, style: Style) -> Chart | None:
    """The share of all positive covariance that the top tokens hold, over rollout steps."""
    if not run.updates:
        return None
    chart, columns = figure("rollout step"), {}
    steps = sorted({row.step for row in run.updates})
    for place, share in enumerate(TOP_SHARES):
        found = _by_step(run.updates, partial(_held, share=share))
        name = f"top {n.share(float(share))}"
        columns[name] = [found.get(step) for step in steps]
        if found:
            y = [found.get(step) for step in steps]
            chart.add_trace(line(steps, y, name, style.color, opacity=(0.4, 0.6, 1.0, 0.8, 0.6)[place]))
            chart.data[-1].update(line_dash=("dot", "dashdot", "solid", "dash", "longdash")[place])
    if not chart.data:
        return None
    for share in TOP_SHARES:
        within = _by_step(run.updates, partial(_mean_within, share=share))
        columns[f"mean covariance, top {n.share(float(share))}"] = [within.get(step) for step in steps]
    chart.update_yaxes(tickformat=".0%", range=[0, 1.02])
    told = tail_table(run)
    return Chart(
        anchor="tail",
        title=style.label,
        y_label="share of the positive covariance",
        caption="How concentrated the push on entropy is. Mean over the updates of a step; a share of less than one"
        " token has no value.",
        note="Mean covariance within the top: "
        + ", ".join(f"{n.share(float(share))}: {n.plain(mean)}" for share, mean, _ in told)
        + ".",
        figure=chart,
        table=table(["step", *columns], steps, *columns.values()),
        links="x",
    )


def _held(row: UpdateRow, share: str) -> float | None:
    return row.covariance.positive_shares.get(share)


def _mean_within(row: UpdateRow, share: str) -> float | None:
    return row.covariance.top_means.get(share)


def tail_table(run: Run) -> list[tuple[str, float | None, float | None]]:
    """The paper's Table 1 for a run: each top share with the mean covariance in it and its share of the positive part.

    Both are means over the updates that had a token in the share.
    """
    found = []
    for share in TOP_SHARES:
        means = [value for row in run.updates if (value := row.covariance.top_means.get(share)) is not None]
        held = [value for row in run.updates if (value := row.covariance.positive_shares.get(share)) is not None]
        found.append((share, float(np.mean(means)) if means else None, float(np.mean(held)) if held else None))
    return found


def polarity_chart(run: Run, style: Style) -> Chart | None:
    """What the tokens of a step push up and down, and the balance of both."""
    rows = [row for row in run.updates if row.polarity is not None]
    if not rows:
        return None
    at = np.array([row.step for row in rows], dtype=np.int64)
    readings = [row.polarity for row in rows if row.polarity is not None]
    steps, tokens = sum_by_step(at, _floats([reading.num_tokens for reading in readings]))
    raising = sum_by_step(at, _floats([reading.raising for reading in readings]))[1] / tokens
    lowering = sum_by_step(at, _floats([reading.lowering for reading in readings]))[1] / tokens
    share = sum_by_step(at, _floats([reading.num_raising for reading in readings]))[1] / tokens
    chart, x = figure("rollout step"), steps.tolist()
    chart.add_trace(line(x, running_mean(raising.tolist()), "tokens that raise entropy", OKABE_ITO[1]))
    chart.add_trace(line(x, running_mean(lowering.tolist()), "tokens that lower it", OKABE_ITO[0]))
    chart.add_trace(line(x, running_mean((raising + lowering).tolist()), "balance", INK, width=2.6))
    chart.add_trace(line([x[0], x[-1]], [0.0, 0.0], "zero", MUTED, width=1, in_legend=False))
    return Chart(
        anchor="polarity",
        title=style.label,
        y_label="nats per token and unit of step size",
        caption="Polarity −A (log π + H) of each sampled token: its first-order push on the entropy of its own state."
        f" Means over all tokens of a step, {END_STEPS}-step running mean. Below zero the balance lowers entropy.",
        note=f"Over the whole run {n.percent(float((share * tokens).sum() / tokens.sum()))} of the tokens raise"
        f" entropy; the balance is {n.plain(float(((raising + lowering) * tokens).sum() / tokens.sum()))}.",
        figure=chart,
        table=table(
            ["step", "share of tokens that raise", "raising", "lowering", "balance"],
            x,
            share.tolist(),
            raising.tolist(),
            lowering.tolist(),
            (raising + lowering).tolist(),
        ),
        links="x",
    )


def thresholds(run: Run) -> dict[str, float]:
    """The covariances at which a control begins and ends, by the names of its settings."""
    section = run.header.config.get("control")
    sections = section if isinstance(section, list) else [section]
    settings = {key: value for each in sections if isinstance(each, dict) for key, value in each.items()}
    found = {key: settings.get(key) for key in ("clip_cov_lb", "clip_cov_ub")}
    return {f"{key} {value:g}": float(value) for key, value in found.items() if isinstance(value, int | float)}


def bin_place(covariance: float) -> float:
    """Where a covariance lies on the histogram's axis: bin i reaches from i - 0.5 to i + 0.5."""
    middle = len(COVARIANCE_EDGES) // 2
    smallest = COVARIANCE_EDGES[middle]
    size = abs(covariance)
    away = 0.5 * size / smallest if size < smallest else 0.5 + 4 * math.log10(size / smallest)
    return middle + math.copysign(away, covariance)


def bin_names() -> list[str]:
    """The bins of `CovarianceTail.histogram` in words."""
    edges = [f"{n.plain(edge, 2)}" for edge in COVARIANCE_EDGES]
    inner = [f"{low} to {high}" for low, high in itertools.pairwise(edges)]
    return [f"up to {edges[0]}", *inner, f"above {edges[-1]}"]


def _top_threshold(run: Run, counts: NDArray[np.float64]) -> dict[str, float]:
    """Where KL-Cov's share of the tokens begins, as far as the bins tell: the lower edge of the bin it falls in."""
    section = run.header.config.get("control")
    sections = section if isinstance(section, list) else [section]
    shares = [each.get("kl_cov_ratio") for each in sections if isinstance(each, dict)]
    share = next((share for share in shares if isinstance(share, float)), None)
    if share is None or counts.sum() == 0:
        return {}
    above = np.cumsum(counts[::-1])[::-1] / counts.sum()
    place = int(np.searchsorted(-above, -share, side="right")) - 1
    return {f"top {n.share(share)} ≈ {n.plain(COVARIANCE_EDGES[place - 1], 2)}": COVARIANCE_EDGES[place - 1]}


def _by_step(rows: Sequence[UpdateRow], of: Callable[[UpdateRow], float | None]) -> dict[int, float]:
    """Mean over the updates of each step that have a value."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if (value := of(row)) is not None:
            found.setdefault(row.step, []).append(value)
    return {step: float(np.mean(values)) for step, values in found.items()}


def _floats(values: Sequence[float]) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)


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
        chart.add_trace(line(x, wanted, f"{style.label}, asked", style.color, dash="dash", width=1.4, run=style.run))
        chart.add_trace(
            line(x, running_mean(realised), f"{style.label}, touched", style.color, width=2.2, run=style.run)
        )
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
        links="x",
    )


def _remarks(label: str, rows: Sequence[UpdateRow]) -> list[str]:
    """What a control remarked, except where it took all candidates or found none, which the plot shows."""
    notes = [
        row.control.note for row in rows if not row.control.took_all_candidates and row.control.num_candidates != 0
    ]
    return [f"{label}, in {notes.count(n)} of {len(rows)} updates: “{n}”" for n in dict.fromkeys(filter(None, notes))]
