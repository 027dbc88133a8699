"""The chart of loss surfaces shows the numbers, and refuses what has none."""

import math

import numpy as np
import pytest
from mpl_toolkits.mplot3d import Axes3D

from unperturbed.errors import InputError
from unperturbed.reports.charts.surfaces import Panel, surfaces_chart

ALONG = (-1.0, -0.5, 0.0, 0.5, 1.0)


def plane(offset: float, by_a: float = 0.0, by_b: float = 0.0, name: str = "model") -> Panel:
    return Panel(name, "caption", ALONG, [[offset + by_a * a + by_b * b for b in ALONG] for a in ALONG])


def panels_of(*panels: Panel) -> list[Axes3D]:
    return [axes for axes in surfaces_chart(panels, "title").axes if isinstance(axes, Axes3D)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_every_model_has_one_panel_with_its_name_and_caption(count: int) -> None:
    drawn = panels_of(*(plane(float(k), name=f"m{k}") for k in range(count)))
    assert [axes.get_title() for axes in drawn] == [f"m{k}\ncaption" for k in range(count)]


def test_all_panels_have_the_same_scale_of_the_loss() -> None:
    low, high = panels_of(plane(0.0, by_a=1.0), plane(3.0, by_a=2.0))
    assert low.get_zlim() == high.get_zlim() == (-1.0, 5.0)


def test_directions_are_not_mixed_up() -> None:
    (axes,) = panels_of(plane(0.0, by_a=1.0, by_b=0.25))
    axes.figure.canvas.draw()
    corners = np.concatenate([np.array(face) for face in axes.collections[0]._faces])
    np.testing.assert_allclose(corners[:, 2], corners[:, 0] + 0.25 * corners[:, 1], atol=1e-9)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("gradient direction (eps)", "random direction (eps)")


@pytest.mark.parametrize("offset, slope", [(0.0, 0.0), (5.0, 0.0), (1e-9, 1e-9), (1e6, 3e5), (-2.0, 0.1), (1.0, 1e-12)])
def test_any_finite_surface_can_be_drawn(offset: float, slope: float) -> None:
    (axes,) = panels_of(plane(offset, by_a=slope))
    axes.figure.canvas.draw()
    low, high = axes.get_zlim()
    assert low < high and low <= offset <= high


@pytest.mark.parametrize(
    "panel, said",
    [
        (Panel("crooked", "", ALONG, [[0.0] * 5] * 4), "5 rows"),
        (Panel("crooked", "", ALONG, [[0.0] * 4] * 5), "5 values"),
        (Panel("crooked", "", ALONG, [[math.nan] * 5] * 5), "finite"),
        (Panel("crooked", "", ALONG, [[math.inf] * 5] * 5), "finite"),
        (Panel("crooked", "", ALONG[::-1], [[0.0] * 5] * 5), "rise"),
        (Panel("crooked", "", (0.0,), [[0.0]]), "two"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(panel: Panel, said: str) -> None:
    with pytest.raises(InputError, match=f"crooked.*{said}"):
        surfaces_chart([plane(1.0), panel], "title")


def test_no_panels_are_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        surfaces_chart([], "title")
