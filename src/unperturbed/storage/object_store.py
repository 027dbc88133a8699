"""The requests to an object store, with timeouts, and repeated with growing pauses if they fail."""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from unperturbed.errors import InputError, RunError
from unperturbed.storage.places import PACKAGES, divided, joined

log = logging.getLogger("unperturbed")
T = TypeVar("T")
U = TypeVar("U")
TRIES = 8
"""Attempts of a request."""
FIRST_PAUSE = 0.5
"""Seconds before the second attempt; each further pause is twice as long."""
LONGEST_PAUSE = 30.0
SECONDS = 60.0
"""Time limit of an attempt, without the time for its bytes."""
SLOWEST = 2**18
"""Bytes per second, below which a transfer counts as stuck."""
REQUESTS = 8
"""Requests at the same time."""
_PERMANENT = (FileNotFoundError, FileExistsError, NotImplementedError, InputError)
_REFUSALS = ("NoCredentialsError", "PartialCredentialsError", "ParamValidationError", "ProfileNotFound")
_jitter = random.Random()


class StorageError(RunError):
    """A request to an object store failed at every attempt."""


class ObjectStore:
    """The objects below a URL. Names are relative to it, with slashes.

    An object appears as a whole or not at all, and a list has every object written before, as S3 and Google Cloud
    Storage promise. Every method raises StorageError if its request fails at every attempt, and InputError if the store
    refuses access.
    """

    def __init__(self, url: str) -> None:
        scheme, parts = divided(url)
        self.url = joined(scheme, parts)
        self.files: Any = _file_system(scheme, url)
        self.root = str(self.files._strip_protocol(self.url)).rstrip("/")

    def read(self, name: str) -> bytes:
        """Return the content of an object; raises FileNotFoundError if there is none."""
        return bytes(self._request(lambda: self.files.cat_file(self._path(name))))

    def write(self, name: str, content: bytes, new: bool = False) -> None:
        """Write an object; with `new`, raise FileExistsError if there is one already.

        After a lost answer the object of an earlier attempt exists, so that the caller compares its content.
        """
        mode = {"mode": "create"} if new else {}
        self._writing(lambda: self.files.pipe_file(self._path(name), content, **mode), len(content))

    def upload(self, file: Path, name: str) -> None:
        """Write an object with the content of a file."""
        size = file.stat().st_size
        self._writing(lambda: self.files.put_file(str(file), self._path(name)), size)

    def download(self, name: str, file: Path, size: int, check: Callable[[], bool] = lambda: True) -> None:
        """Write an object's content to a file; an attempt after which `check` is false counts as failed.

        Raises FileNotFoundError if there is no such object.
        """

        def attempt() -> None:
            self.files.get_file(self._path(name), str(file))
            if not check():
                raise OSError("the bytes that arrived are not those of the object")

        self._request(attempt, size)

    def names(self, folder: str) -> list[str]:
        """Return the names of the objects in a folder, without those of its subfolders."""
        self.files.invalidate_cache()
        try:
            paths = self._request(lambda: self.files.ls(self._path(folder), detail=False))
        except FileNotFoundError:
            return []
        return sorted(name for path in paths if (name := str(path).rstrip("/").rpartition("/")[2]))

    def details(self, folder: str = "") -> dict[str, dict[str, Any]]:
        """Return what the store says about every object below a folder, by name; about one object under the name ""."""
        path = self._path(folder)
        self.files.invalidate_cache()
        below: dict[str, dict[str, Any]] = self._request(lambda: self.files.find(path, detail=True))
        return {str(name).removeprefix(path).lstrip("/"): about for name, about in below.items()}

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; missing ones are none of its business."""

        def attempt(name: str) -> None:
            try:
                self._request(lambda: self.files.rm_file(self._path(name)))
            except FileNotFoundError:
                pass

        self.each(attempt, list(names))

    def modified(self, name: str) -> float:
        """Return the time at which an object was written, by the store's clock, in seconds."""
        return float(self._request(lambda: self.files.modified(self._path(name))).timestamp())

    def each(self, function: Callable[[T], U], items: Sequence[T]) -> list[U]:
        """Call a function on every item, several at the same time, and return the results in order."""
        if len(items) <= 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(min(REQUESTS, len(items)), "unperturbed-storage") as pool:
            return list(pool.map(function, items))

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def _writing(self, call: Callable[[], object], size: int) -> None:
        try:
            self._request(call, size)
        except FileNotFoundError as error:
            raise InputError(f"{self.url} cannot be written ({error}): make the bucket first.") from error

    def _request(self, call: Callable[[], T], size: int = 0) -> T:
        """Return the result of a request of `size` bytes, attempted several times."""
        for attempt in range(1, TRIES + 1):
            try:
                return _within(SECONDS + size / SLOWEST, call)
            except _PERMANENT:
                raise
            except Exception as error:  # the errors depend on the store's client
                if isinstance(error, PermissionError) or type(error).__name__ in _REFUSALS:
                    raise InputError(
                        f"{self.url} refused the access ({_words(error)}): check the credentials and the permissions."
                    ) from error
                if attempt == TRIES:
                    raise StorageError(
                        f"A request to {self.url} failed {TRIES} times ({_words(error)}): check the network and the "
                        "address of the store."
                    ) from error
                log.debug("A request to %s failed (%s): attempt %d of %d.", self.url, _words(error), attempt, TRIES)
            time.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1)) * _jitter.uniform(0.5, 1.5))
        raise AssertionError("every attempt returns or raises")


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Return the result of a call; raises TimeoutError after the limit, and the call ends in its thread."""
    results, errors, ended = list[T](), list[BaseException](), threading.Event()

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)
        ended.set()

    threading.Thread(target=work, name="unperturbed-request", daemon=True).start()
    if not ended.wait(seconds):
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    if errors:
        raise errors[0]
    return results[0]


def _words(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _file_system(scheme: str, url: str) -> Any:
    """Return the client of a scheme; raises InputError if its package is not installed."""
    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme == "file":
        options["auto_mkdir"] = True
    if PACKAGES[scheme] == "s3fs":  # the attempts are counted here, not by the client
        config = {"connect_timeout": 10, "read_timeout": SECONDS, "retries": {"total_max_attempts": 1}}
        options["config_kwargs"] = config
    try:
        import fsspec

        files = fsspec.filesystem(scheme, **options)
    except ImportError as error:
        package = PACKAGES[scheme]
        extra = ' (or "unperturbed[storage]")' if package in ("s3fs", "fsspec") else ""
        raise InputError(
            f"{url} needs the package {package}, which is missing: pip install {package}{extra}."
        ) from error
    if PACKAGES[scheme] == "s3fs":
        files.retries = 1
    return files
