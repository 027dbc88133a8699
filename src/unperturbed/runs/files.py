"""The run folder: its names, and atomic writes."""

import errno
import json
import math
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError

from unperturbed.errors import InputError, NotResumableError, RunError
from unperturbed.imports import user_trust
from unperturbed.reading import parse_json, parse_yaml, read_small

CONFIG = "config.yaml"
MODEL = "model.safetensors"
BEST = "best.safetensors"
CHECKPOINT = "checkpoints/last.pt"
PREVIOUS = "checkpoints/previous.pt"
"""The checkpoint before the last one."""
METRICS = "metrics.jsonl"
RESULT = "result.json"
DAY = 86400.0
"""Seconds."""
HOST = re.sub(r"[^A-Za-z0-9_]+", "-", socket.gethostname())
"""The name of this computer, for temporary files."""
WRITING = threading.RLock()
"""Held while a file is put into its place, so that a copy of a folder can be a state between two writes."""
_LONGEST_LINE = 2**20


class FolderLostError(NotResumableError):
    """A folder was moved or deleted during writing."""


def evaluation_folder(run: Path, suite: str) -> Path:
    """Return the folder of a suite's per-example results; its summary is `SUITE.json` next to it."""
    return run / "evaluation" / suite


def slug(*parts: str) -> str:
    """Return a folder name of these words; of the last word of an import path."""
    words = (re.sub(r"^[A-Za-z_][\w.]*:(?=[A-Za-z_])", "", part) for part in parts)
    return "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", word).strip("-") for word in words)


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` on a temporary file next to `path`, then rename it atomically.

    Raises:
        InputError: for a device, such as /dev/null, in whose place there would be a file.
        RunError: if it cannot be written (a full disk), or the folder was moved or deleted. An earlier file then
        remains.
    """
    check_in_place()
    if not path.is_symlink() and (path.is_char_device() or path.is_block_device()):
        raise InputError(f"{path} is a device, and a file would take its place: give the name of a file.")
    temporary = path.with_name(f".{path.stem}.{HOST}-{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)  # it may be a link
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        with WRITING:
            os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        check_in_place()
        if isinstance(error, (OSError, RuntimeError, SafetensorError)) and not isinstance(error, RunError):
            raise _unwritten(path, error) from error
        raise


def _unwritten(path: Path, error: Exception) -> RunError:
    return RunError(f"Cannot write {path} ({error}): nothing there has changed. Free space, or check permissions.")


_in_place: dict[Path, tuple[int, int]] = {}
"""Folders of running jobs, with their device and inode numbers."""
_lost: dict[Path, str] = {}
"""Folders whose jobs end at their next write, with the reason."""


@contextmanager
def in_place(folder: Path) -> Iterator[None]:
    """Raise RunError at every write in this block, and at its end, once the folder has been moved or deleted."""
    folder = folder.absolute()
    before = _in_place.get(folder)
    status = folder.stat()
    _in_place[folder] = (status.st_dev, status.st_ino)
    try:
        yield
        check_in_place()
    finally:
        if before is None:
            del _in_place[folder]


@contextmanager
def losable(folder: Path) -> Iterator[Callable[[str], None]]:
    """Yield a function that is called with a reason: every later write of this process raises FolderLostError with it.

    At the end of the block the process may write again.
    """
    folder = folder.absolute()

    def lose(reason: str) -> None:
        _lost[folder] = reason

    try:
        yield lose
    finally:
        _lost.pop(folder, None)


def check_in_place() -> None:
    """Raise FolderLostError if the folder of a running job no longer exists, since a new one would hide the loss.

    Another process may also have taken it over (see `losable`).
    """
    for reason in _lost.values():
        raise FolderLostError(reason)
    for folder, identity in _in_place.items():
        try:
            status = folder.stat()
        except OSError:
            status = None
        if status is None or (status.st_dev, status.st_ino) != identity:
            raise FolderLostError(
                f"The folder {folder} was moved or deleted while it was written into. The written files are in the "
                "moved folder: to resume, give the same command with the new place of the folder."
            )


def is_free(folder: Path) -> bool:
    """Tell whether a folder holds only hidden files: of a lock, or of a killed run."""
    return folder.is_dir() and all(file.name.startswith(".") for file in folder.iterdir())


def remove_leftovers(folder: Path, stem: str = "") -> None:
    """Remove the temporary files of processes that no longer run (on this host; of other hosts, after a day).

    With a `stem`, only of files whose names begin with it.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _TEMPORARY.fullmatch(path.name)
        if match is None or not path.name.startswith(f".{stem}") or not path.is_file():
            continue
        with suppress(OSError):
            old = time.time() - path.stat().st_mtime > DAY
            if not is_running(int(match["pid"])) if match["host"] == HOST else old:
                path.unlink()


_TEMPORARY = re.compile(r"\..+?\.(?P<host>[A-Za-z0-9_-]+)-(?P<pid>\d+)(?:\.[A-Za-z0-9]+)?")


def is_running(pid: int) -> bool:
    """Tell whether a process of this host runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 atomically, whatever the encoding of the system."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # a name may be no text in UTF-8

    write_atomically(path, write)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically; numbers that are not finite become null."""
    write_text(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """Return a value of JSON with null for numbers that are not finite, at any depth."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return value


def write_yaml(path: Path, value: Mapping[str, Any]) -> None:
    """Write a YAML mapping atomically, in its order.

    Raises:
        InputError: for a text with half of a pair of surrogates, such as a file name in another encoding: no parser of
        YAML would read it back.
    """
    if bad := re.search('[^"]*[\ud800-\udfff][^"]*', json.dumps(value, ensure_ascii=False, default=str)):
        raise InputError(f"{path} cannot hold {bad[0]!a:.120}, which is no text in UTF-8: rename it.")
    text = yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True)
    write_text(path, text)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        InputError: if it has none, or exceeds the limits of `reading`.
    """
    value = parse_yaml(read_small(path), path)
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no options by name, but {type(value).__name__}.")
    return value


def append_jsonl(path: Path, value: Mapping[str, Any]) -> None:
    """Append one line to a JSON-lines file; raises RunError, without a partial line, if it cannot be written."""
    check_in_place()
    size = path.stat().st_size if path.exists() else 0
    try:
        with WRITING, open(path, "a", encoding="utf-8", opener=_not_through_links) as file:
            file.write(json.dumps(value) + "\n")
    except OSError as error:
        with suppress(OSError):
            os.truncate(path, size)
        raise _unwritten(path, error) from error


def check_links(run: Path) -> None:
    """Raise InputError if a folder within a run folder is a link to elsewhere, where files would be replaced.

    With UNPERTURBED_TRUST=1 such links are followed.
    """
    if user_trust().everything:
        return
    for folder, folders, _ in os.walk(run):
        for name in folders:
            path = Path(folder, name)
            if path.is_symlink() and not path.resolve().is_relative_to(run.resolve()):
                raise InputError(
                    f"{path} is a link to {path.resolve()}, out of the run folder, where files would be replaced. If "
                    "you made it, move the whole run folder there and link that, or set UNPERTURBED_TRUST=1."
                )


def _not_through_links(path: str, flags: int) -> int:
    """Open a file for writing, but no link, symbolic or hard, which could redirect the writes to any file."""
    file = os.open(path, (flags & ~os.O_TRUNC) | getattr(os, "O_NOFOLLOW", 0), 0o666)
    try:
        if os.fstat(file).st_nlink > 1:
            raise OSError(errno.EMLINK, "it has a second name (a hard link), where it would change too: copy it", path)
        if flags & os.O_TRUNC:
            os.truncate(file, 0)
    except BaseException:
        os.close(file)
        raise
    return file


def write_in_place(path: Path, text: str) -> None:
    """Write a small file, not atomically, but never through a symbolic link."""
    with open(path, "w", encoding="utf-8", opener=_not_through_links) as file:
        file.write(text)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON-lines file; a truncated last line is skipped.

    Lines of more than a mebibyte, which no run writes, are skipped as well.
    """
    values = list[dict[str, Any]]()
    if not path.is_file():
        return values
    with path.open(encoding="utf-8", errors="replace") as file:
        while line := file.readline(_LONGEST_LINE):
            with suppress(InputError):
                if isinstance(value := parse_json(line, path), dict):
                    values.append(value)
    return values


def write_jsonl(path: Path, values: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSON-lines file atomically."""
    write_text(path, "".join(json.dumps(value) + "\n" for value in values))
