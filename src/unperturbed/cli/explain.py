"""Explain predictions: saliency, synthesised inputs, counterfactuals, and scores that say how far to trust them."""

from typing import Literal

from jsonargparse import ArgumentParser

from unperturbed.catalogue import listing
from unperturbed.cli.console import Result, progress, say, table
from unperturbed.cli.diagnose import candidate_of, with_options
from unperturbed.cli.options import Parsed, add_data_options, add_examples_options, new_parser
from unperturbed.errors import InputError

POSITIONAL = "runs..."


def parser() -> ArgumentParser:
    """Return the command's parser."""
    made = new_parser("explain", str(__doc__))
    made.add_argument("runs", type=str, nargs="*", help="run folders; or give --model, --weights and --data")
    add_data_options(made)
    names = ", ".join(listing("examinations/explanations"))
    made.add_argument(
        "--explanations", type=str, default="all", metavar="NAME,...", help=f"which ones, with commas: {names}, or all"
    )
    add_examples_options(made, "test", default=200)
    made.add_argument("--seed", type=int, default=0, help="of random directions, starts and weights")
    made.add_argument(
        "--batch-size", type=Literal["auto"] | int, default="auto", help="examples that a network sees at a time"
    )
    made.add_argument("--precision", type=Literal["32", "64"], default="32", help="of the arithmetic")
    made.add_argument(
        "--judge", type=str | None, metavar="RUN", help="a second, robust network that judges the counterfactuals"
    )
    made.add_argument(
        "--figures", type=str | None, metavar="FORMAT,...", help="also write each grid of pictures as svg, png or pdf"
    )
    return made


def run(given: Parsed) -> Result:
    """Explain each network, and write scores and pictures."""
    from unperturbed.cli.setup import find_setup
    from unperturbed.data.selection import parse
    from unperturbed.examinations.explain import FORMATS, find_explanations
    from unperturbed.examinations.explain_runs import explain_all

    asked = find_explanations(given.explanations.split(","))
    figures = tuple(given.figures.split(",")) if given.figures else ()
    if unknown := [each for each in figures if each not in FORMATS]:
        raise InputError(f"--figures: there is no format {unknown[0]!r}; the formats are {', '.join(FORMATS)}.")
    if "," in (given.threat or ""):
        raise InputError(f"--threat is {given.threat}, but adversarial inputs are of one threat set: name one.")
    if len(set(given.runs)) < len(given.runs):
        raise InputError(f"A run is named twice in {', '.join(given.runs)}.")
    every = {"examples_seed": None, "examples": None}
    if len(given.runs) < 2:
        setups = [find_setup(with_options(given, run=given.runs[0] if given.runs else None, **every))]
    else:
        setups = [find_setup(with_options(given, run=folder, out=None, **every)) for folder in given.runs]
    for setup in setups:
        setup.keep()
    with progress() as report:
        found = explain_all(
            [candidate_of(setup, given.data) for setup in setups],
            setups[0].threat if given.threat is not None else None,
            list(asked.values()),
            parse(given.examples, given.examples_seed),
            given.seed,
            given.batch_size,
            given.judge,
            given.out if len(setups) > 1 else None,
            figures,
            given.trust,
            report,
        )
    for each in found.explained:
        for text in each.warnings:
            say(f"{each.name}: {text}", "warning")
        each.raise_failures()
    rows = [
        (each.name, f"{explanation.finding.title}: {explanation.finding.summary}")
        for each in found.explained
        for explanation in each.explanations.values()
    ]
    views = [table("", ("network", "explanation"), rows), *(f"Explanations: {folder}" for folder in found.folders)]
    return Result(found.json(), [*views, *([] if found.side is None else [f"Side by side: {found.side}"])])
