"""The lock of a folder for one job at a time.

It is advisory: it does not stop processes that write without it. The operating system's lock (flock) on the file
`.lock` ends with its process, however that ends. If the file system has no locks, `filelock` uses the existence of the
file as the lock. The file `.lock.json` next to it names the holder, and its time of change shows that the holder is
alive. This decides between hosts, since a file system may keep the operating system's locks on one host.
"""

import inspect
import json
import logging
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from unperturbed.errors import InputError, RunError
from unperturbed.reading import parse_json, read_small
from unperturbed.runs.files import HOST, in_place, remove_leftovers, write_in_place

log = logging.getLogger("unperturbed")
P = ParamSpec("P")
R = TypeVar("R")
Place = Callable[[Mapping[str, Any]], tuple[Path, str] | None]
BEAT = 20.0
"""Seconds between two heartbeats."""
PATIENCE = 300.0
"""Seconds without a heartbeat after which a holder on another host counts as dead."""
WATCH = 3 * BEAT
"""Seconds to wait for a heartbeat if the last one lies in the future, by a clock that was set back."""
TRIES = 0.3
"""Seconds of retries for the lock, which another process may hold for a moment to inspect it."""


class InUseError(InputError):
    """Another process holds the lock of a folder."""


@dataclass(frozen=True)
class Holder:
    """The present or former holder of a lock."""

    host: str
    pid: int
    since: str
    command: str

    def __str__(self) -> str:
        """Return the holder in words."""
        return f"process {self.pid} on {self.host} since {self.since} ({self.command})"


def this_process() -> Holder:
    """Return this process as the holder of a lock that it acquires now."""
    timestamp = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return Holder(HOST, os.getpid(), timestamp, _command())


@contextmanager
def locked(folder: Path, name: str = "") -> Iterator[None]:
    """Lock the folder, or the job `name` in it, in this block.

    A missing folder is created, and removed if it is empty at the end. Temporary files of dead processes in it, or next
    to it under its name, are removed. The folder must stay where it is (see `in_place`).

    Raises:
        InUseError: if another process holds the lock.
        InputError: if the folder is a file.
        RunError: if the folder cannot be written into, or was moved or deleted meanwhile.
    """
    folder = folder.absolute()
    try:
        created = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # a file, a name that is too long, or a read-only place
        raise InputError(f"The output folder {folder} cannot be made ({error}): choose another one.") from error
    record = folder / f".{name}.lock.json" if name else folder / ".lock.json"
    lock = None
    try:
        try:
            lock = _acquired(record, folder / name)
        except OSError as error:  # a full disk, or a folder of others
            raise RunError(
                f"{folder} cannot be written into ({error.strerror or error}): free space, check its permissions, or "
                "give another --out."
            ) from error
        ended = threading.Event()
        threading.Thread(target=_beat, args=(record, ended), daemon=True).start()
        try:
            remove_leftovers(folder.parent, folder.name)
            for path in (folder, *(part for part in folder.iterdir() if part.is_dir())):
                remove_leftovers(path)
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
        for path in created:
            with suppress(OSError):
                path.rmdir()


def is_first_of_group() -> bool:
    """Tell whether this is the first or only process of a job."""
    torch = sys.modules.get("torch")  # processes of a group have imported it
    group = getattr(torch, "distributed", None)
    if group is not None and group.is_available() and group.is_initialized():
        return bool(group.get_rank() == 0)
    return os.environ.get("LOCAL_RANK", "0") == "0"


def alone_in(place: Place) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator: the first process of a group holds the lock of the folder given by the arguments.

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


def _acquired(record: Path, target: Path) -> BaseFileLock:
    """Acquire the lock and write its record; raises InputError if another process holds it."""
    for file in (record, record.with_suffix("")):
        if file.is_symlink() or (file.exists() and (not file.is_file() or file.stat().st_nlink > 1)):
            raise InputError(f"{file} is a link or no regular file, and so no lock: remove it, and try again.")
    holder = _holder(record)
    if holder is not None and holder.host != HOST:
        if not _is_silent(record):
            raise _refusal(target, holder)
        record.with_suffix("").unlink(missing_ok=True)  # the existence of the file may be the lock
    lock = _native_or_soft(record.with_suffix(""))
    if lock is None:
        raise _refusal(target, _holder(record))
    if holder is not None:
        log.info("The lock of %s belonged to %s, which has ended: it is taken over.", target, holder)
    try:
        write_in_place(record, json.dumps(asdict(this_process())))
    except BaseException:
        for file in (record, record.with_suffix("")):
            with suppress(OSError):
                file.unlink()
        lock.release()
        raise
    return lock


def _native_or_soft(path: Path) -> BaseFileLock | None:
    """Return an acquired lock on the file; None if another process holds it."""
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


def _refusal(target: Path, holder: Holder | None) -> InUseError:
    by = "another process" if holder is None else str(holder)
    return InUseError(f"{target} is being written by {by}: wait for its end or stop it, or give another --out.")


def _holder(record: Path) -> Holder | None:
    """Return the recorded holder, or None."""
    try:
        value = parse_json(read_small(record), record)
        return Holder(str(value["host"]), int(value["pid"]), str(value["since"]), str(value["command"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _is_silent(record: Path) -> bool:
    """Tell whether a holder's last heartbeat is old, by the clock of the file system.

    A heartbeat from the future has no age: the next one is waited for.
    """
    probe = record.with_name(f".{record.stem}.{HOST}-{os.getpid()}.json")
    try:
        probe.write_text("")
        last = record.stat().st_mtime
        age = probe.stat().st_mtime - last
        if age > -PATIENCE:
            return age > PATIENCE
        log.info("The lock %s is dated %.0f s in the future: waiting %.0f s for its holder.", record, -age, WATCH)
        time.sleep(WATCH)
        return record.stat().st_mtime == last
    except FileNotFoundError:
        return True
    finally:
        probe.unlink(missing_ok=True)


def _beat(record: Path, ended: threading.Event) -> None:
    """Send a heartbeat every few seconds."""
    while not ended.wait(BEAT):
        with suppress(OSError):
            os.utime(record)


def _command() -> str:
    words = [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else ["python"]
    return shlex.join(words)[:200]
