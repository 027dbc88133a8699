"""Accuracy under common corruptions of images."""

from collections.abc import Sequence

from unperturbed.evaluation.corruptions import UnderCorruptions
from unperturbed.reports.document import Alert, Block, LineChart, Part, Section, Series, Table, section
from unperturbed.results.stored import StoredRun


def corruptions(runs: Sequence[StoredRun]) -> Section | None:
    """Return the section, with a part for each run that was measured under corruptions."""
    lead = (
        "Common corruptions, such as noise, blur and fog, are no attack: accuracy under them says nothing about the "
        "worst case within a threat set."
    )
    parts = [
        Part(run.name if len(runs) > 1 else "", tuple(block for one in run.corruptions for block in _blocks(one)))
        for run in runs
    ]
    return section("Common corruptions", parts, lead)


def _blocks(one: UnderCorruptions) -> tuple[Block, ...]:
    """Return warnings, the means at each severity as a chart, and all accuracies as a table; severity 0 is none."""
    severities = range(1, 1 + max(map(len, one.accuracy.values())))
    at = [[shares[level - 1].value for shares in one.accuracy.values()] for level in severities]
    positions = tuple(map(float, (0, *severities)))
    series = (
        Series(f"mean over {len(one.accuracy)} corruptions", positions, _means(one, at)),
        Series("worst corruption", positions, (one.clean_accuracy.value, *map(min, at))),
    )
    worst = min(one.accuracy, key=lambda name: sum(share.value for share in one.accuracy[name]))
    text = (
        f"Without a corruption {one.clean_accuracy}; mean over {len(one.accuracy)} corruptions at all severities "
        f"{one.mean_accuracy}. The lowest mean is that of {worst}."
    )
    rows = tuple(
        (name, *(f"{share.value:.1%}" for share in shares), f"{sum(share.value for share in shares) / len(shares):.1%}")
        for name, shares in one.accuracy.items()
    )
    columns = ("corruption", *(f"severity {level}" for level in severities), "mean")
    return (
        *((Alert("Remarks of the measurement", one.warnings),) if one.warnings else ()),
        LineChart("Accuracy under common corruptions", "severity", "accuracy", series, text, percent=True),
        Table(f"Accuracy by corruption and severity, n = {one.n}", columns, rows),
    )


def _means(one: UnderCorruptions, at: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return (one.clean_accuracy.value, *(sum(values) / len(values) for values in at))
