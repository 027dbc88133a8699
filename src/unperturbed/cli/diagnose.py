"""Diagnose trained networks: margins, layers, features, confidence, generalisation."""

from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from unperturbed.catalogue import listing
from unperturbed.cli.console import Result, progress, say, table
from unperturbed.cli.engine import add_engine_options, engine_of
from unperturbed.cli.options import Parsed, add_data_options, add_examples_options, new_parser
from unperturbed.errors import InputError

if TYPE_CHECKING:
    from unperturbed.cli.setup import Setup
    from unperturbed.examinations.several import Candidate, Diagnoses

POSITIONAL = "runs..."


def parser() -> ArgumentParser:
    """Return the command's parser."""
    command_parser = new_parser("diagnose", str(__doc__))
    command_parser.add_argument("runs", type=str, nargs="*", help="run folders; or give --model, --weights and --data")
    add_data_options(command_parser)
    names = ", ".join(listing("examinations/diagnostics"))
    command_parser.add_argument(
        "--diagnostics",
        type=str,
        default="all",
        metavar="NAME,...",
        help=f"diagnostics, with commas: {names}, all of these (all), and your own as package.module:function",
    )
    add_examples_options(command_parser, "test and as many training", default=1000)
    command_parser.add_argument("--seed", type=int, default=0, help="of random directions and starts")
    command_parser.add_argument("--batch-size", type=Literal["auto"] | int, default="auto", help="examples in a batch")
    add_engine_options(command_parser, "the diagnostics")
    command_parser.add_argument("--precision", type=Literal["32", "64"], default="32", help="of the arithmetic")
    return command_parser


def run(parsed: Parsed) -> Result:
    """Diagnose each network, compare them, and write the page."""
    from unperturbed.cli.setup import find_setup
    from unperturbed.data.selection import parse
    from unperturbed.examinations.by_name import find_diagnostics
    from unperturbed.examinations.several import check_comparable, diagnose_all

    if "," in (parsed.threat or ""):
        raise InputError(
            f"--threat is {parsed.threat}, but networks are diagnosed at one size of perturbations: name one."
        )
    runs = [str(Path(folder)) for folder in parsed.runs]
    if len({Path(folder).resolve() for folder in runs}) < len(runs):
        raise InputError(f"A run is named twice in {', '.join(runs)}.")
    diagnostics, engine = find_diagnostics(parsed.diagnostics.split(","), parsed.trust), engine_of(parsed)
    all_examples = {"examples_seed": None, "examples": None}
    if len(runs) < 2:
        setups = [find_setup(with_options(parsed, run=runs[0] if runs else None, **all_examples))]
    else:
        setups = [find_setup(with_options(parsed, run=folder, out=None, **all_examples)) for folder in runs]
    candidates = [candidate_of(setup, parsed.data) for setup in setups]
    examples = parse(parsed.examples, parsed.examples_seed)
    check_comparable(candidates, parsed.threat is not None, examples)
    for setup in setups:
        setup.keep()
    with progress() as report:
        diagnoses = diagnose_all(
            candidates,
            setups[0].threat if parsed.threat is not None else None,
            diagnostics,
            examples,
            parsed.seed,
            parsed.batch_size,
            parsed.out if len(setups) > 1 else None,
            report,
            engine,
        )
    _say_what_happened(diagnoses)
    diagnoses.raise_failures()
    return Result(diagnoses.json(), [*_views(diagnoses), f"Page: {diagnoses.page}"])


def candidate_of(setup: "Setup", place: str | None) -> "Candidate":
    """Return the network of a command as a candidate for examinations."""
    from unperturbed.examinations.several import Candidate
    from unperturbed.training.run import training_examples

    train = training_examples(setup.stored, setup.data, setup.home, place)
    return Candidate(
        setup.home, setup.model, setup.data, setup.split, train, setup.threat, setup.stored, tuple(setup.parts)
    )


def _say_what_happened(diagnoses: "Diagnoses") -> None:
    for text in diagnoses.renewed:
        say(text)
    for text in diagnoses.notes:
        say(text, "warning")
    for network, errors in (diagnoses.failed or {}).items():
        for name, error in errors.items():
            say(f"{name} failed on {network}: {error}", "warning")
    if diagnoses.norms:
        norms = ", ".join(diagnoses.norms)
        say(f"No comparison: eps in training was measured in different norms ({norms}).", "warning")


def with_options(parsed: Parsed, **values: Any) -> Parsed:
    """Return the options with some values replaced."""
    plain = copy(parsed.plain)
    for name, value in values.items():
        setattr(plain, name, value)
    return replace(parsed, plain=plain)


def _views(diagnoses: "Diagnoses") -> list[Any]:
    comparison = diagnoses.comparison
    if comparison is not None:
        claims, controls = ("\n".join(map(str, trends)) for trends in (comparison.claims, comparison.controls))
        return [
            claims,
            *([f"Other quantities, not counted as claims:\n{controls}"] if controls else []),
            *comparison.notes,
        ]
    rows = [
        (network.name, f"{finding.title}: {finding.summary}")
        for network in diagnoses.examined
        for finding in network.findings
    ]
    return [table("", ("network", "finding"), rows)]
