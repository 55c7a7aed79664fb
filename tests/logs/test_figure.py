"""The picture holds the numbers, needs no network, and names its extra."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from covent.errors import ConfigError, MissingExtraError
from covent.logs import fit_result
from covent.logs.figure import Curve, _curve, figure, write_figure
from tests.logs.logfiles import GOLDEN, series_of
from tests.support.tolerances import TIGHT


def curve_of(**fields: object) -> Curve:
    series = series_of(GOLDEN / "verl_console.log")
    return _curve(series, fit_result(series).model_copy(update=fields))


def test_points_and_law_are_drawn_in_percent() -> None:
    series = series_of(GOLDEN / "verl_console.log")
    result = fit_result(series).model_copy(update={"identified": True})
    points, law, beyond, ceiling = figure([_curve(series, result)]).data
    assert list(points.y) == pytest.approx(100 * series.accuracy, rel=TIGHT)
    assert list(points.x) == pytest.approx(series.entropy, rel=TIGHT)
    assert result.a is not None and result.b is not None and result.ceiling is not None
    for drawn in (law, beyond):
        assert list(drawn.y) == pytest.approx(100 * (result.b - result.a * np.exp(np.array(drawn.x))), rel=TIGHT)
    assert (law.x[0], law.x[-1]) == (series.entropy.min(), series.entropy.max())
    assert (beyond.x[0], beyond.x[-1]) == (0.0, series.entropy.min())
    assert beyond.y[0] == pytest.approx(100 * result.ceiling, rel=TIGHT)
    assert ceiling.x == (0.0,)


def test_a_law_that_is_not_identified_is_not_carried_on_to_a_ceiling() -> None:
    points, law, beyond = figure([curve_of(identified=False)]).data
    assert points.name.endswith("law not identified")
    assert len(law.x) and not len(beyond.x)


def test_what_lies_above_100_percent_is_said_to_be_impossible() -> None:
    assert not figure([curve_of(identified=True, a=0.1, b=0.9, ceiling_interval=(0.7, 0.9))]).layout.annotations
    (said,) = figure([curve_of(identified=True, a=0.1, b=0.9, ceiling_interval=(0.7, 1.1))]).layout.annotations
    assert "impossible" in said.text


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    series = series_of(GOLDEN / "verl_console.log")
    write_figure([series], [fit_result(series)], tmp_path / "law.html")
    page = (tmp_path / "law.html").read_text(encoding="utf-8")
    assert 'src="http' not in page
    assert "policy entropy H" in page


@pytest.mark.parametrize("name", ["law.html", "law.png"])
def test_a_picture_is_replaced_in_one_piece(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.endswith("png"):
        pytest.importorskip("matplotlib", reason="the plots extra is not installed")
    series = series_of(GOLDEN / "verl_console.log")
    path, result = tmp_path / name, fit_result(series)
    path.write_text("the old picture")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_figure([series], [result], path)
    assert path.read_text() == "the old picture"
    write_figure([series], [result], path)
    assert path.stat().st_size > 10**4 and [each.name for each in tmp_path.iterdir()] == [name]


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
