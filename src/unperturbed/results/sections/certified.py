"""Proved lower bounds on robust accuracy."""

from collections.abc import Sequence

from unperturbed.evaluation.certificates import Certificates
from unperturbed.findings import Interval
from unperturbed.reports.document import Alert, Block, LineChart, Paragraph, Part, Section, Series, Table, section
from unperturbed.results.stored import StoredRun


def certified(runs: Sequence[StoredRun]) -> Section | None:
    """Return the section, with a part for each certified run."""
    lead = (
        "A certificate proves that no perturbation within its radius changes the answer: a lower bound, while attacks "
        "give an upper one. The smoothed classifier is the vote of the network under noise; each of its certificates "
        "may be false with the probability alpha."
    )
    parts = [
        Part(run.name if len(runs) > 1 else "", tuple(block for one in run.certificates for block in _blocks(one)))
        for run in runs
    ]
    return section("Certified accuracy", parts, lead)


def _blocks(one: Certificates) -> tuple[Block, ...]:
    smoothed = [one.smoothed(eps) for eps in one.radii]
    network = [] if one.unproven else [one.network(eps) for eps in one.radii]
    series = [_series("smoothed", one.radii, smoothed), *([_series("network", one.radii, network)] if network else [])]
    norm, kind = one.threat.partition(":")[0], f"sigma {one.sigma:.4g}"
    title = f"Certified accuracy against eps, {norm}, {kind}"
    of_network = f"Nothing is proved for the network itself: {one.unproven}." if one.unproven else one.note
    text = (
        f"{one.draws} draws of noise, alpha {one.alpha:g}, n = {one.n}. Smoothed: {smoothed[0].value:.1%} at eps "
        f"{one.radii[0]:.4g}, {smoothed[-1].value:.1%} at eps {one.radii[-1]:.4g}. Answers of the vote: "
        f"{', '.join(f'{count} {answer}' for answer, count in one.counts.items())}."
    )
    columns = ("eps", "smoothed", *(["network"] if network else []))
    rows = tuple(
        (f"{eps:.4g}", str(smoothed[k]), *([str(network[k])] if network else [])) for k, eps in enumerate(one.radii)
    )
    points = (*(f"not to be believed: {doubt}" for doubt in one.doubts), *one.warnings)
    bars = tuple((f"{bar.eps:.4g}", str(bar.certified), str(bar.attacked), bar.suite) for bar in one.bars)
    sides = ("eps", "certified at least", "attacked at most", "attacked by")
    return (
        *((Alert("What to know before you trust these certificates", points),) if points else ()),
        LineChart(title, f"eps ({norm})", "certified accuracy", tuple(series), text, percent=True),
        Paragraph(of_network),
        Table(f"{title}, all numbers", columns, rows, folded=True),
        *((Table("The network itself, from both sides", sides, bars),) if bars else ()),
    )


def _series(name: str, radii: Sequence[float], shares: Sequence[Interval]) -> Series:
    return Series(
        name,
        tuple(radii),
        tuple(share.value for share in shares),
        tuple(share.low for share in shares),
        tuple(share.high for share in shares),
    )
