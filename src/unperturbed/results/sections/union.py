"""The worst case over several threats."""

from collections.abc import Sequence

from unperturbed.evaluation.union import Union
from unperturbed.findings import doubted
from unperturbed.reports.document import Alert, Bar, BarChart, BarSeries, Block, Part, Section, Table, section
from unperturbed.results.stored import StoredRun


def unions(runs: Sequence[StoredRun]) -> Section | None:
    """Return the section, with a part for each run that was evaluated under several threats at once."""
    lead = (
        "An example is robust to several threats if no attack changed it under any of them. This worst case is at most "
        "the lowest robust accuracy of a single threat."
    )
    parts = [
        Part(run.name if len(runs) > 1 else "", tuple(block for one in run.unions for block in _blocks(one)))
        for run in runs
    ]
    return section("Several threats", parts, lead)


def _blocks(one: Union) -> tuple[Block, ...]:
    shares = [(outcome.threat, outcome.robust_accuracy) for outcome in one.outcomes]
    shares += [("any of them", one.robust_accuracy)]
    bars = tuple(Bar(name, share.value, share.low, share.high) for name, share in shares)
    suites = ", ".join(dict.fromkeys(outcome.suite for outcome in one.outcomes))
    title = f"Robust accuracy under {one.threat}"
    text = (
        f"Worst case: {one.robust_accuracy}{doubted(one.doubts)}. Suite {suites}; clean accuracy {one.clean_accuracy}."
    )
    alerts = (Alert("What to know before you trust the worst case", one.doubts),) if one.doubts else ()
    counts = tuple((verdict, str(count)) for verdict, count in one.counts.items())
    return (
        *alerts,
        BarChart(title, "threat", "robust accuracy", (BarSeries("", bars),), text),
        Table(f"Examples by their worst verdict under {one.threat}", ("verdict", "examples"), counts, folded=True),
    )
