"""List the training methods and their maximisers."""

from dataclasses import asdict

from jsonargparse import ArgumentParser

from unperturbed.catalogue import listing
from unperturbed.cli.choice import choice
from unperturbed.cli.console import Result, table
from unperturbed.cli.options import Parsed, new_parser

POSITIONAL = None


def parser() -> ArgumentParser:
    """Return the command's parser."""
    command_parser = new_parser("methods", str(__doc__))
    command_parser.add_argument("--choose", action="store_true", help="the method for each training time, as measured")
    return command_parser


def run(parsed: Parsed) -> Result:
    """Return the methods, with tables that include the maximisers; or the choice among them."""
    if parsed.choose:
        return choice()
    methods, maximisers = listing("methods"), listing("maximise")
    views = (
        table("--method", ("name", "objective"), [(entry.name, entry.summary) for entry in methods.values()]),
        table("--method.maximiser", ("name", ""), [(entry.name, entry.summary) for entry in maximisers.values()]),
    )
    return Result([asdict(entry) for entry in methods.values()], views)
