"""Explain predictions: saliency, synthesised inputs, counterfactuals, and scores of their reliability."""

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
    command_parser = new_parser("explain", str(__doc__))
    command_parser.add_argument("runs", type=str, nargs="*", help="run folders; or give --model, --weights and --data")
    add_data_options(command_parser)
    names = ", ".join(listing("examinations/explanations"))
    command_parser.add_argument(
        "--explanations",
        type=str,
        default="all",
        metavar="NAME,...",
        help=f"explanations, with commas: {names}, all, or package.module:Name",
    )
    add_examples_options(command_parser, "test", default=200)
    command_parser.add_argument("--seed", type=int, default=0, help="of random directions, starts and weights")
    command_parser.add_argument("--batch-size", type=Literal["auto"] | int, default="auto", help="examples in a batch")
    command_parser.add_argument("--precision", type=Literal["32", "64"], default="32", help="of the arithmetic")
    command_parser.add_argument(
        "--judge", type=str | None, metavar="RUN", help="a second, robust network that judges the counterfactuals"
    )
    command_parser.add_argument(
        "--figures", type=str | None, metavar="FORMAT,...", help="also write each grid of pictures as svg, png or pdf"
    )
    return command_parser


def run(parsed: Parsed) -> Result:
    """Explain each network, and write scores and pictures."""
    from unperturbed.cli.setup import find_setup
    from unperturbed.data.selection import parse
    from unperturbed.examinations.explain import FORMATS, find_explanations
    from unperturbed.examinations.explain_runs import explain_all
    from unperturbed.reports.findings import number_text

    explainers = find_explanations(parsed.explanations.split(","))
    figures = tuple(parsed.figures.split(",")) if parsed.figures else ()
    if unknown := [network for network in figures if network not in FORMATS]:
        raise InputError(f"--figures: there is no format {unknown[0]!r}; the formats are {', '.join(FORMATS)}.")
    if "," in (parsed.threat or ""):
        raise InputError(f"--threat is {parsed.threat}, but adversarial inputs are of one threat set: name one.")
    if len(set(parsed.runs)) < len(parsed.runs):
        raise InputError(f"A run is named twice in {', '.join(parsed.runs)}.")
    no_selection = {"examples_seed": None, "examples": None}
    if len(parsed.runs) < 2:
        setups = [find_setup(with_options(parsed, run=parsed.runs[0] if parsed.runs else None, **no_selection))]
    else:
        setups = [find_setup(with_options(parsed, run=folder, out=None, **no_selection)) for folder in parsed.runs]
    for setup in setups:
        setup.keep()
    with progress() as report:
        explained_runs = explain_all(
            [candidate_of(setup, parsed.data) for setup in setups],
            setups[0].threat if parsed.threat is not None else None,
            list(explainers.values()),
            parse(parsed.examples, parsed.examples_seed),
            parsed.seed,
            parsed.batch_size,
            parsed.judge,
            parsed.out if len(setups) > 1 else None,
            figures,
            parsed.trust,
            report,
        )
    for network in explained_runs.explained:
        for text in network.warnings:
            say(f"{network.name}: {text}", "warning")
        network.raise_failures()
    rows = [
        (network.name, f"{explanation.finding.title}: {explanation.finding.summary}")
        for network in explained_runs.explained
        for explanation in network.explanations.values()
    ]
    scores = [
        (network.name, explanation.finding.title, number.name, number_text(number))
        for network in explained_runs.explained
        for explanation in network.explanations.values()
        for number in explanation.finding.numbers
    ]
    first = explained_runs.explained[0].name
    differences = [
        (score, network, number_text(number))
        for score, row in explained_runs.differences.items()
        for network, number in row.items()
    ]
    title, columns = f"{first} minus the others, paired over examples", ("score", "network", "difference")
    views = [
        table("", ("network", "explanation"), rows),
        *(
            [table("scores, with 95% intervals", ("network", "explanation", "score", "value"), scores)]
            if scores
            else []
        ),
        *([table(title, columns, differences)] if differences else []),
        *(f"Explanations: {folder}" for folder in explained_runs.folders),
    ]
    return Result(
        explained_runs.json(),
        [*views, *([] if explained_runs.side is None else [f"Side by side: {explained_runs.side}"])],
    )
