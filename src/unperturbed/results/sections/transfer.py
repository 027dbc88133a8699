"""Adversarial examples of one network, tried on others."""

from collections.abc import Sequence

from unperturbed.findings import Interval, Transfer, doubted
from unperturbed.reports.document import Alert, Block, Part, Section, Table, section
from unperturbed.results.stored import StoredRun


def transfer(runs: Sequence[StoredRun]) -> Section | None:
    """Return the section, with a part for each matrix; one that several runs share is shown once."""
    matrices = {
        (one.names, one.suite, one.threat, one.n, one.accuracy): one for run in runs for one in run.transfers
    }.values()
    lead = (
        "Each network is attacked, and all others are measured on the points found. The diagonal has the robust "
        "accuracies by this suite; the other entries measure transfer, not robustness. The worst case over all points "
        "is again an upper bound."
    )
    titles = [f"{one.threat}, {one.suite}" if len(matrices) > 1 else "" for one in matrices]
    parts = [Part(title, _blocks(one)) for title, one in zip(titles, matrices, strict=True)]
    return section("Transfer", parts, lead, side_by_side=False)


def _blocks(one: Transfer) -> tuple[Block, ...]:
    rows = [("no attack", one.clean_accuracy), *zip(one.names, one.accuracy, strict=True), ("worst of all", one.worst)]
    points = (*(f"{name}{doubted(texts)}" for name, texts in one.doubts.items()), *one.warnings)
    title = f"Accuracy on the adversarial points of each network, {one.threat}, {one.suite}, n = {one.n}"
    return (
        *((Alert("What to know before you trust this table", points),) if points else ()),
        Table(title, ("points found on", *one.names), tuple((name, *map(_cell, shares)) for name, shares in rows)),
    )


def _cell(share: Interval) -> str:
    return f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"
