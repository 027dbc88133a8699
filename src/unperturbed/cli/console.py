"""The output of commands: messages and progress on standard error, results on standard output."""

import json
import logging
import os
import shlex
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from unperturbed.errors import RunError
from unperturbed.findings import Interval, doubted, silent
from unperturbed.findings import Progress as Report
from unperturbed.reports.characters import printable
from unperturbed.runs import FolderLostError, finite

FIRST_LINE = 10.0
"""Seconds until the first progress line of work without a terminal."""
BETWEEN_LINES = 60.0
"""Seconds between progress lines."""
RANKS = ("LOCAL_RANK", "RANK", "GROUP_RANK", "NODE_RANK", "SLURM_PROCID")
"""The variables of launchers; all that are set are 0 in the first process of a job."""


@dataclass(frozen=True)
class Result:
    """The result of a command: for programs, for readers (tables and lines), and the exit code."""

    value: Any
    views: Sequence[Any]
    code: int = 0


def is_first_process() -> bool:
    """Tell whether this is the process that prints for all processes of a run."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


_shown: dict[str, str] = {}
"""URLs in object stores by the local copies that messages and results name."""


def show_as(path: Path, url: str) -> None:
    """Show a URL in place of its local copy from now on."""
    _shown[str(path)] = url


def as_given(text: str) -> str:
    """Return text with the URLs that the user gave in place of their local copies."""
    for path, url in _shown.items():
        text = text.replace(path, url)
    return text


def shell_words(words: Sequence[str]) -> str:
    """Return a command for a POSIX shell to copy, also where standard output or error cannot show its characters.

    Such a word is written with escaped bytes, as in $'runs/caf\\xc3\\xa9'.
    """
    return " ".join(_shell_word(as_given(word)) for word in words)


def _shell_word(word: str) -> str:
    encodings = {getattr(stream, "encoding", None) or "utf-8" for stream in (sys.stdout, sys.stderr)}
    try:
        for encoding in encodings:
            word.encode(encoding)
        shown = printable(word) == word
    except UnicodeError:
        shown = False
    if shown:
        return shlex.quote(word)
    escaped = (chr(b) if 32 <= b < 127 and chr(b) not in "'\\" else f"\\x{b:02x}" for b in os.fsencode(word))
    return f"$'{''.join(escaped)}'"


def say(text: str, kind: str = "") -> None:
    """Write a line to standard error; `kind` ("error", "warning") goes before it.

    Of several processes only the first prints, except for errors. A line that cannot be written (a full disk, a
    reader that has ended) is lost; the work goes on.
    """
    if sys.stderr is None or (kind != "error" and not is_first_process()):
        return
    style = {"error": "bold red", "warning": "yellow"}.get(kind, "")
    console = _Messages(stderr=True, highlight=False, soft_wrap=True)
    with suppress(OSError, ValueError):  # ValueError: it was closed
        if kind:
            console.print(f"[{style}]{kind}:[/{style}]", end=" ")
        console.print(printable(as_given(text)), markup=False)


class _Messages(Console):
    """Writes messages; where nobody reads them any more, rich would end the program."""

    def on_broken_pipe(self) -> None:
        """Go on."""


def show(value: Any) -> None:
    """Write a table or text to standard output.

    Lines of text and titles are not broken, so that paths and scripts stay intact and a title can be searched for.
    """
    if sys.stdout is None:  # it was closed
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    if isinstance(value, str):
        console.print(printable(as_given(value)), markup=False, soft_wrap=True)
        return
    if isinstance(value, Table) and value.title:  # rich would break it at the width of the table
        console.print(Text(str(value.title), style="italic"), soft_wrap=True)
        value.title = None
    console.print(value, markup=False)


def write_json(value: Any) -> None:
    """Write one JSON value to standard output; numbers that are not finite become null."""
    print(as_given(json.dumps(finite(value), indent=2, allow_nan=False)))


def robust_cell(accuracy: Interval, doubts: Sequence[str]) -> Text:
    """Return a robust accuracy for a table, in red with its doubts if it has any."""
    return Text(f"{accuracy}{doubted(doubts)}", style="bold red" if doubts else "")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> Table:
    """Return a table of text."""
    text_table = Table(title=printable(title) or None, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for column in columns:
        text_table.add_column(printable(column))
    for row in rows:
        text_table.add_row(*(cell if isinstance(cell, Text) else Text(printable(as_given(cell))) for cell in row))
    return text_table


@contextmanager
def results_only_on_stdout() -> Iterator[None]:
    """Redirect other prints to standard error in this block, with warnings and log records as lines."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells where it keeps fonts if HOME is read-only
    log, lines = logging.getLogger("unperturbed"), _Lines()
    level = log.level
    log.addHandler(lines)
    log.setLevel(logging.INFO)

    def line(message: Warning | str, *_: object, **__: object) -> None:
        say(" ".join(str(message).split()), "warning")

    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("default")
        for quiet in (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning, ImportWarning):
            warnings.simplefilter("ignore", quiet)
        warnings.showwarning = line
        try:
            yield
        finally:
            log.removeHandler(lines)
            log.setLevel(level)


class _Lines(logging.Handler):
    """Writes log records as lines to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        say(record.getMessage(), "warning" if record.levelno >= logging.WARNING else "")


@contextmanager
def progress() -> Iterator[Report]:
    """Yield a progress callback: a bar with the remaining time on a terminal, else occasional lines."""
    console = Console(stderr=True)
    if not is_first_process():
        yield silent
        return
    if not console.is_terminal:
        lines = _Piped()
        yield lines.report
        lines.end()
        return
    columns = (
        TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=16),
        TaskProgressColumn(table_column=Column(min_width=4)),
        TimeElapsedColumn(table_column=Column(min_width=7)),
        TextColumn("left", table_column=Column(min_width=4)),
        _TimeLeft(table_column=Column(min_width=7)),
    )
    with Progress(*columns, console=console, transient=True, expand=True) as bar:
        task = bar.add_task("", total=None, ends=None)
        start: tuple[float, float] | None = None

        def report(done: float, total: float, text: str) -> None:
            nonlocal start
            now = time.monotonic()
            start = start or (now, done)
            left = seconds_left(now - start[0], done - start[1], total - done)
            ends = None if left is None else now + left
            bar.update(task, completed=done, total=total, description=text, ends=ends)

        yield report


@contextmanager
def repeatable() -> Iterator[None]:
    """Add a note on resuming to an interruption or failure in this block."""
    try:
        yield
    except (KeyboardInterrupt, OSError, RunError) as error:
        note = "The model is unchanged. Run the same command again to resume."
        noted = note in getattr(error, "__notes__", ())  # one of several processes added it
        if not noted and not isinstance(error, FolderLostError):
            error.add_note(note)
        raise


class _Piped:
    """Writes lines without a terminal: at the end of an epoch; for other work after ten seconds and every minute."""

    def __init__(self) -> None:
        self.began: tuple[float, float] | None = None
        self.due = FIRST_LINE
        self.text = ""
        self.left = ""

    def report(self, done: float, total: float, text: str) -> None:
        """Write a line at the end of an epoch, or when due."""
        now = time.monotonic()
        self.began = self.began or (now, done)
        seconds = now - self.began[0]
        left = seconds_left(seconds, done - self.began[1], total - done)
        if self.text.startswith("epoch ") and text.split(":")[0] != self.text.split(":")[0]:
            self.end()
        self.left = "" if left is None else f", about {timedelta(seconds=round(left))} left"
        self.text = text
        if seconds >= self.due and left is not None and not text.startswith("epoch "):
            self.due = seconds + BETWEEN_LINES
            say(f"{text}: {done / total:.0%}{self.left}")

    def end(self) -> None:
        """Write the line of a finished epoch."""
        if self.text.startswith("epoch "):
            epoch, _, loss = self.text.partition(": ")
            say(f"{epoch} done{loss and f': {loss}'}{self.left}")


def seconds_left(seconds: float, finished: float, remaining: float) -> float | None:
    """Return the remaining seconds at the speed of `finished` in `seconds`; None before any progress."""
    return seconds * remaining / finished if finished > 0 else None


class _TimeLeft(ProgressColumn):
    """The remaining time, from all work since the first report, since reports may come minutes apart."""

    def render(self, task: Task) -> Text:
        """Return it as hours, minutes and seconds."""
        ends = task.fields.get("ends")
        text = "-:--:--" if ends is None else str(timedelta(seconds=max(0, round(ends - time.monotonic()))))
        return Text(text, style="progress.remaining")
