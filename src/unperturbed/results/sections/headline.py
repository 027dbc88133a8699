"""The accuracies to report, with intervals and doubts."""

from collections.abc import Sequence

from unperturbed.findings import Interval, doubted
from unperturbed.reports.document import (
    Alert,
    Bar,
    BarChart,
    BarSeries,
    Block,
    Paragraph,
    Part,
    Section,
    Table,
    Tile,
    Tiles,
    section,
)
from unperturbed.results.sections.audit import MISSING, UNDECIDED, audited_accuracy, no_sign
from unperturbed.results.stored import StoredEvaluation, StoredRun


def headline(runs: Sequence[StoredRun]) -> Section | None:
    """Return the section, with a part for each evaluated run."""
    lead = (
        "Robust accuracy is the share of test examples that are classified correctly and that no attack of the suite "
        "could change within the threat set. It is an upper bound: a stronger attack may find more."
    )
    return section("Results", [Part(run.name if len(runs) > 1 else "", _blocks(run)) for run in runs], lead)


def _blocks(run: StoredRun) -> tuple[Block, ...]:
    best = run.headline
    if best is None:
        return ()
    blocks: list[Block] = [Tiles((*_tiles(best, _suspicion(run)), *_audited(run)))]
    points = tuple(dict.fromkeys(text for stored in run.evaluations for text in _warnings(stored)))
    if (run.audit or {}).get("verdict") == UNDECIDED:
        points = (f"The audit is undecided: {MISSING}", *points)
    if not best.is_own:
        text = (
            f"The accuracies above are those in the folder {selected(best)}, of other data, other weights or selected "
            f"examples: there is none of the run's whole test split under {best.outcome.threat}."
        )
        points = (text, *points)
    if points:
        blocks.append(Alert("What to know before you trust these numbers", points))
    outcome = best.outcome
    checked = "" if outcome.gate is None else f" Here {outcome.gate}"
    blocks += [Paragraph(f"Suite {outcome.suite}: {outcome.note}.{checked}"), _attacks(best), _evaluations(run)]
    return tuple(blocks)


def interval_text(share: Interval) -> str:
    """Return the interval and n behind a share."""
    return f"{share.low:.1%} to {share.high:.1%}, n = {share.n:,}"


def _tiles(best: StoredEvaluation, suspicion: tuple[str, ...]) -> tuple[Tile, ...]:
    outcome = best.outcome
    return (
        Tile("Clean accuracy", f"{outcome.clean_accuracy.value:.1%}", interval_text(outcome.clean_accuracy)),
        Tile(
            f"Robust accuracy under {outcome.threat}, suite {outcome.suite}{_selected(best)}",
            f"{outcome.robust_accuracy.value:.1%}",
            interval_text(outcome.robust_accuracy),
            (*outcome.doubts, *suspicion),
        ),
    )


def selected(stored: StoredEvaluation) -> str:
    """Return the name of the evaluation's folder, which tells other data and selected examples; "" for the usual."""
    name = stored.path.parent.name
    return "" if name == "evaluation" else name


def _selected(stored: StoredEvaluation) -> str:
    return f" ({name})" if (name := selected(stored)) else ""


def _suspicion(run: StoredRun) -> tuple[str, ...]:
    """Return the audit's doubts about the robust accuracy; an undecided audit found none."""
    audit = run.audit or {}
    if no_sign(audit) or audit.get("verdict") == UNDECIDED:
        return ()
    return (f"the audit says {audit.get('verdict')}",)


def _audited(run: StoredRun) -> tuple[Tile, ...]:
    """Return the robust accuracy of an audit that did not clear the network."""
    audit = run.audit or {}
    share = audited_accuracy(audit)
    if share is None or no_sign(audit):
        return ()
    return (Tile("Robust accuracy after the audit", f"{share.value:.1%}", interval_text(share)),)


def _warnings(stored: StoredEvaluation) -> list[str]:
    outcome = stored.outcome
    return [f"{outcome.suite} under {outcome.threat}: {text}" for text in outcome.warnings]


def _attacks(best: StoredEvaluation) -> Block:
    """Return a chart of the unbroken share after each attack."""
    outcome = best.outcome
    bars = [Bar("no attack", outcome.clean_accuracy.value)]
    bars += [Bar(f"after {attack.name}", attack.robust_after) for attack in outcome.attacks]
    broken = ", ".join(f"{attack.name} {attack.broken}" for attack in outcome.attacks)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in outcome.counts.items())
    text = f"Examples by verdict: {counts}. Examples that each attack broke first: {broken}."
    return BarChart(
        "Share of examples still classified correctly",
        "attack",
        "share of examples",
        (BarSeries("", tuple(bars)),),
        text,
    )


def _evaluations(run: StoredRun) -> Block:
    rows = []
    for stored in run.evaluations:
        outcome = stored.outcome
        rows.append(
            (
                outcome.threat,
                outcome.suite,
                f"{outcome.n}{_selected(stored)}",
                _share(outcome.clean_accuracy),
                f"{_share(outcome.robust_accuracy)}{doubted(outcome.doubts)}",
                str(outcome.counts["unknown"]),
                f"{outcome.seconds:.1f}",
            )
        )
    columns = ("threat", "suite", "examples", "clean accuracy", "robust accuracy", "unknown", "seconds")
    return Table("All evaluations", columns, tuple(rows), folded=len(rows) == 1)


def _share(share: Interval) -> str:
    return f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"
