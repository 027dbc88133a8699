"""The copy of a published folder on this machine: its origin, and its updates from the store."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from unperturbed.errors import InputError, RunError
from unperturbed.runs.files import write_json
from unperturbed.runs.lock import InUseError
from unperturbed.runs.verify import file_hash, read_object
from unperturbed.storage.manifest import ATTEMPTS, OBJECTS, Entry, Manifest, is_published
from unperturbed.storage.object_store import ObjectStore, StorageError, log
from unperturbed.storage.places import divided, home_of

Stamp = tuple[int, int, int]
"""Size, time of change and inode of a file, by which a change is seen."""
MOST_COPIES = 32
"""The largest number of commands that read the same folder at the same time on this machine."""


@dataclass(frozen=True)
class LocalCopy:
    """A copy of a published folder in the cache, which one process uses at a time.

    Attributes:
        folder: the files; it does not exist while there are none.
        record: a JSON file: the writers whose changes the copy holds, and whether all of them are published.
    """

    folder: Path
    record: Path

    @property
    def staging(self) -> Path:
        """A folder for copies of files that are about to be published."""
        return self.record.with_name("staging")

    def holds_changes_of(self, manifest: Manifest | None) -> bool:
        """Tell whether the manifest was written from this copy, which is then at least as new as the manifest."""
        return manifest is not None and manifest.writer in self._writers()

    def note(self, url: str, writers: Sequence[str], published: bool) -> None:
        """Record the writers whose changes the copy holds, and whether they are published."""
        write_json(self.record, {"url": url, "writers": list(writers), "published": published})

    def announce(self, url: str, before: Manifest | None, writer: str) -> None:
        """Record the coming write after `before`, so that after a crash the copy is still known to be its source."""
        if self.holds_changes_of(before):
            self.note(url, [*self._writers(), writer], published=not self.has_unpublished())

    def _writers(self) -> list[str]:
        return list(read_object(self.record).get("writers", ()))

    def has_unpublished(self) -> bool:
        """Tell whether changes in the copy were not published."""
        return read_object(self.record).get("published") is False and bool(scan(self.folder))


@contextmanager
def local_copy(url: str, writing: bool) -> Iterator[LocalCopy]:
    """Lock a copy of a folder for this process: the one for its writer, or the first free one for a reader.

    Raises:
        InUseError: if another process on this machine holds the writer's.
        RunError: if the cache cannot be written.
    """
    name = divided(url)[1][-1]
    for kind in ["writer"] if writing else [f"reader-{number}" for number in range(MOST_COPIES)]:
        home = home_of(url, "runs") / kind
        try:
            home.mkdir(parents=True, exist_ok=True)
            lock = FileLock(home / "lock", thread_local=False)
            lock.acquire(timeout=0.3 if writing else 0)
        except Timeout:
            continue
        except OSError as error:
            raise RunError(
                f"The cache {home} cannot be written ({error}): set UNPERTURBED_CACHE to a folder."
            ) from error
        try:
            yield LocalCopy(home / name, home / "copy.json")
        finally:
            lock.release()
        return
    raise InUseError(f"{url} is in use by another process on this machine: wait for its end or stop it.")


def scan(folder: Path) -> dict[str, Stamp]:
    """Return the stamps of all files in a folder that are published, by path. Links are left out."""
    stamps = dict[str, Stamp]()
    _scan(str(folder), "", stamps)
    return stamps


def _scan(place: str, prefix: str, stamps: dict[str, Stamp]) -> None:
    try:
        entries = os.scandir(place)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if not is_published(entry.name):
                continue
            with suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    _scan(entry.path, f"{prefix}{entry.name}/", stamps)
                elif entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    stamps[prefix + entry.name] = (status.st_size, status.st_mtime_ns, status.st_ino)


def fetch(
    store: ObjectStore,
    copy: LocalCopy,
    newest: Callable[[], Manifest | None],
    needs: Callable[[str], bool],
) -> Mapping[str, Entry]:
    """Make the copy equal to the newest manifest, and return the files of that that it lacks, since `needs` is false.

    A copy with changes that only this machine has, of the manifest's own writer, keeps them: it was about to publish
    them. Files that it has deleted since come back, because a cleaner of caches may have deleted them. Changes that
    another machine's writer has overtaken are moved aside, with a warning.

    Raises:
        InputError: if there is no manifest.
        StorageError: if an object is missing or does not arrive.
    """
    for _ in range(ATTEMPTS):
        manifest = newest()
        if manifest is None:
            raise InputError(f"There is no run folder {store.url}: check the address, or make one with --out.")
        ahead = copy.holds_changes_of(manifest)
        if not ahead:
            _move_aside(copy)
            copy.note(store.url, (), published=True)  # until all files are there, it holds nobody's changes
            _remove_others(copy.folder, manifest)
        missing = {
            path: entry
            for path, entry in manifest.files.items()
            if (not (copy.folder / path).exists() if ahead else file_hash(copy.folder / path) != entry.sha256)
        }
        needed = [(path, entry) for path, entry in missing.items() if needs(path)]
        try:
            store.each(lambda item: download(store, item[1], copy.folder / item[0]), needed)
        except FileNotFoundError:  # a writer has deleted it, and published a newer manifest before
            continue
        for path in missing.keys() - dict(needed).keys():
            (copy.folder / path).unlink(missing_ok=True)
        return {path: entry for path, entry in missing.items() if not needs(path)}
    raise StorageError(
        f"Objects of {store.url} are missing, or it changes faster than it can be read: try again later."
    )


def download(store: ObjectStore, entry: Entry, path: Path) -> None:
    """Download the object of a file, verify it, and put it in place."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=".arriving", dir=path.parent)
        os.close(handle)
        arriving = Path(name)
        try:
            store.download(f"{OBJECTS}/{entry.name}", arriving, entry.size, lambda: file_hash(arriving) == entry.sha256)
            arriving.chmod(0o644)
            os.replace(arriving, path)
        finally:
            arriving.unlink(missing_ok=True)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error}): free space, or set UNPERTURBED_CACHE.") from error


def _remove_others(folder: Path, manifest: Manifest) -> None:
    """Remove files that a manifest does not name, and folders that are empty then."""
    for path in [path for path in scan(folder) if path not in manifest.files]:
        (folder / path).unlink(missing_ok=True)
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            if name.startswith("."):  # of a lock, or of a killed process
                Path(parent, name).unlink(missing_ok=True)
        with suppress(OSError):
            Path(parent).rmdir()


def _move_aside(copy: LocalCopy) -> None:
    """Keep changes that were never published, and that a newer manifest would overwrite, in another folder."""
    if not copy.has_unpublished():
        return
    aside = Path(tempfile.mkdtemp(prefix="unpublished-", dir=copy.record.parent)) / copy.folder.name
    copy.folder.rename(aside)
    log.warning(
        "An earlier command could not publish its last changes, and another machine has published since: those changes "
        "are in %s.",
        aside,
    )
