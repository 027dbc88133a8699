"""List the training methods and their maximisers."""

from dataclasses import asdict

from jsonargparse import ArgumentParser

from unperturbed.catalogue import listing
from unperturbed.cli.console import Result, table
from unperturbed.cli.options import Parsed, new_parser

POSITIONAL = None


def parser() -> ArgumentParser:
    """Return the command's parser."""
    return new_parser("methods", str(__doc__))


def run(parsed: Parsed) -> Result:
    """Return the methods; the tables include the maximisers."""
    methods, maximisers = listing("methods"), listing("maximise")
    views = (
        table("--method", ("name", "objective"), [(entry.name, entry.summary) for entry in methods.values()]),
        table("--method.maximiser", ("name", ""), [(entry.name, entry.summary) for entry in maximisers.values()]),
    )
    return Result([asdict(entry) for entry in methods.values()], views)
