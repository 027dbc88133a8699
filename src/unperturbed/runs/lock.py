"""The lock of a folder that is written into: one job at a time.

It is advisory: a process that writes without it is not stopped. The operating system's lock (flock) on the file
`.lock` ends with its process, however that ends. If the file system has no locks, `filelock` takes the existence of the
file for the lock. The file `.lock.json` next to it names the holder, and its time of change shows that the holder is
alive. This decides between hosts, since a file system may keep the operating system's locks on one host.
"""

import inspect
import json
import logging
import os
import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from unperturbed.errors import InputError
from unperturbed.reading import parse_json
from unperturbed.runs.files import HOST, in_place, remove_leftovers, write_in_place

log = logging.getLogger("unperturbed")
P = ParamSpec("P")
R = TypeVar("R")
Place = Callable[[Mapping[str, Any]], tuple[Path, str] | None]
BEAT = 20.0
"""Seconds between two signs of life."""
PATIENCE = 300.0
"""Seconds without one after which a holder on another host is taken for dead."""
TRIES = 0.3
"""Seconds in which the lock is tried for: another process may be looking at it just now."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, or left it behind."""

    host: str
    pid: int
    since: str
    command: str

    def __str__(self) -> str:
        """Return it in words."""
        return f"process {self.pid} on {self.host} since {self.since} ({self.command})"


@contextmanager
def locked(folder: Path, name: str = "") -> Iterator[None]:
    """Within: this process alone works in the folder, or on what is called `name` in it.

    The folder is made if it is not there, and removed again if it is empty in the end. Temporary files that dead
    processes have left in it, or next to it under its name, are removed. The folder must stay where it is (see
    `in_place`).

    Raises:
        InputError: where another process holds the lock, or the folder is a file.
        RunError: where the folder was moved or deleted meanwhile.
    """
    folder = folder.absolute()
    try:
        made = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # a file, a name that is too long, a place that takes no folders
        raise InputError(f"The output folder {folder} cannot be made ({error}): choose another one.") from error
    record = folder / f".{name}.lock.json" if name else folder / ".lock.json"
    lock = None
    try:
        lock = _acquired(record, folder / name)
        ended = threading.Event()
        threading.Thread(target=_beat, args=(record, ended), daemon=True).start()
        try:
            remove_leftovers(folder.parent, folder.name)
            for each in (folder, *(part for part in folder.iterdir() if part.is_dir())):
                remove_leftovers(each)
            with in_place(folder):
                yield
        finally:
            ended.set()
    finally:
        if lock is not None:
            with suppress(OSError):
                record.unlink()
            with suppress(OSError):
                record.with_suffix("").unlink()
            lock.release()
        for each in made:
            with suppress(OSError):
                each.rmdir()


def is_first_of_group() -> bool:
    """Return whether this is the first, or the only one, of the processes that share a job."""
    torch = sys.modules.get("torch")  # a process of a group has imported it
    group = getattr(torch, "distributed", None)
    if group is not None and group.is_available() and group.is_initialized():
        return bool(group.get_rank() == 0)
    return os.environ.get("LOCAL_RANK", "0") == "0"


def alone_in(place: Place) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator: the first process of a group holds the lock of the place that the arguments name.

    `place` takes the arguments by name, defaults included, and returns folder and name for `locked`, or None.
    """

    def decorate(work: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(work)

        @wraps(work)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            where = place(bound.arguments) if is_first_of_group() else None
            if where is None:
                return work(*args, **kwargs)
            with locked(*where):
                return work(*args, **kwargs)

        return guarded

    return decorate


def _acquired(record: Path, what: Path) -> BaseFileLock:
    """Return the lock, held, with `record` saying so; refuse where another process holds it."""
    for file in (record, record.with_suffix("")):
        if file.is_symlink() or (file.exists() and not file.is_file()):
            raise InputError(f"{file} is no regular file, and so no lock: remove it, and try again.")
    holder = _holder(record)
    if holder is not None and holder.host != HOST:
        if not _is_silent(record):
            raise _refusal(what, holder)
        record.with_suffix("").unlink(missing_ok=True)  # which may be all that its lock consists of
    lock = _native_or_soft(record.with_suffix(""))
    if lock is None:
        raise _refusal(what, _holder(record))
    if holder is not None:
        log.info("The lock of %s was left by %s, which has ended: it is taken over.", what, holder)
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    try:
        write_in_place(record, json.dumps(asdict(Holder(HOST, os.getpid(), now, _command()))))
    except BaseException:
        lock.release()
        raise
    return lock


def _native_or_soft(path: Path) -> BaseFileLock | None:
    """Return a lock on the file, held; None where another process holds it."""
    try:
        try:
            lock: BaseFileLock = FileLock(path, thread_local=False)
            lock.acquire(timeout=TRIES)
        except Timeout:
            raise
        except OSError:  # no such lock on this file system
            lock = SoftFileLock(path, thread_local=False)
            lock.acquire(timeout=TRIES)
    except Timeout:
        return None
    return lock


def _refusal(what: Path, holder: Holder | None) -> InputError:
    by = "another process" if holder is None else str(holder)
    return InputError(f"{what} is being written by {by}: wait for its end or stop it, or give another --out.")


def _holder(record: Path) -> Holder | None:
    """Return who wrote itself down as the holder; None where nobody did."""
    try:
        value = parse_json(record.read_bytes(), record)
        return Holder(str(value["host"]), int(value["pid"]), str(value["since"]), str(value["command"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _is_silent(record: Path) -> bool:
    """Return whether a holder has given no sign of life for long, by the clock of the file system."""
    probe = record.with_name(f".{record.stem}.{HOST}-{os.getpid()}.json")
    try:
        probe.write_text("")
        return probe.stat().st_mtime - record.stat().st_mtime > PATIENCE
    except FileNotFoundError:
        return True
    finally:
        probe.unlink(missing_ok=True)


def _beat(record: Path, ended: threading.Event) -> None:
    """Show every few seconds that the holder is alive."""
    while not ended.wait(BEAT):
        with suppress(OSError):
            os.utime(record)


def _command() -> str:
    words = [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else ["python"]
    return shlex.join(words)[:200]
