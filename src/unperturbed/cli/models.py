"""List the named models, and the libraries and files that others come from."""

from dataclasses import asdict

from jsonargparse import ArgumentParser

from unperturbed.catalogue import listing
from unperturbed.cli.console import Result, table
from unperturbed.cli.options import Parsed, new_parser

POSITIONAL = None


def parser() -> ArgumentParser:
    """Return the command's parser."""
    return new_parser("models", str(__doc__))


def run(parsed: Parsed) -> Result:
    """Return the models."""
    models = [*listing("architectures").values(), *listing("architectures/libraries").values()]
    rows = [(entry.name, entry.summary) for entry in models]
    hint = "Your own: --model package.module:Class, with --model.X for its argument X."
    return Result([asdict(entry) for entry in models], (table("--model", ("name", ""), rows), hint))
