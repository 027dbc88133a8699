"""Measure how far away the nearest misclassified points are: robust accuracy against eps, as a table and a picture."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result, progress, repeatable, robust_cell, say, table
from unperturbed.cli.options import Parsed, add_data_options, add_measuring_options, new_parser
from unperturbed.errors import InputError, hint

if TYPE_CHECKING:
    from unperturbed.evaluation.distances import Distances

POSITIONAL = "run"
SUITE_HELP = "which attacks: nearest (AutoAttack without Square), standard, plus (longer), pgd (50 steps, 20 restarts)"
DRAWN = 100
"""Even steps of eps in the picture."""


def parser() -> ArgumentParser:
    """Return the command's parser."""
    made = new_parser("curve", str(__doc__))
    made.add_argument("run", type=str | None, nargs="?", help="a run folder; or give --model, --weights and --data")
    add_data_options(made)
    made.add_argument("--suite", type=str, default="nearest", help=SUITE_HELP)
    add_measuring_options(made, "of the attacks' random starts", "32")
    made.add_argument(
        "--eps", type=str | None, metavar="EPS,...", help="these radii; default: ten even steps up to the threat's"
    )
    made.add_argument("--overwrite", action="store_true", help="replace other distances in the same folder")
    return made


def run(given: Parsed) -> Result:
    """Find the distances, and return the robust accuracy at each radius."""
    from unperturbed.cli.setup import find_setup, radii_of
    from unperturbed.evaluation.curve import SUITES, minimum_norm
    from unperturbed.reports.charts.curves import AccuracyCurve, curves_chart
    from unperturbed.reports.charts.style import save_chart

    if given.suite not in SUITES:
        raise InputError(f"There is no suite {given.suite!r} for distances. {hint(given.suite, SUITES)}")
    subject = find_setup(given)
    radii = None if given.eps is None else [threat.eps for threat in radii_of(subject.threat, given.eps)]
    threat = subject.threat if radii is None else replace(subject.threat, eps=max(radii))
    folder = subject.folder()
    subject.keep()
    with progress() as report, repeatable():
        found = minimum_norm(
            subject.model,
            subject.split,
            threat,
            given.suite,
            radii=radii,
            out=folder,
            seed=given.seed,
            batch_size=given.batch_size,
            overwrite=given.overwrite,
            progress=report,
        )

    steps = sorted({*(threat.eps * k / DRAWN for k in range(DRAWN)), *found.radii})
    line = AccuracyCurve("", steps, [found.at(eps) for eps in steps], found.radii)
    caption = f"{threat.norm}, n = {found.n}, median distance {_length(found.quantile(0.5))}: upper bounds"
    picture = folder / f"curve-{threat.norm}.svg"
    save_chart(curves_chart([line], "Robust accuracy against eps", caption, f"eps ({threat.norm})"), picture)
    for text in found.warnings:
        say(text, "warning")
    value = {"run": str(subject.home), "figure": str(picture), "selection": subject.examples} | found.json()
    return Result(value, [_headline(found, subject.examples), _curve(found), f"Picture: {picture}"])


def _headline(found: "Distances", chosen: str) -> Any:
    rows = [
        ("clean accuracy", str(found.clean_accuracy)),
        ("distances", ", ".join(f"{_length(found.quantile(share))} ({share:.0%})" for share in (0.25, 0.5, 0.75))),
        ("", f"suite {found.suite}: {found.note}"),
        ("examples", ", ".join(f"{count} {verdict}" for verdict, count in found.counts.items())),
        *([("", f"selected: {chosen}")] if chosen != "all" else []),
        ("nearest by", ", ".join(f"{each.name} {each.nearest}" for each in found.searches)),
        ("time", f"{found.seconds:.1f} s"),
    ]
    return table("", ("", found.threat), rows)


def _curve(found: "Distances") -> Any:
    return table(
        "", ("eps", "robust accuracy"), [(f"{eps:.4g}", robust_cell(each, found.doubts)) for eps, each in found.curve()]
    )


def _length(distance: float) -> str:
    return f"{distance:.3g}" if distance < float("inf") else "not found"
