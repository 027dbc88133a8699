"""Which files code opens for reading while it runs, as Python's audit events tell."""

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
"""Path, mode and flags of what is opened, while somebody wants to know."""
_WRITING = os.O_WRONLY | os.O_RDWR
_OF_PYTHON = tuple(os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "purelib", "platlib"))
_OF_THE_SYSTEM = ("/proc/", "/sys/", "/dev/")
_CODE = (".py", ".pyc", ".so")


@contextmanager
def files_read() -> Iterator[Callable[[], dict[str, str]]]:
    """Within: yield a function that returns, by path, a SHA-256 of each file that this thread has opened to read.

    Files of Python, of installed libraries and of the operating system are left out, and so is code. What a library
    opens outside of Python is not seen.
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
    """Listen to audit events; Python cannot stop that, so that it is done once."""
    sys.addaudithook(  # no more than a note: what is called here may open files itself
        lambda event, given: event == "open" and (opened := _opened.get()) is not None and opened.setdefault(given)
    )


def _path(given: tuple[Any, ...]) -> str:
    """Return the path of a file that was opened to read; "" for one that does not count."""
    name, _, flags = given
    if isinstance(name, int) or (isinstance(flags, int) and flags & _WRITING):
        return ""
    path = os.path.realpath(os.fsdecode(name))
    return "" if path.startswith((*_OF_PYTHON, *_OF_THE_SYSTEM)) or path.endswith(_CODE) else path


def _hash(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # which was there only for a while, a folder, or one that it looked for in vain
        return "not readable"
