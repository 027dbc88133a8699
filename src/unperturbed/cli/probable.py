"""Measure on how many examples most random perturbations change nothing: not robustness against an attack."""

from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result, progress, repeatable, say, table
from unperturbed.cli.options import Parsed, add_data_options, add_measuring_options, new_parser
from unperturbed.errors import InputError
from unperturbed.runs import write_json

if TYPE_CHECKING:
    from unperturbed.evaluation.probable import Probable

POSITIONAL = "run"


def parser() -> ArgumentParser:
    """Return the command's parser."""
    made = new_parser("probable", str(__doc__))
    made.add_argument("run", type=str | None, nargs="?", help="a run folder; or give --model, --weights and --data")
    add_data_options(made)
    made.add_argument(
        "--rho", type=str, default="0.1,0.05,0.01", metavar="RHO,...", help="shares of the draws that may be wrong"
    )
    made.add_argument("--draws", type=int, default=100, help="random perturbations of each example")
    add_measuring_options(made, "of the draws", "32")
    made.add_argument("--overwrite", action="store_true", help="replace other counts in the same folder")
    return made


def run(given: Parsed) -> Result:
    """Draw, and return the share of examples that pass at each rho."""
    from unperturbed.cli.setup import find_setup
    from unperturbed.evaluation.probable import probable_accuracy

    rho = _shares(given.rho)
    if "," in (given.threat or ""):
        raise InputError(f"--threat is {given.threat}, but random perturbations are drawn from one: name one.")
    subject = find_setup(given)
    subject.keep()
    folder = subject.folder(subject.threat)
    with progress() as report, repeatable():
        found = probable_accuracy(
            subject.model,
            subject.split,
            subject.threat,
            rho,
            draws=given.draws,
            out=folder,
            overwrite=given.overwrite,
            seed=given.seed,
            batch_size=given.batch_size,
            progress=report,
        )
    for text in found.warnings:
        say(text, "warning")
    value = found.json() | {"selection": subject.examples}
    write_json(folder / "probable.json", value)
    return Result({"run": str(subject.home)} | value, [_headline(found, subject.examples)])


def _shares(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--rho is {text!r}: write shares with commas, such as 0.1,0.05,0.01.") from error


def _headline(found: "Probable", chosen: str) -> Any:
    rows = [
        ("clean accuracy", str(found.clean_accuracy)),
        ("mean over draws", str(found.mean_accuracy)),
        *((f"right on {100 * (1 - rho):.4g}% of draws", str(each)) for rho, each in found.accuracy.items()),
        ("", f"{found.draws} {found.note}"),
        ("undecided", ", ".join(map(str, found.unknown.values())) if any(found.unknown.values()) else "none"),
        *([("examples", chosen)] if chosen != "all" else []),
        ("time", f"{found.seconds:.1f} s"),
    ]
    return table("", ("", found.threat), rows)
