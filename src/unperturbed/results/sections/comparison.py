"""The comparison of runs: paired differences on the same examples, with intervals."""

from collections.abc import Sequence

from unperturbed.errors import InputError
from unperturbed.evaluation.comparison import Pair, compare
from unperturbed.findings import Outcome, doubted
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
    section,
)
from unperturbed.results.sections.headline import interval_text, selected
from unperturbed.results.stored import StoredEvaluation, StoredRun


def comparison(runs: Sequence[StoredRun]) -> Section | None:
    """Return the section for two runs or more; None for one."""
    if len(runs) < 2:
        return None
    lead = "All differences are paired: both networks are compared on the same test examples."
    return section("Comparison", [Part("", (_table(runs), *_paired(runs)))], lead)


def _table(runs: Sequence[StoredRun]) -> Block:
    """Return a column for each run."""
    rows = [
        ("method", [_method(run) for run in runs]),
        ("clean accuracy", [_cell(run, "clean_accuracy") for run in runs]),
        ("robust accuracy", [_cell(run, "robust_accuracy") for run in runs]),
        ("threat", ["" if run.headline is None else run.headline.outcome.threat for run in runs]),
        ("suite", ["" if run.headline is None else run.headline.outcome.suite for run in runs]),
        ("examples", ["" if run.headline is None else selected(run.headline) for run in runs]),
        ("audit", [str((run.audit or {}).get("verdict", "")) for run in runs]),
    ]
    rows_kept = tuple((name, *cells) for name, cells in rows if any(cells))
    return Table("Runs side by side", ("", *(run.name for run in runs)), rows_kept)


def _method(run: StoredRun) -> str:
    method = run.record.method if run.record is not None else None
    path = method.get("class_path", "") if isinstance(method, dict) else method or ""
    return str(path).rpartition(".")[2]


def _cell(run: StoredRun, kind: str) -> str:
    if run.headline is None:
        return "not evaluated"
    outcome = run.headline.outcome
    share = getattr(outcome, kind)
    doubts = doubted(outcome.doubts) if kind == "robust_accuracy" else ""
    return f"{share.value:.1%} ({interval_text(share)}){doubts}"


def _paired(runs: Sequence[StoredRun]) -> tuple[Block, ...]:
    evaluated = [run for run in runs if run.evaluations]
    outcomes = _of_one_kind(evaluated) if len(evaluated) > 1 else None
    if outcomes is None:
        return (
            Paragraph(
                "No paired differences: the runs have no evaluation of the same examples by the same suite under the "
                "same threat."
            ),
        )
    try:
        comparison = compare(outcomes)
    except (InputError, KeyError) as error:
        return (Paragraph(f"No paired differences: {error}"),)
    doubts = tuple(f"{name}: robust accuracy{doubted(reasons)}" for name, reasons in comparison.doubts.items())
    of_one = {text for outcome in outcomes.values() for text in outcome.warnings}  # the results name these
    points = (*doubts, *(text for text in comparison.warnings if text not in of_one))
    alerts = (Alert("What to know before you trust these differences", points),) if points else ()
    rows = tuple(row for pair in comparison.pairs for row in _rows(pair))
    columns = ("pair", "accuracy", "difference (points)", "95% interval", "gained", "lost", "McNemar's p", "n")
    title = f"Paired differences, {comparison.suite} under {comparison.threat}"
    return (*alerts, _chart(comparison.pairs, title), Table(f"{title}, all numbers", columns, rows))


def _of_one_kind(runs: Sequence[StoredRun]) -> dict[str, Outcome] | None:
    """Return an evaluation of each run by one suite, threat and examples, the first run's preferred one of all runs."""

    def kind_of(outcome: Outcome) -> tuple[str, str, str]:
        return outcome.suite, outcome.threat, str(outcome.environment.get("data"))

    def kinds(run: StoredRun) -> dict[tuple[str, str, str], StoredEvaluation]:
        return {kind_of(stored.outcome): stored for stored in reversed(run.evaluations) if stored.outcome.examples}

    kinds_of_runs = [kinds(run) for run in runs]
    for stored in runs[0].evaluations:
        kind = kind_of(stored.outcome)
        if all(kind in of_run for of_run in kinds_of_runs):
            return {run.name: of_run[kind].outcome for run, of_run in zip(runs, kinds_of_runs, strict=True)}
    return None


def _rows(pair: Pair) -> list[tuple[str, ...]]:
    first, second = pair.names
    return [
        (
            f"{second} less {first}",
            kind,
            f"{100 * of.value:+.1f}",
            f"{100 * of.low:+.1f} to {100 * of.high:+.1f}",
            "" if of.gained is None else str(of.gained),
            "" if of.lost is None else str(of.lost),
            "" if of.p is None else f"{of.p:.2g}",
            str(pair.n),
        )
        for kind, of in (("clean", pair.clean), ("robust", pair.robust))
    ]


def _chart(pairs: Sequence[Pair], title: str) -> Block:
    kinds = [("clean accuracy", [pair.clean for pair in pairs]), ("robust accuracy", [pair.robust for pair in pairs])]
    names = [f"{pair.names[1]} less {pair.names[0]}" for pair in pairs]
    series = tuple(
        BarSeries(
            kind, tuple(Bar(name, of.value, of.low, of.high) for name, of in zip(names, differences, strict=True))
        )
        for kind, differences in kinds
    )
    text = " ".join(
        f"{name}: clean {100 * pair.clean.value:+.1f} points, robust {100 * pair.robust.value:+.1f} points "
        f"[{100 * pair.robust.low:+.1f}, {100 * pair.robust.high:+.1f}]."
        for name, pair in zip(names, pairs, strict=True)
    )
    return BarChart(title, "pair", "difference of accuracy", series, text)
