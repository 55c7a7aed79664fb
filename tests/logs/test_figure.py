"""The picture holds the numbers, needs no network, and names its extra."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from covent.errors import ConfigError, MissingExtraError
from covent.logs import fit_result
from covent.logs.figure import _curve, figure, write_figure
from tests.logs.logfiles import GOLDEN, series_of
from tests.support.tolerances import TIGHT


def test_points_and_law_are_drawn_in_percent() -> None:
    series = series_of(GOLDEN / "verl_console.log")
    result = fit_result(series)
    points, law, ceiling = figure([_curve(series, result)]).data
    assert list(points.y) == pytest.approx(100 * series.accuracy, rel=TIGHT)
    assert list(points.x) == pytest.approx(series.entropy, rel=TIGHT)
    assert result.a is not None and result.b is not None and result.ceiling is not None
    assert list(law.y) == pytest.approx(100 * (result.b - result.a * np.exp(np.array(law.x))), rel=TIGHT)
    assert law.y[0] == pytest.approx(100 * result.ceiling, rel=TIGHT)
    assert ceiling.x == (0.0,)


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    series = series_of(GOLDEN / "verl_console.log")
    write_figure([series], [fit_result(series)], tmp_path / "law.html")
    page = (tmp_path / "law.html").read_text(encoding="utf-8")
    assert 'src="http' not in page
    assert "policy entropy H" in page


def test_png_without_matplotlib_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    series = series_of(GOLDEN / "verl_console.log")
    with pytest.raises(MissingExtraError, match=r"covent\[plots\]"):
        write_figure([series], [fit_result(series)], tmp_path / "law.png")


def test_png_where_matplotlib_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the plots extra is not installed")
    series = series_of(GOLDEN / "verl_console.log")
    write_figure([series], [fit_result(series)], tmp_path / "law.png")
    assert (tmp_path / "law.png").read_bytes().startswith(b"\x89PNG")


def test_another_ending_is_refused(tmp_path: Path) -> None:
    series = series_of(GOLDEN / "verl_console.log")
    with pytest.raises(ConfigError, match=r"must end with .html or .png"):
        write_figure([series], [fit_result(series)], tmp_path / "law.svg")
