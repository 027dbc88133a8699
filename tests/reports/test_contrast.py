"""Text and lines of the page can be read in light and dark: contrast by WCAG 2.2, computed from its style."""

import re
from importlib import resources

import pytest

from unperturbed.reports.charts.style import COLOURS

TEXT, LINE = 4.5, 3.0
"""The least contrast of text and of graphics (WCAG 2.2, criteria 1.4.3 and 1.4.11)."""
PAGE = resources.files("unperturbed.reports.page").joinpath("page.css").read_text(encoding="utf-8")
LIGHT, DARK = (dict(re.findall(r"--([\w-]+): (#\w{6})", rule)) for rule in re.findall(r":root \{(.*?)\}", PAGE)[:2])


def luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=0.001)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_is_legible_on_every_ground(theme: dict[str, str]) -> None:
    for ink in ("ink", "quiet", "accent"):
        assert contrast(theme[ink], theme["paper"]) >= TEXT and contrast(theme[ink], theme["raised"]) >= TEXT
    assert contrast(theme["bad"], theme["bad-paper"]) >= TEXT and contrast(theme["ink"], theme["bad-paper"]) >= TEXT


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_lines_and_bars_of_four_networks_stand_out(theme: dict[str, str]) -> None:
    assert all(contrast(colour, theme["paper"]) >= LINE for colour in COLOURS[:4])
