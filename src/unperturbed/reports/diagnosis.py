"""A diagnosis as blocks of a document: the findings of each title, and the trends over the strength of training."""

from collections.abc import Sequence

from unperturbed.findings import Comparison, Examined, Row, Trend
from unperturbed.reports.document import Block, Document, Figures, LineChart, Paragraph, Part, Section, Series, Table
from unperturbed.reports.findings import finding_blocks

CLAIMS = "What robustness did to these networks"
ABOUT = (
    "The change is that of a line fitted to the means, from the weakest training to the strongest. Its interval and p "
    "are Student's t over networks and examples, over examples alone where a strength has one network, and then "
    "nothing is decided; the p of the claims are adjusted for their number (Holm). Held: p below 0.05 and the change "
    "on the claimed side; did not hold: on the other side."
)
COLUMNS = ("claim", "decision", "quantity", "means", "change, 95% interval", "p", "n")


def diagnosis_document(
    models: Sequence[Examined], comparison: Comparison | None, title: str, facts: Sequence[str]
) -> Document:
    """Return the diagnosis of one network or several as a whole page; `facts` are common to all networks."""
    parts = diagnosis_parts(models, comparison)
    sections = tuple(Section(part.title, (Part("", part.blocks),), side_by_side=False) for part in parts)
    return Document(title, tuple(facts), sections)


def diagnosis_parts(models: Sequence[Examined], comparison: Comparison | None) -> list[Part]:
    """Return the trends, if there are any, and a part for the findings of each title."""
    titles = dict.fromkeys(finding.title for model in models for finding in model.findings)
    trends = [] if comparison is None else [Part(CLAIMS, comparison_blocks(comparison))]
    return [*trends, *(Part(name, finding_blocks(name, _with_finding(models, name))) for name in titles)]


def comparison_blocks(comparison: Comparison) -> tuple[Block, ...]:
    """Return the claims with their decisions, a chart of each, and every quantity against the strength."""
    first, last = comparison.strengths[0], comparison.strengths[-1]
    rows = {row.quantity: row for row in comparison.rows}
    charts = tuple(
        _trend_chart(rows[f"mean {trend.claim.quantity}"], comparison.strengths, trend)
        for trend in comparison.claims
        if f"mean {trend.claim.quantity}" in rows
    )
    quantities = tuple(
        (f"{row.quantity} ({row.unit})" if row.unit not in ("", "%") else row.quantity, *map(_mean, *_ends(row)))
        for row in comparison.rows
    )
    strengths = zip(comparison.strengths, comparison.networks, strict=True)
    columns = ("quantity", *(f"eps {eps:.3g} ({count})" for eps, count in strengths))
    blocks: list[Block] = [
        Table(f"Claims, from eps {first:.3g} to {last:.3g}", COLUMNS, tuple(map(_row, comparison.claims))),
        Paragraph(ABOUT),
        *map(Paragraph, comparison.notes),
    ]
    blocks += [Figures("Claims", charts)] if charts else []
    if comparison.controls:
        controls = tuple(map(_row, comparison.controls))
        blocks.append(Table("Other quantities for the same claims", COLUMNS, controls, folded=True))
    blocks.append(Table("Every quantity against the strength of training", columns, quantities, folded=True))
    blocks.append(
        Paragraph("In brackets behind eps: the number of networks. Intervals are over networks (Student's t).")
    )
    return tuple(blocks)


def _row(trend: Trend) -> tuple[str, ...]:
    return (
        trend.claim.sentence,
        trend.verdict,
        trend.claim.quantity,
        " → ".join(f"{mean:.3g}" for mean in trend.means),
        f"{trend.change:+.3g} [{trend.low:+.3g}, {trend.high:+.3g}]",
        f"{trend.p:.2g}",
        str(trend.examples) if trend.examples > 1 else "",
    )


def _trend_chart(row: Row, strengths: Sequence[float], trend: Trend) -> LineChart:
    has_ends = any(low is not None for low in row.low)
    series = Series("", tuple(strengths), row.means, row.low if has_ends else None, row.high if has_ends else None)
    up = f"{row.quantity} ({row.unit})" if row.unit not in ("", "%") else row.quantity
    return LineChart(f"{trend.claim.sentence}: {trend.verdict}", "eps in training", up, (series,), str(trend))


def _ends(row: Row) -> tuple[Sequence[float | None], ...]:
    return row.means, row.low, row.high


def _mean(mean: float | None, low: float | None, high: float | None) -> str:
    ends = "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
    return "" if mean is None else f"{mean:.4g}{ends}"


def _with_finding(models: Sequence[Examined], title: str) -> list[Examined]:
    """Return the networks with a finding of this title, and that finding alone."""
    return [
        Examined(model.name, model.strength, model.seed, findings)
        for model in models
        if (findings := tuple(finding for finding in model.findings if finding.title == title))
    ]
