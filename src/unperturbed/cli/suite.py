"""Propose an order of attacks from the evaluations of your own runs: unperturbed suite suggest RUN..."""

from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result, table
from unperturbed.cli.options import Parsed, new_parser
from unperturbed.errors import InputError

if TYPE_CHECKING:
    from unperturbed.evaluation.suggestion import SuggestedOrder

POSITIONAL = "words..."


def parser() -> ArgumentParser:
    """Return the command's parser."""
    command_parser = new_parser("suite", str(__doc__))
    command_parser.add_argument("words", type=str, nargs="*", help="suggest, and evaluated run folders")
    command_parser.add_argument("--threat", type=str | None, help="only of the evaluations under this threat")
    return command_parser


def run(parsed: Parsed) -> Result:
    """Read the evaluations, and return the order of attacks with its table."""
    from unperturbed.evaluation.suggestion import suggest_order

    if parsed.words[:1] != ["suggest"]:
        words = " ".join(parsed.words)
        raise InputError(f"There is no command {f'suite {words}'.strip()!r}: unperturbed suite suggest RUN...")
    order = suggest_order(parsed.words[1:], parsed.threat)
    return Result(order.json(), _views(order))


def _views(order: "SuggestedOrder") -> list[Any]:
    rows = [
        (
            step.attack,
            step.suite,
            f"{step.attacked} of {step.standing}",
            str(step.broken),
            f"{step.passes:,.0f}",
            f"{1000 * step.broken / (step.attacked * step.passes):.2f}",
        )
        for step in order.steps
    ]
    columns = ("attack", "as in suite", "attacked of standing", "broken", "passes each", "breaks per 1,000 passes")
    views: list[Any] = [table("", columns, rows)]
    views.append(f"{order.standing} examples stand after them. From {order.evaluations} evaluations.")
    if order.idle:
        views.append(f"Breaks nothing more: {', '.join(order.idle)}.")
    if order.steps and all(step.name for step in order.steps):
        views.append(f"Run it: unperturbed evaluate RUN --suite {','.join(step.name for step in order.steps)}")
    return views
