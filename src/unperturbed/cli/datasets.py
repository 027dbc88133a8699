"""List the named data sets and the other forms of data."""

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result, table
from unperturbed.cli.options import Parsed, new_parser
from unperturbed.data.names import DATASETS, forms_in_words

POSITIONAL = None


def parser() -> ArgumentParser:
    """Return the command's parser."""
    return new_parser("datasets", str(__doc__))


def run(parsed: Parsed) -> Result:
    """Return the named data sets."""
    further = f"Also: {forms_in_words()}."
    listed = [{"name": name, "summary": summary} for name, summary in DATASETS.items()]
    return Result(listed, (table("--data", ("name", ""), list(DATASETS.items())), further))
