"""The files that code opens for reading, by Python's audit events."""

import hashlib
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

_opened: ContextVar[dict[tuple[Any, ...], None] | None] = ContextVar("opened", default=None)
"""Path, mode and flags of opened files, while a recorder is active."""
_WRITING = os.O_WRONLY | os.O_RDWR
_OF_PYTHON = tuple(os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "purelib", "platlib"))
_OF_THE_SYSTEM = ("/proc/", "/sys/", "/dev/")
_CODE = (".py", ".pyc", ".so")


@contextmanager
def files_read() -> Iterator[Callable[[], dict[str, str]]]:
    """Record opened files in this block; yield a function that returns a SHA-256 of each by path, for this thread.

    Files of Python, of installed libraries and of the operating system are left out, and so is code. Files that a
    library opens outside of Python are not detected.
    """
    _listen()
    opened: dict[tuple[Any, ...], None] = {}
    token = _opened.set(opened)
    try:
        yield lambda: {path: _hash(path) for path in sorted(set(map(_path, opened)) - {""})}
    finally:
        _opened.reset(token)


@cache
def _listen() -> None:
    """Install the audit hook, once, since Python cannot remove it."""
    sys.addaudithook(  # only record the event: further calls may open files
        lambda event, arguments: (
            event == "open" and (opened := _opened.get()) is not None and opened.setdefault(arguments)
        )
    )


def _path(arguments: tuple[Any, ...]) -> str:
    """Return the path of a file opened for reading; "" for excluded files."""
    name, _, flags = arguments
    if isinstance(name, int) or (isinstance(flags, int) and flags & _WRITING):
        return ""
    path = os.path.realpath(os.fsdecode(name))
    return "" if path.startswith((*_OF_PYTHON, *_OF_THE_SYSTEM)) or path.endswith(_CODE) else path


def _hash(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # a temporary file, a folder, or a missing file
        return "not readable"
