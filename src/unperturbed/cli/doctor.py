"""Check model, data and threat in seconds, before training or an evaluation."""

from dataclasses import replace
from typing import Any, Literal

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result, table
from unperturbed.cli.options import Parsed, add_data_options, new_parser

POSITIONAL = "run"


def parser() -> ArgumentParser:
    """Return the command's parser."""
    command_parser = new_parser("doctor", str(__doc__))
    command_parser.add_argument(
        "run", type=str | None, nargs="?", help="a run folder; or give --data, --model and, if it is trained, --weights"
    )
    add_data_options(command_parser)
    command_parser.add_argument("--seed", type=int, default=0, help="of random numbers")
    command_parser.add_argument("--precision", type=Literal["32", "64"], default="32", help="of the arithmetic")
    return command_parser


def run(parsed: Parsed) -> Result:
    """Return the faults; exit code 1 if there are any."""
    from unperturbed.cli.network import is_untrained
    from unperturbed.cli.setup import find_setup
    from unperturbed.examinations.preflight import doctor

    parsed.plain.examples, parsed.plain.examples_seed = None, None
    subject = find_setup(parsed, trained=False)
    preflight = doctor(subject.model, subject.data, subject.threat, seed=parsed.seed)
    if parsed.run is None and parsed.weights is None and is_untrained(parsed.trees["model"]):
        untrained = [symptom for symptom in preflight.symptoms if symptom.name != "chance"]
        preflight = replace(preflight, symptoms=tuple(untrained))
    views: list[Any] = [f"{symptom.name}: {symptom.text}" for symptom in preflight.symptoms] or [
        "Nothing wrong was found."
    ]
    rows = [(name, f"about {seconds:,.0f} s") for name, seconds in preflight.facts.get("seconds", {}).items()]
    accuracy = preflight.facts.get("clean_accuracy")
    facts = [("clean accuracy, a sample", f"{accuracy:.1%}")] if accuracy is not None else []
    return Result(
        preflight.json(), [*views, table("", ("", "on this machine"), [*facts, *rows])], int(bool(preflight.symptoms))
    )
