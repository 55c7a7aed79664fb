"""The tables of docs/law.md, written from the results of `benchmarks.law_coverage` and `benchmarks.law_backtest`."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from covent.law.criterion import DECISIVE_AICC

Row = list[str]

PAPER_RMSE = ("0.9", "0.5 (RMSE)")
"""Of the paper's own predictions from 36 of 236 steps, in percent: on average and at the end (section 2.4)."""

PREDICTIONS = ("forecast", "conditional", "unchanged")
"""The order in which they are shown."""


END = "error at the end (mean of last 3)"
"""How the tables name what `covent.law.forecast` averages over the last `END_POINTS`."""


def write_tables(page: Path, found: dict[str, Any]) -> None:
    """Replace what stands between the page's markers."""
    page.write_text(with_tables(page.read_text(encoding="utf-8"), found), encoding="utf-8")


def with_tables(text: str, found: dict[str, Any]) -> str:
    """The page with the tables of `benchmarks.law_coverage`."""
    for name, table in tables(found).items():
        text = with_table(text, name, table)
    return text


def write_table(page: Path, name: str, table: str) -> None:
    """Replace what stands between the markers of one table."""
    page.write_text(with_table(page.read_text(encoding="utf-8"), name, table), encoding="utf-8")


def with_table(text: str, name: str, table: str) -> str:
    """The page with the block between `<!-- table: NAME -->` and `<!-- /table -->` filled in."""
    begin, end = f"<!-- table: {name} -->\n", "<!-- /table -->"
    head, marker, rest = text.partition(begin)
    assert marker, f"the page has no marker {begin.strip()}"
    return f"{head}{begin}{table}\n{end}{rest.partition(end)[2]}"


def tables(found: dict[str, Any]) -> dict[str, str]:
    """Name → Markdown table."""
    return {
        "coverage": _coverage(found["right"] + found["uneven"]),
        "wrong": _wrong(found["wrong"]),
        "hard": _hard(found["hard"]),
        "paper": _paper(found["paper"]),
        "prefixes": _prefixes(found["paper"]),
        "forecasts": _forecasts(found["forecasts"]),
        "alarms": _alarms(found["alarms"]),
        "saturating": _saturating(found["saturating"]),
        "made": f"Made by covent {found['versions']['covent']}, numpy {found['versions']['numpy']}, Python"
        f" {found['versions']['python']}, {found['machine']}, in {found['seconds'] / 60:.0f} minutes.",
    }


def _markdown(head: Row, rows: list[Row]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "—" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None, digits: int = 2, sign: bool = False) -> str:
    return "—" if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def _coverage(cells: list[dict[str, Any]]) -> str:
    head = ["noise", "points", "coverage", "naive", "ρ known", "width ÷ width with ρ known", "naive width ÷ the same"]
    rows = [
        [
            cell["world"],
            str(cell["n"]),
            _percent(cell["coverage"]),
            _percent(cell["naive_coverage"]),
            _percent(cell["known_coverage"]),
            _number(cell["width_ratio"]),
            _number(cell["naive_width_ratio"]),
        ]
        for cell in cells
    ]
    return _markdown(head, rows)


def _wrong(cells: list[dict[str, Any]]) -> str:
    head = ["world", "points", "coverage", "naive", "width ÷ naive width"]
    rows = [
        [
            cell["world"],
            str(cell["n"]),
            _percent(cell["coverage"]),
            _percent(cell["naive_coverage"]),
            _number(cell["width_over_naive"]),
        ]
        for cell in cells
    ]
    return _markdown(head, rows)


def _hard(cells: list[dict[str, Any]]) -> str:
    head = ["noise", "points", "runs", "coverage", "naive", "ρ known", "the fit says so"]
    rows = [
        [
            cell["world"],
            str(cell["n"]),
            str(cell["num_runs"]),
            _percent(cell["coverage"]),
            _percent(cell["naive_coverage"]),
            _percent(cell["known_coverage"]),
            _percent(cell["said_too_narrow"]),
        ]
        for cell in cells
    ]
    return _markdown(head, rows)


def _paper(rows: list[dict[str, Any]]) -> str:
    head = ["model", "markers", "a (drawn)", "b (drawn)", "ceiling (drawn)", "95 % interval"]
    return _markdown(
        head,
        [
            [
                row["model"],
                str(row["n"]),
                f"{row['a']:.2f} ({row['drawn'][0]:.1f})",
                f"{row['b']:.2f} ({row['drawn'][1]:.1f})",
                f"{row['ceiling']:.2f} ({row['drawn_ceiling']:.1f})",
                f"{row['ceiling_interval'][0]:.2f} to {row['ceiling_interval'][1]:.2f}",
            ]
            for row in rows
        ],
    )


def _prefixes(rows: list[dict[str, Any]]) -> str:
    head = ["model", "first", "markers", "RMSE of the rest", END, "inside the band", "ceiling then"]
    cells = [
        [
            row["model"],
            f"{100 * prefix['fraction']:.0f} %",
            str(prefix["num_prefix"]),
            _number(prefix["rmse"]),
            _number(prefix["end_error"], sign=True),
            _percent(prefix["covered"]),
            f"{prefix['ceiling']:.1f} ({prefix['ceiling_interval'][0]:.1f} to {prefix['ceiling_interval'][1]:.1f})",
        ]
        for row in rows
        for prefix in row["prefixes"]
    ]
    for place, share in enumerate(prefix["fraction"] for prefix in rows[0]["prefixes"]):
        alike = [row["prefixes"][place] for row in rows]
        errors = (fmean(prefix["rmse"] for prefix in alike), fmean(abs(prefix["end_error"]) for prefix in alike))
        means = [_number(error) for error in errors]
        cells.append(["mean of the three", f"{100 * share:.0f} %", "", means[0], f"{means[1]} (absolute)", "", ""])
    rmse, at_the_end = PAPER_RMSE
    return _markdown(head, [*cells, ["the paper, mean of four", "36 of 236 steps", "", rmse, at_the_end, "", ""]])


def _forecasts(worlds: list[dict[str, Any]]) -> str:
    head = [
        "world",
        "from the first",
        "prediction",
        "runs",
        "median RMSE",
        f"median {END}",
        "inside the band",
    ]
    return _markdown(head, [[world["world"], *row] for world in worlds for row in _origin_rows(world["origins"])])


def backtest_tables(found: dict[str, Any]) -> dict[str, str]:
    """Name → Markdown table, of `benchmarks.law_backtest`."""
    return {"backtest": _backtest(found), "embedded": _embedded(found["runs"])}


def _embedded(runs: list[dict[str, Any]]) -> str:
    """What the law of the whole run says of itself, counted over runs."""
    head = ["task", "method", "runs", "identified", "ceiling above 100 %", "a rival clearly better", "R²"]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["task"], run["method"]), []).append(run)
    rows = []
    for (task, method), members in sorted(groups.items()):
        counts = (
            len(members),
            sum(run["identified"] for run in members),
            sum(run["ceiling"] is not None and run["ceiling"] > 1 for run in members),
            sum(run["aicc_behind_it"] is not None and run["aicc_behind_it"] >= DECISIVE_AICC for run in members),
        )
        r2 = sorted(run["r2"] for run in members if run["r2"] is not None)
        rows.append([task, method, *map(str, counts), f"{r2[0]:.2f} to {r2[-1]:.2f}" if r2 else "—"])
    return _markdown(head, rows)


def _backtest(found: dict[str, Any]) -> str:
    """Embedded runs: the forecast, the conditional prediction and "unchanged" side by side, in points of percent."""
    head = ["task", "method", "from the first", "runs"]
    head += ["median RMSE of forecast / conditional / unchanged", f"median {END}, likewise"]
    head += ["forecast inside its band", "conditional inside its band"]
    rows = [
        [
            group["task"],
            group["method"],
            f"{100 * origin['fraction']:.0f} %",
            _counts([origin[kind]["num_runs"] for kind in PREDICTIONS]),
            _side_by_side(origin, "median_rmse"),
            _side_by_side(origin, "median_end_error"),
            _inside(origin["forecast"]),
            _inside(origin["conditional"]),
        ]
        for group in found["groups"]
        for origin in group["origins"]
    ]
    return _markdown(head, rows)


def _counts(runs: list[int]) -> str:
    """The number of runs in which each prediction could be made, once where it is the same."""
    return str(runs[0]) if len(set(runs)) == 1 else " / ".join(map(str, runs))


def _side_by_side(origin: dict[str, Any], error: str) -> str:
    errors = (origin[kind][error] for kind in PREDICTIONS)
    return " / ".join(_number(None if value is None else 100 * value, 1) for value in errors)


def _inside(score: dict[str, Any]) -> str:
    inside = _percent(score["coverage"])
    if score["coverage_interval"]:
        low, high = score["coverage_interval"]
        inside += f" ({100 * low:.0f} to {100 * high:.0f})"
    return inside


def _origin_rows(origins: list[dict[str, Any]]) -> list[Row]:
    """Three rows for each origin."""
    return [
        [
            f"{100 * origin['fraction']:.0f} %",
            kind,
            str(origin[kind]["num_runs"]),
            _number(origin[kind]["median_rmse"]),
            _number(origin[kind]["median_end_error"]),
            _inside(origin[kind]),
        ]
        for origin in origins
        for kind in PREDICTIONS
    ]


def _alarms(rows: list[dict[str, Any]]) -> str:
    head = [
        "noise",
        "points",
        "runs",
        "a bend",
        "curvature",
        "drift",
        "does not apply",
        "a rival wins",
        "two runs differ",
    ]
    names = ("bend", "curvature", "drift", "does_not_apply", "rival_preferred", "shared_rejected")
    return _markdown(
        head,
        [
            [
                f"AR(1) {row['rho']:g}" if row["rho"] else "white",
                str(row["n"]),
                str(row["num_runs"]),
                *(_percent(row[name]) for name in names),
            ]
            for row in rows
        ],
    )


def _saturating(found: dict[str, Any]) -> str:
    head = ["half of the gain is won after", "runs", "coverage of A", "identified"]
    return _markdown(
        head,
        [
            [
                f"{100 * row['midpoint']:.0f} % of the run",
                str(found["num_runs"]),
                _percent(row["coverage"]),
                _percent(row["identified"]),
            ]
            for row in found["rows"]
        ],
    )
