"""Download a run folder from the Hugging Face hub."""

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result, shell_words
from unperturbed.cli.options import Parsed, new_parser
from unperturbed.errors import InputError

POSITIONAL = "repository"


def parser() -> ArgumentParser:
    """Return the command's parser."""
    command_parser = new_parser("pull", str(__doc__))
    command_parser.add_argument("repository", type=str | None, nargs="?", help="on the hub: user/name")
    command_parser.add_argument("--out", type=str | None, metavar="FOLDER", help="the new run folder (runs/name)")
    command_parser.add_argument("--revision", type=str | None, help="a branch, tag or commit (default: main)")
    return command_parser


def run(parsed: Parsed) -> Result:
    """Download the run, and return its folder."""
    from unperturbed.hub.pull import pull

    if parsed.repository is None:
        raise InputError("The repository is missing: unperturbed pull user/name.")
    folder = pull(parsed.repository, parsed.out, revision=parsed.revision)
    return Result(
        {"run": str(folder)}, [f"Run: {folder}", f"To read it: unperturbed report {shell_words([str(folder)])}"]
    )
