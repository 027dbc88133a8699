"""Upload a run folder to the Hugging Face hub, with a model card: weights, record and results in one commit."""

from pathlib import Path

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result
from unperturbed.cli.options import Parsed, new_parser
from unperturbed.errors import InputError

POSITIONAL = "names..."


def parser() -> ArgumentParser:
    """Return the command's parser."""
    command_parser = new_parser("push", str(__doc__))
    command_parser.add_argument("names", type=str, nargs="*", help="a run folder, then the repository: user/name")
    command_parser.add_argument(
        "--license", type=str | None, help="of the weights, by the hub's short name: mit, apache-2.0, cc-by-4.0"
    )
    command_parser.add_argument("--tags", type=str | None, metavar="TAG,...", help="more tags for the model card")
    command_parser.add_argument("--private", action="store_true", help="make a private repository")
    command_parser.add_argument("--message", type=str | None, help="of the commit")
    return command_parser


def run(parsed: Parsed) -> Result:
    """Upload the run, and return the address of the commit."""
    from unperturbed.hub.client import repository_of
    from unperturbed.hub.files import CARD, shared_files
    from unperturbed.results.push import push

    if len(parsed.names) != 2:
        raise InputError("push takes a run folder and a repository: unperturbed push runs/at user/name.")
    folder, repository = parsed.names
    options = {} if parsed.message is None else {"message": parsed.message}
    tags = [] if parsed.tags is None else parsed.tags.split(",")
    address = push(folder, repository, license=parsed.license, tags=tags, private=parsed.private, **options)
    files = [CARD, *shared_files(Path(folder))]
    name = repository_of(repository)
    views = [f"{address}: {len(files)} files", f"To get the run elsewhere: unperturbed pull {name}"]
    return Result({"repository": name, "commit": address, "files": files}, views)
