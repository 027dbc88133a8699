"""Measure the distances to the nearest misclassified points: robust accuracy against eps, as a table and a picture."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result, progress, repeatable, robust_cell, say, table
from unperturbed.cli.engine import engine_of
from unperturbed.cli.options import Parsed, add_data_options, add_measuring_options, new_parser
from unperturbed.errors import InputError, hint

if TYPE_CHECKING:
    from unperturbed.evaluation.distances import Distances

POSITIONAL = "run"
SUITE_HELP = (
    "the attacks: nearest (AutoAttack without Square), standard, plus (longer), pgd (50 steps, 20 restarts), "
    "sparse (L0)"
)
DRAWN = 100
"""Number of even steps of eps in the picture."""


def parser() -> ArgumentParser:
    """Return the command's parser."""
    command_parser = new_parser("curve", str(__doc__))
    command_parser.add_argument(
        "run", type=str | None, nargs="?", help="a run folder; or give --model, --weights and --data"
    )
    add_data_options(command_parser)
    command_parser.add_argument("--suite", type=str, default="nearest", help=SUITE_HELP)
    add_measuring_options(command_parser, "of the attacks' random starts", "32")
    command_parser.add_argument(
        "--eps", type=str | None, metavar="EPS,...", help="these radii; default: ten even steps up to the threat's"
    )
    command_parser.add_argument("--overwrite", action="store_true", help="replace other distances in the same folder")
    return command_parser


def run(parsed: Parsed) -> Result:
    """Find the distances, and return the robust accuracy at each radius."""
    from unperturbed.cli.setup import find_setup
    from unperturbed.cli.threat_options import radii_of
    from unperturbed.evaluation.curve import SUITES, minimum_norm
    from unperturbed.reports.charts.curves import AccuracyCurve, curves_chart
    from unperturbed.reports.charts.style import save_chart

    if parsed.suite not in SUITES:
        raise InputError(f"There is no suite {parsed.suite!r} for distances. {hint(parsed.suite, SUITES)}")
    engine = engine_of(parsed)
    subject = find_setup(parsed)
    radii = None if parsed.eps is None else [threat.eps for threat in radii_of(subject.threat, parsed.eps)]
    threat = subject.threat if radii is None else replace(subject.threat, eps=max(radii))
    folder = subject.folder()
    subject.keep()
    with progress() as report, repeatable():
        distances = minimum_norm(
            subject.model,
            subject.split,
            threat,
            parsed.suite,
            radii=radii,
            out=folder,
            seed=parsed.seed,
            batch_size=parsed.batch_size,
            overwrite=parsed.overwrite,
            engine=engine,
            progress=report,
        )

    steps = sorted({*(threat.eps * k / DRAWN for k in range(DRAWN)), *distances.radii})
    line = AccuracyCurve("", steps, [distances.at(eps) for eps in steps], distances.radii)
    caption = f"{threat.norm}, n = {distances.n}, median distance {_length(distances.quantile(0.5))}: upper bounds"
    picture = folder / f"curve-{threat.norm}.svg"
    save_chart(curves_chart([line], "Robust accuracy against eps", caption, f"eps ({threat.norm})"), picture)
    for text in distances.warnings:
        say(text, "warning")
    value = {"run": str(subject.home), "figure": str(picture), "selection": subject.examples} | distances.json()
    return Result(value, [_headline(distances, subject.examples), _curve(distances), f"Picture: {picture}"])


def _headline(distances: "Distances", chosen: str) -> Any:
    rows = [
        ("clean accuracy", str(distances.clean_accuracy)),
        ("quartiles of distances", ", ".join(_length(distances.quantile(share)) for share in (0.25, 0.5, 0.75))),
        ("", f"suite {distances.suite}: {distances.note}"),
        ("examples", ", ".join(f"{count} {verdict}" for verdict, count in distances.counts.items())),
        *([("", f"selected: {chosen}")] if chosen != "all" else []),
        ("nearest by", ", ".join(f"{search.name} {search.nearest}" for search in distances.searches)),
        ("time", f"{distances.seconds:.1f} s"),
    ]
    return table("", ("", distances.threat), rows)


def _curve(distances: "Distances") -> Any:
    return table(
        "",
        ("eps", "robust accuracy"),
        [(f"{eps:.4g}", robust_cell(accuracy, distances.doubts)) for eps, accuracy in distances.curve()],
    )


def _length(distance: float) -> str:
    return f"{distance:.3g}" if distance < float("inf") else "not found"
