"""Charts are written whole, the same each time, and no name in them does harm."""

import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest
from matplotlib.figure import Figure

from unperturbed.errors import InputError
from unperturbed.findings import Interval
from unperturbed.reports.charts.curves import AccuracyCurve, curves_chart
from unperturbed.reports.charts.style import house_style, save_chart
from unperturbed.reports.charts.surfaces import Panel, surfaces_chart
from unperturbed.reports.charts.trade_off import trade_off_chart
from unperturbed.statistics.domination import Point

HALF = Interval(0.5, 0.4, 0.6, 100)


def charts(name: str) -> list[Figure]:
    return [
        curves_chart([AccuracyCurve(name, (0.0, 0.1), (HALF, HALF))], name, name, name),
        trade_off_chart([Point(name, HALF, HALF)], name, name),
        surfaces_chart([Panel(name, name, (-1.0, 0.0, 1.0), ((1.0, 2.0, 3.0),) * 3)], name),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["<b>&\"'\x00\ud800</text>", "a $x_{1$ b", "$\\frac{1}{2}$", "runs/at\nB", ""])
def test_any_name_is_drawn_as_it_is_and_nothing_is_fetched(name: str, tmp_path: Path) -> None:
    for number, chart in enumerate(charts(name)):
        path = tmp_path / f"{number}.svg"
        save_chart(chart, path)
        text = path.read_text()
        ElementTree.fromstring(text)
        assert not re.search(r"(href|src)=\"(?!#|data:)|url\((?!#)|@import|<script", text)
        if name.startswith("$"):
            assert name in text


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".svg", ".pdf", ".png"])
def test_the_same_chart_is_the_same_file(suffix: str, tmp_path: Path) -> None:
    for number in (1, 2):
        save_chart(charts("model")[0], tmp_path / f"{number}{suffix}")
    assert (tmp_path / f"1{suffix}").read_bytes() == (tmp_path / f"2{suffix}").read_bytes()


def test_another_format_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.svg, \.pdf, \.png"):
        save_chart(charts("model")[0], tmp_path / "chart.bmp")
    assert not list(tmp_path.iterdir())


def test_the_users_own_settings_stay() -> None:
    before = dict(matplotlib.rcParams)
    with house_style():
        assert matplotlib.rcParams["savefig.facecolor"] == "white" != before["savefig.facecolor"]
    assert dict(matplotlib.rcParams) == before
