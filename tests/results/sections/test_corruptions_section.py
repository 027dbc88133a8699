"""The section on common corruptions: its numbers are those of the measurement."""

from pathlib import Path

from unperturbed.evaluation.corruptions import UnderCorruptions
from unperturbed.findings import Interval
from unperturbed.reports.document import Alert, LineChart, Table
from unperturbed.results.sections.corruptions import corruptions
from unperturbed.results.stored import StoredRun


def share(value: float) -> Interval:
    return Interval(value, value - 0.05, value + 0.05, 20)


def test_means_worst_and_every_accuracy_are_shown() -> None:
    one = UnderCorruptions(
        note="no attack", threat="none", n=20, clean_accuracy=share(0.9), mean_accuracy=share(0.5),
        accuracy={"fog": (share(0.8), share(0.6)), "snow": (share(0.4), share(0.2))},
        seconds=0.0, warnings=("frost is left out",), environment={}, examples={},
    )  # fmt: skip
    section = corruptions([StoredRun(name="a", folder=Path("a"), corruptions=[one])])
    assert section is not None and len(section.parts) == 1
    alert, chart, table = section.parts[0].blocks
    assert isinstance(alert, Alert) and alert.points == ("frost is left out",)
    assert isinstance(chart, LineChart) and chart.series[0].x == (0.0, 1.0, 2.0)
    assert [round(value or 0, 12) for value in chart.series[0].y] == [0.9, 0.6, 0.4]
    assert chart.series[1].y == (0.9, 0.4, 0.2) and "lowest mean is that of snow" in chart.text
    assert isinstance(table, Table) and table.rows == (
        ("fog", "80.0%", "60.0%", "70.0%"),
        ("snow", "40.0%", "20.0%", "30.0%"),
    )
    assert corruptions([StoredRun(name="a", folder=Path("a"))]) is None
