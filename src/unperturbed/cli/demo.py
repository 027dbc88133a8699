"""Train and evaluate on the embedded digits, and write a report."""

from pathlib import Path

from jsonargparse import ArgumentParser

from unperturbed.cli import evaluate, report, train
from unperturbed.cli.console import Result, say, shell_words
from unperturbed.cli.options import Parsed, new_parser, parse

POSITIONAL = None


def parser() -> ArgumentParser:
    """Return the command's parser."""
    command_parser = new_parser("demo", str(__doc__))
    command_parser.add_argument(
        "--out", type=str | None, metavar="FOLDER", help="default: the first free of runs/demo, demo-2 ..."
    )
    command_parser.add_argument("--epochs", type=int, default=20, help="passes over the training data")
    return command_parser


def run(parsed: Parsed) -> Result:
    """Run the three commands of a first session, and return the result of the evaluation with the path of the page."""
    out = parsed.out or str(_free("demo"))
    training = ["--data", "digits", "--method", "at", "--epochs", str(parsed.epochs), "--out", out]
    say(f"unperturbed train {shell_words(training)}")
    train.run(parse(train.parser(), training))
    say(f"unperturbed evaluate {shell_words([out])}")
    evaluated = evaluate.run(parse(evaluate.parser(), [out], evaluate.POSITIONAL))
    say(f"unperturbed report {shell_words([out])}")
    written = report.run(parse(report.parser(), [out], report.POSITIONAL))
    value = {**evaluated.value, "report": written.value["page"]}
    return Result(value, [*evaluated.views, *written.views], evaluated.code)


def _free(name: str) -> Path:
    number = 1
    while (folder := Path("runs") / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return folder
