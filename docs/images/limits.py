"""Draw the chart of the five limits with `dual_max` 5 from the table of docs/results.md.

python docs/images/limits.py
"""

import re
from pathlib import Path

from unperturbed.findings import Interval
from unperturbed.reports.charts.style import save_chart
from unperturbed.reports.charts.trade_off import trade_off_chart
from unperturbed.statistics.domination import Point, mark_dominated

HERE = Path(__file__).parent
ACCURACY = r"([\d.]+)% \[([\d.]+)%, ([\d.]+)%\]"
ROW = rf"^\| ([\d.]+) \| 5 \| .* \| {ACCURACY} \| {ACCURACY} \|$"


def main() -> None:
    """Read the rows, and write the chart next to this file."""
    rows = re.findall(ROW, (HERE.parent / "results.md").read_text(), re.MULTILINE)
    shares = [[float(text) / 100 for text in row[1:]] for row in rows]
    points = [
        Point(row[0], Interval(*share[:3], n=1000), Interval(*share[3:], n=1000))
        for row, share in zip(rows, shares, strict=True)
    ]
    chart = trade_off_chart(
        mark_dominated(points), "Clean against robust accuracy", "Linf:0.3, pgd, labelled by nominal_loss"
    )
    save_chart(chart, HERE / "limits-mnist.svg")


if __name__ == "__main__":
    main()
