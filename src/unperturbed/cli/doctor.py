"""Check model, data and threat in seconds, before anything is trained or evaluated."""

from typing import Any

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result, table
from unperturbed.cli.options import Parsed, add_data_options, new_parser

POSITIONAL = "run"


def parser() -> ArgumentParser:
    """Return the command's parser."""
    made = new_parser("doctor", str(__doc__))
    made.add_argument("run", type=str | None, nargs="?", help="a run folder; or give --model, --weights and --data")
    add_data_options(made)
    made.add_argument("--seed", type=int, default=0, help="of random numbers")
    made.add_argument("--precision", type=str, default="32", help="of the arithmetic: 32 or 64")
    return made


def run(given: Parsed) -> Result:
    """Look, and return what is wrong; exit code 1 where something is."""
    from unperturbed.cli.setup import find_setup
    from unperturbed.examinations.preflight import doctor

    given.plain.examples, given.plain.examples_seed = None, None
    subject = find_setup(given)
    found = doctor(subject.model, subject.data, subject.threat, seed=given.seed)
    views: list[Any] = [f"{symptom.name}: {symptom.text}" for symptom in found.symptoms] or ["Nothing wrong was found."]
    rows = [(name, f"about {seconds:,.0f} s") for name, seconds in found.facts.get("seconds", {}).items()]
    accuracy = found.facts.get("clean_accuracy")
    facts = [("clean accuracy, a sample", f"{accuracy:.1%}")] if accuracy is not None else []
    return Result(
        found.json(), [*views, table("", ("", "on this machine"), [*facts, *rows])], int(bool(found.symptoms))
    )
