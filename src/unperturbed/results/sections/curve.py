"""Accuracy against eps, from the distances to the nearest adversarial examples."""

from collections.abc import Sequence

from unperturbed.findings import doubted
from unperturbed.reports.document import Alert, Block, LineChart, Part, Section, Series, Table, section
from unperturbed.results.curves import StoredCurve
from unperturbed.results.stored import StoredRun, norm_of


def accuracy_curve(runs: Sequence[StoredRun]) -> Section | None:
    """Return the section, with one chart per norm for the curves of all runs."""
    curves = [(run, curve) for run in runs for curve in run.curves]
    norms = dict.fromkeys(norm_of(curve.threat) for _, curve in curves)
    parts = [Part("", _blocks(norm, [pair for pair in curves if norm_of(pair[1].threat) == norm])) for norm in norms]
    lead = (
        "The nearest misclassified point that the attacks found for an example is an upper bound on its distance. "
        "Robust accuracy at eps is the share of examples whose distance is larger."
    )
    return section("Accuracy against eps", parts, lead)


def _blocks(norm: str, curves: Sequence[tuple[StoredRun, StoredCurve]]) -> tuple[Block, ...]:
    names = _names(curves)
    series = tuple(
        Series(
            name,
            tuple(eps for eps, _ in curve.points),
            tuple(share.value for _, share in curve.points),
            tuple(share.low for _, share in curve.points),
            tuple(share.high for _, share in curve.points),
        )
        for name, (_, curve) in zip(names, curves, strict=True)
    )
    text = " ".join(_sentence(name, curve) for name, (_, curve) in zip(names, curves, strict=True))
    chart = LineChart(f"Robust accuracy against eps, {norm}", f"eps ({norm})", "robust accuracy", series, text, True)
    doubts = tuple(
        f"{name}: robust accuracy{doubted(curve.doubts)}"
        for name, (_, curve) in zip(names, curves, strict=True)
        if curve.doubts
    )
    warnings = tuple(dict.fromkeys(text for _, curve in curves for text in curve.warnings))
    alerts = (Alert("What to know before you trust these curves", (*doubts, *warnings)),) if doubts or warnings else ()
    rows = tuple(
        (name, f"{eps:.4g}", str(share))
        for name, (_, curve) in zip(names, curves, strict=True)
        for eps, share in curve.points
        if eps in curve.radii
    )
    return (
        *alerts,
        chart,
        Table(f"Robust accuracy at the radii attacked, {norm}", ("run", "eps", "robust accuracy"), rows, folded=True),
    )


def _names(curves: Sequence[tuple[StoredRun, StoredCurve]]) -> list[str]:
    """Return the runs' names, with folder and examples if a run has several curves."""
    runs = [run.name for run, _ in curves]
    return [
        run.name if runs.count(run.name) == 1 else f"{run.name}, {curve.path.parent.name}, n = {curve.n}"
        for run, curve in curves
    ]


def _sentence(name: str, curve: StoredCurve) -> str:
    (first, clean), (last, robust) = curve.points[0], curve.points[-1]
    median = (
        "more than half of the examples were never broken"
        if curve.median is None
        else f"median distance {curve.median:.3g}"
    )
    return (
        f"{name}: {clean.value:.1%} at eps {first:g}, {robust.value:.1%} at eps {last:.4g}; {median} "
        f"({curve.suite}, n = {curve.n})."
    )
