"""Measure accuracy under random perturbations, which is not robustness against an attack."""

from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result, progress, repeatable, say, table
from unperturbed.cli.engine import engine_of
from unperturbed.cli.options import Parsed, add_data_options, add_measuring_options, new_parser
from unperturbed.errors import InputError
from unperturbed.runs.verify import write_sealed

if TYPE_CHECKING:
    from unperturbed.evaluation.probable import Probable

POSITIONAL = "run"


def parser() -> ArgumentParser:
    """Return the command's parser."""
    command_parser = new_parser("probable", str(__doc__))
    command_parser.add_argument(
        "run", type=str | None, nargs="?", help="a run folder; or give --model, --weights and --data"
    )
    add_data_options(command_parser)
    command_parser.add_argument(
        "--rho", type=str, default="0.1,0.05,0.01", metavar="RHO,...", help="shares of the draws that may be wrong"
    )
    command_parser.add_argument("--draws", type=int, default=100, help="random perturbations of each example")
    add_measuring_options(command_parser, "of the draws", "32")
    command_parser.add_argument("--overwrite", action="store_true", help="replace other counts in the same folder")
    return command_parser


def run(parsed: Parsed) -> Result:
    """Draw, and return the share of examples that pass at each rho."""
    from unperturbed.cli.setup import find_setup
    from unperturbed.evaluation.probable import probable_accuracy

    rho = _shares(parsed.rho)
    if "," in (parsed.threat or ""):
        raise InputError(f"--threat is {parsed.threat}, but random perturbations are drawn from one: name one.")
    engine = engine_of(parsed)
    subject = find_setup(parsed)
    subject.keep()
    folder = subject.folder(subject.threat)
    with progress() as report, repeatable():
        probable = probable_accuracy(
            subject.model,
            subject.split,
            subject.threat,
            rho,
            draws=parsed.draws,
            out=folder,
            overwrite=parsed.overwrite,
            seed=parsed.seed,
            batch_size=parsed.batch_size,
            engine=engine,
            progress=report,
        )
    for text in probable.warnings:
        say(text, "warning")
    value = probable.json() | {"selection": subject.examples}
    write_sealed(folder / "probable.json", value)
    return Result({"run": str(subject.home)} | value, [_headline(probable, subject.examples)])


def _shares(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--rho is {text!r}: write shares with commas, such as 0.1,0.05,0.01.") from error


def _headline(probable: "Probable", chosen: str) -> Any:
    rows = [
        ("clean accuracy", str(probable.clean_accuracy)),
        ("mean over draws", str(probable.mean_accuracy)),
        *((f"right on {100 * (1 - rho):.4g}% of draws", str(accuracy)) for rho, accuracy in probable.accuracy.items()),
        ("", f"{probable.draws} {probable.note}"),
        ("undecided", ", ".join(map(str, probable.unknown.values())) if any(probable.unknown.values()) else "none"),
        *([("examples", chosen)] if chosen != "all" else []),
        ("time", f"{probable.seconds:.1f} s"),
    ]
    return table("", ("", probable.threat), rows)
