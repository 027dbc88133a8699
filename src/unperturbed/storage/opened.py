"""Run folders in object stores, opened as folders on this machine."""

import atexit
import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from unperturbed.errors import InputError
from unperturbed.runs.files import losable
from unperturbed.storage.local_copy import LocalCopy, fetch, local_copy
from unperturbed.storage.manifest import claim, newest, put, root_of
from unperturbed.storage.object_store import ObjectStore
from unperturbed.storage.places import divided, is_object_store, is_url, joined
from unperturbed.storage.writer import Writer

P = ParamSpec("P")
R = TypeVar("R")
OPENED = "UNPERTURBED_OPENED"
"""Environment variable for the processes that this one starts: the folders of opened URLs, as JSON."""


def all_files(path: str) -> bool:
    """Tell that a file is needed."""
    return True


def results_and_weights(path: str) -> bool:
    """Tell whether a file of a run folder is needed to measure or report: all but the checkpoints of training."""
    return "checkpoints" not in path.split("/")


def check_object_store(url: str) -> None:
    """Raise InputError for a repository of the hub, where every file would be a commit."""
    if not is_object_store(url):
        raise InputError(
            f"{url}: a run goes to a repository of the hub by `unperturbed push`, and comes by `unperturbed pull`; a "
            "bucket, hf://buckets/OWNER/BUCKET/FOLDER, takes results directly."
        )


@contextmanager
def opened(url: str, writing: bool = True, needs: Callable[[str], bool] = all_files) -> Iterator[Path]:
    """Yield a folder on this machine with the content of a folder in an object store.

    With `writing`, changes are published while the block runs and at its end, also after an exception. A process that
    this one has started gets the same folder.

    Args:
        url: of a folder, or of one within a published folder.
        writing: be the folder's only writer; a new folder is made.
        needs: tells of a path in the published folder whether the block needs that file; other files stay in the store.

    Raises:
        InputError: if the package for the store is missing, access is refused, the folder has another writer, or, to
            read, does not exist.
        RunError: if requests fail at every attempt.
    """
    check_object_store(url)
    _, parts = divided(url)
    inherited = json.loads(os.environ.get(OPENED, "{}"))
    if os.environ.get("LOCAL_RANK", "0") != "0" or os.environ.get("RANK", "0") != "0":
        if url not in inherited:
            raise InputError(
                f"{url} is opened by one process, which starts the others (--devices N). With another launcher, such "
                "as torchrun, give a folder that all processes see, and copy it to the store afterwards."
            )
        yield Path(inherited[url])
        return
    store = ObjectStore(root_of(url))
    within = Path(*parts[len(divided(store.url)[1]) :])
    with local_copy(store.url, writing) as copy:
        if not writing:
            fetch(store, copy, lambda: newest(store)[0], needs)
            yield copy.folder / within
            return
        before, manifest = claim(store, lambda before, writer: copy.announce(store.url, before, writer))
        try:
            absent = fetch(store, copy, lambda: before or manifest, needs)
        except BaseException:
            with suppress(Exception):  # so that others need not wait for this process
                put(store, replace(manifest, number=manifest.number + 1, holder=None))
            raise
        writer = Writer(store, copy, manifest, before, absent)
        with losable(copy.folder) as lose, _shown_to_children(url, copy.folder / within):
            writer.begin(lose)
            try:
                yield copy.folder / within
            except BaseException as error:
                _end_after(writer, error)
                raise
            writer.end()


def _end_after(writer: Writer, error: BaseException) -> None:
    """Publish after an error, to which a failure to do so is added as a note."""
    try:
        writer.end()
    except Exception as failure:
        error.add_note(str(failure))


@contextmanager
def _shown_to_children(url: str, folder: Path) -> Iterator[None]:
    before = os.environ.get(OPENED)
    os.environ[OPENED] = json.dumps({**json.loads(before or "{}"), url: str(folder)})
    try:
        yield
    finally:
        if before is None:
            del os.environ[OPENED]
        else:
            os.environ[OPENED] = before


@contextmanager
def opened_objects(url: str) -> Iterator[Path]:
    """Yield an empty folder on this machine, whose files are uploaded below the URL at the end of the block."""
    store = ObjectStore(url)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / divided(url)[1][-1]
        folder.mkdir()
        yield folder
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        store.each(lambda path: store.upload(path, path.relative_to(folder).as_posix()), files)


@contextmanager
def opened_file(url: str) -> Iterator[Path]:
    """Yield the name of a file on this machine, which is uploaded to the URL at the end of the block."""
    scheme, parts = divided(url)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / parts[-1]
        yield path
        ObjectStore(joined(scheme, parts[:-1])).upload(path, parts[-1])


def published(needs: Callable[[str], bool]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator: the argument `out` may also be the URL of a folder in an object store, as for `opened`."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            out = bound.arguments.get("out")
            if not is_url(out):
                return function(*args, **kwargs)
            with opened(out, needs=needs) as folder:
                bound.arguments["out"] = folder
                return function(*bound.args, **bound.kwargs)

        return call

    return decorate


def copy_to(url: str, folder: Path) -> None:
    """Copy a published folder into a new one on this machine; raises InputError if there is none."""
    with opened(url, writing=False) as source:
        if not source.is_dir():
            raise InputError(f"There is no folder {url}: check the address.")
        shutil.copytree(source, folder)


_copies: dict[str, LocalCopy] = {}
_held = ExitStack()
"""The locks of those copies, until the process ends."""
atexit.register(_held.close)


def read_copy(url: str, needs: Callable[[str], bool] = results_and_weights) -> Path:
    """Return a folder with the newest content of one in an object store, to be read until this process ends.

    Raises:
        InputError: as `opened` does.
        RunError: if requests fail at every attempt.
    """
    store = ObjectStore(root_of(url))
    if store.url not in _copies:
        _copies[store.url] = _held.enter_context(local_copy(store.url, writing=False))
    copy = _copies[store.url]
    fetch(store, copy, lambda: newest(store)[0], needs)
    return copy.folder / Path(*divided(url)[1][len(divided(store.url)[1]) :])
