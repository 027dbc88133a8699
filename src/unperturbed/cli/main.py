"""The program `unperturbed`: dispatch of commands, errors, and output."""

import errno
import io
import os
import site
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from rich.table import Table

from unperturbed.catalogue import summary_of
from unperturbed.cli.console import Result, is_first_process, results_only_on_stdout, say, show, write_json
from unperturbed.cli.engine import disconnect
from unperturbed.cli.memory import keep_freed_memory
from unperturbed.cli.options import parse
from unperturbed.cli.places import on_this_machine
from unperturbed.cli.signals import code_of, signals_interrupt, words_of
from unperturbed.errors import InputError, RunError, hint
from unperturbed.processor import round_rows_alike

COMMANDS = (
    *("demo", "train", "evaluate", "curve", "certify", "probable", "transfer", "compare", "sweep", "study", "diagnose"),
    *("audit", "doctor", "explain", "report", "suite", "export", "push", "pull", "methods", "models", "datasets"),
    "completion",
)
"""Each is a file of this folder with `parser()`, `POSITIONAL` and `run(given)`."""
HELP = ("-h", "--help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 success, 1 failure during work, 2 wrong usage or bad input.

    130 is an interruption by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP.

    With `--json`, one JSON value goes to standard output; everything else goes to standard error.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _prepare_streams()
    ended = partial(_end, debug="--debug" in words)
    try:
        with signals_interrupt():
            return _dispatch(words)
    except InputError as error:
        return ended(error, 2)
    except BrokenPipeError:  # the reader of the output has closed the pipe (a pager, head)
        _discard_output()
        return 1
    except (RunError, OSError) as error:
        return ended(error, 2 if getattr(error, "errno", None) == errno.ENAMETOOLONG else 1)
    except KeyboardInterrupt as error:
        return ended(error, code_of(error))


def _discard_output() -> None:
    """Let all further standard output go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def program() -> int:
    """Run a command like `main`, and end with one sentence on unexpected errors as well."""
    try:
        return main()
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != "unperturbed":
            say(f"The library {error.name} is not installed: pip install {error.name.partition('.')[0]}", "error")
            return 1
        text = " ".join(str(error).split())[:300] or "no message"
        say(
            f"{type(error).__name__}: {text} ({_place_of(error)}). This was not foreseen: --debug shows the traceback.",
            "error",
        )
        return 1


def _prepare_streams() -> None:
    """Replace closed streams (`>&-`), and escape characters that the terminal's encoding lacks."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _place_of(error: Exception) -> str:
    """Return the origin of an error: the innermost line of the user's code, or else of any code.

    The user's code lies outside of this package, of Python, and of installed packages.
    """
    frames = traceback.extract_tb(error.__traceback__)
    python = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    known_folders = [str(Path(__file__).parents[1]), *python, *site.getsitepackages(), site.getusersitepackages()]
    users = [
        frame
        for frame in frames
        if not frame.filename.startswith(("<", *(f"{folder}{os.sep}" for folder in known_folders)))
    ]
    innermost = (users or frames)[-1]
    return f"{'in your code, ' if users else ''}{innermost.filename}:{innermost.lineno}"


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in (*HELP, "help"):
        show(_overview())
        return 0 if words else 2
    if words[0] in ("--version", "-V"):
        show(f"unperturbed {version('unperturbed')}")
        return 0
    command, rest = words[0], words[1:]
    if command not in COMMANDS:
        raise InputError(f"There is no command {command!r}. {hint(command, COMMANDS)}")

    _check_current_folder()
    keep_freed_memory()
    round_rows_alike()  # before torch is loaded
    module = import_module(f"unperturbed.cli.{command}")
    parser = module.parser()
    if any(word in HELP for word in rest):
        print(parser.format_help())
        return 0
    with results_only_on_stdout(), _no_file_shadows_a_module(), on_this_machine(command, rest) as local:
        given = parse(parser, local, module.POSITIONAL)
        result: Result = module.run(given)
        disconnect()
    if is_first_process():
        _write(result, given.json)
    return result.code


def _write(result: Result, as_json: bool) -> None:
    """Write the result to standard output; raises RunError if it takes no more (a full disk)."""
    try:
        if as_json:
            write_json(result.value)
        for view in () if as_json else result.views:
            show(view)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        with suppress(OSError, ValueError):
            _discard_output()  # Python would try to write the rest at its end
        raise RunError(
            f"The result could not be printed on standard output ({error.strerror}). Files of the command are written: "
            "free space, or send the output elsewhere."
        ) from error


def _check_current_folder() -> None:
    """Raise InputError if the current folder no longer exists."""
    try:
        os.getcwd()
    except OSError as error:
        raise InputError("The current folder was moved or deleted: change into another one (cd).") from error


@contextmanager
def _no_file_shadows_a_module() -> Iterator[None]:
    """Exclude the current folder from the module path of Python processes started in this block."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _overview() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.title = "unperturbed COMMAND [--help]"
    grid.title_justify = "left"
    for command in COMMANDS:
        grid.add_row(f"  {command}", summary_of(Path(__file__).with_name(f"{command}.py")))
    return grid


def _end(error: BaseException, code: int, debug: bool) -> int:
    if (code == 2 or isinstance(error, KeyboardInterrupt)) and not is_first_process():
        return code  # the first process prints it
    if debug:
        traceback.print_exception(error)
    text = words_of(error) if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        place = error.filename or "a file, or the output of the command"
        text = f"{error.strerror}: {place!s:.200}. Check the path, its permissions, and the free space."
    say("\n".join([text, *getattr(error, "__notes__", ())]), "error")
    return code
