"""List the data that has a name, and the other forms that --data takes."""

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result, table
from unperturbed.cli.options import Parsed, new_parser
from unperturbed.data.names import DATASETS, forms_in_words

POSITIONAL = None


def parser() -> ArgumentParser:
    """Return the command's parser."""
    return new_parser("datasets", str(__doc__))


def run(given: Parsed) -> Result:
    """Return the names of data."""
    others = f"Also: {forms_in_words()}."
    listed = [{"name": name, "summary": summary} for name, summary in DATASETS.items()]
    return Result(listed, (table("--data", ("name", ""), list(DATASETS.items())), others))
