"""List the models that have a name."""

from dataclasses import asdict

from jsonargparse import ArgumentParser

from unperturbed.catalogue import listing
from unperturbed.cli.console import Result, table
from unperturbed.cli.options import Parsed, new_parser

POSITIONAL = None


def parser() -> ArgumentParser:
    """Return the command's parser."""
    return new_parser("models", str(__doc__))


def run(given: Parsed) -> Result:
    """Return the models."""
    models = listing("architectures")
    rows = [(each.name, each.summary) for each in models.values()]
    own = "Your own: --model package.module:Class, with --model.X for its argument X."
    return Result([asdict(each) for each in models.values()], (table("--model", ("name", ""), rows), own))
