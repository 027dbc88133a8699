"""Print a script that completes commands, options and names in a shell."""

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

import shtab
from jsonargparse import ArgumentParser

from unperturbed.catalogue import listing, summary_of
from unperturbed.cli.console import Result
from unperturbed.cli.main import COMMANDS
from unperturbed.cli.options import Parsed, new_parser
from unperturbed.data.names import DATASETS
from unperturbed.errors import InputError, hint

POSITIONAL = "shell"
SHELLS = ("bash", "zsh", "fish")
PATHS = {"FILE": shtab.FILE, "FOLDER": shtab.DIRECTORY}
"""The kinds of paths, by the placeholders in an option's help."""
RUN_FOLDERS = ("run", "runs")
"""Positional arguments that are folders."""


def parser() -> ArgumentParser:
    """Return the command's parser."""
    command_parser = new_parser(
        "completion",
        str(__doc__),
        epilog="bash: unperturbed completion bash > ~/.local/share/bash-completion/completions/unperturbed; "
        "zsh: into a file _unperturbed of a folder in $fpath; "
        "fish: into ~/.config/fish/completions/unperturbed.fish.",
    )
    command_parser.add_argument("shell", type=str, nargs="?", help=f"{', '.join(SHELLS)} (default: bash)")
    return command_parser


def run(parsed: Parsed) -> Result:
    """Return the script for a shell."""
    shell = parsed.shell or SHELLS[0]
    if shell not in SHELLS:
        raise InputError(f"There is no completion for the shell {shell!r}. {hint(shell, SHELLS)}")
    return Result({"shell": shell, "script": script(shell)}, [script(shell)])


def script(shell: str) -> str:
    """Return a script that completes the command line in a shell."""
    program = argparse.ArgumentParser(prog="unperturbed")
    program.add_argument("--version", action="store_true", help="show the version")
    commands = program.add_subparsers()
    for command in COMMANDS:
        module: Any = import_module(f"unperturbed.cli.{command}")
        summary = summary_of(Path(__file__).with_name(f"{command}.py"))
        copied = commands.add_parser(command, help=summary, description=summary)
        for action in module.parser()._actions:
            _copy(action, copied)
    completed: str = shtab.complete(program, shell=shell)
    return completed


def _copy(action: argparse.Action, copied: argparse.ArgumentParser) -> None:
    """Add an option of a command to a plain parser, with its values for completion."""
    if "--help" in action.option_strings:
        return
    name = action.option_strings or [action.dest]
    summary = (action.help or "").partition(" (")[0].replace("%", "%%")
    if action.nargs == 0:
        copied.add_argument(*name, action="store_true", help=summary)
        return
    nargs = None if action.option_strings else action.nargs
    added = copied.add_argument(*name, nargs=nargs, help=summary, choices=_values(action))
    kind = "FOLDER" if action.dest in RUN_FOLDERS else str(action.metavar)
    if kind in PATHS:
        added.complete = PATHS[kind]  # type: ignore[attr-defined]


def _values(action: argparse.Action) -> list[str] | None:
    """Return the names that are values of an option; None if there are none, or if any value is allowed."""
    if action.dest == "data":
        return list(DATASETS)
    folder = {"method": "methods", "model": "architectures", "suite": "suites"}.get(action.dest)
    if folder is not None:
        return list(listing(folder))
    metavar = str(action.metavar)
    return metavar[1:-1].split(",") if metavar.startswith("{") else list(SHELLS) if action.dest == "shell" else None
