"""Examine what robustness did to trained networks: margins, layers, features, confidence, generalisation."""

from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from unperturbed.catalogue import listing
from unperturbed.cli.console import Result, progress, say, table
from unperturbed.cli.options import Parsed, add_data_options, add_examples_options, new_parser
from unperturbed.errors import InputError

if TYPE_CHECKING:
    from unperturbed.cli.setup import Setup
    from unperturbed.examinations.several import Candidate, Diagnoses

POSITIONAL = "runs..."


def parser() -> ArgumentParser:
    """Return the command's parser."""
    made = new_parser("diagnose", str(__doc__))
    made.add_argument("runs", type=str, nargs="*", help="run folders; or give --model, --weights and --data")
    add_data_options(made)
    names = ", ".join(listing("examinations/diagnostics"))
    made.add_argument(
        "--diagnostics",
        type=str,
        default="all",
        metavar="NAME,...",
        help=f"which ones, with commas: {names}, all of these (all), and your own as package.module:function",
    )
    add_examples_options(made, "test and as many training", default=1000)
    made.add_argument("--seed", type=int, default=0, help="of random directions and starts")
    made.add_argument(
        "--batch-size", type=Literal["auto"] | int, default="auto", help="examples that a network sees at a time"
    )
    made.add_argument("--precision", type=Literal["32", "64"], default="32", help="of the arithmetic")
    return made


def run(given: Parsed) -> Result:
    """Diagnose each network, compare them, and write the page."""
    from unperturbed.cli.setup import find_setup
    from unperturbed.data.selection import parse
    from unperturbed.examinations.by_name import find_diagnostics
    from unperturbed.examinations.several import check_comparable, diagnose_all

    if "," in (given.threat or ""):
        raise InputError(
            f"--threat is {given.threat}, but networks are diagnosed at one size of perturbations: name one."
        )
    runs = [str(Path(folder)) for folder in given.runs]
    if len({Path(folder).resolve() for folder in runs}) < len(runs):
        raise InputError(f"A run is named twice in {', '.join(runs)}.")
    diagnostics = find_diagnostics(given.diagnostics.split(","), given.trust)
    all_examples = {"examples_seed": None, "examples": None}
    if len(runs) < 2:
        setups = [find_setup(with_options(given, run=runs[0] if runs else None, **all_examples))]
    else:
        setups = [find_setup(with_options(given, run=folder, out=None, **all_examples)) for folder in runs]
    candidates = [candidate_of(setup, given.data) for setup in setups]
    examples = parse(given.examples, given.examples_seed)
    check_comparable(candidates, given.threat is not None, examples)
    for setup in setups:
        setup.keep()
    with progress() as report:
        found = diagnose_all(
            candidates,
            setups[0].threat if given.threat is not None else None,
            diagnostics,
            examples,
            given.seed,
            given.batch_size,
            given.out if len(setups) > 1 else None,
            report,
        )
    _say_what_happened(found)
    found.raise_failures()
    return Result(found.json(), [*_views(found), f"Page: {found.page}"])


def candidate_of(setup: "Setup", place: str | None) -> "Candidate":
    """Return the network that a command names as one of several that are examined."""
    """Return the network that a command names as one of several that are examined."""
    from unperturbed.examinations.several import Candidate
    from unperturbed.training.run import training_examples

    train = training_examples(setup.stored, setup.data, setup.home, place)
    return Candidate(
        setup.home, setup.model, setup.data, setup.split, train, setup.threat, setup.stored, tuple(setup.parts)
    )


def _say_what_happened(found: "Diagnoses") -> None:
    for text in found.renewed:
        say(text)
    for text in found.notes:
        say(text, "warning")
    for network, errors in (found.failed or {}).items():
        for name, error in errors.items():
            say(f"{name} failed on {network}: {error}", "warning")
    if found.norms:
        norms = ", ".join(found.norms)
        say(f"No comparison: eps in training was measured in different norms ({norms}).", "warning")


def with_options(given: Parsed, **values: Any) -> Parsed:
    """Return the options with some of them replaced."""
    plain = copy(given.plain)
    for name, value in values.items():
        setattr(plain, name, value)
    return replace(given, plain=plain)


def _views(found: "Diagnoses") -> list[Any]:
    comparison = found.comparison
    if comparison is not None:
        claims, others = ("\n".join(map(str, trends)) for trends in (comparison.claims, comparison.controls))
        return [claims, *([f"Other quantities, not counted as claims:\n{others}"] if others else []), *comparison.notes]
    rows = [(each.name, f"{finding.title}: {finding.summary}") for each in found.examined for finding in each.findings]
    return [table("", ("network", "what was found"), rows)]
