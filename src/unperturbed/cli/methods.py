"""List the training methods, and the maximisers that they can use."""

from dataclasses import asdict

from jsonargparse import ArgumentParser

from unperturbed.catalogue import listing
from unperturbed.cli.console import Result, table
from unperturbed.cli.options import Parsed, new_parser

POSITIONAL = None


def parser() -> ArgumentParser:
    """Return the command's parser."""
    return new_parser("methods", str(__doc__))


def run(given: Parsed) -> Result:
    """Return the methods; readers get the maximisers too."""
    methods, maximisers = listing("methods"), listing("maximise")
    views = (
        table("--method", ("name", "what it minimises"), [(each.name, each.summary) for each in methods.values()]),
        table("--method.maximiser", ("name", ""), [(each.name, each.summary) for each in maximisers.values()]),
    )
    return Result([asdict(each) for each in methods.values()], views)
