"""The publication of a folder: its changes as new objects and a new manifest, in the background and at the end."""

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from unperturbed.errors import RunError
from unperturbed.runs.files import WRITING
from unperturbed.runs.verify import file_hash
from unperturbed.storage.local_copy import LocalCopy, Stamp, scan
from unperturbed.storage.manifest import OBJECTS, Entry, Manifest, TakenOverError, numbers, place_of, put
from unperturbed.storage.object_store import ObjectStore, log

INTERVAL = 5.0
"""Seconds between two publications; more if they take long, so that they take a tenth of the time at most."""
SHARE = 0.1
BEAT = 60.0
"""Seconds after which an unchanged folder gets a new manifest, as a sign of life."""
FREE_COPIES = 3
"""Attempts to copy the changed files between two writes; then writes of this process wait for the copy."""


class Writer:
    """The publisher of a folder.

    A publication is a copy of the changed files between two writes, then their objects, then a manifest, and last the
    deletion of what the manifest before the last one named alone. So the store holds states in which a killed process
    could have left the folder, and every command resumes from those.

    Args:
        store: of the folder.
        copy: the folder on this machine.
        manifest: the own first one, of `claim`.
        before: the manifest before that.
        absent: files of the manifest that the copy lacks, and that stay published.
    """

    def __init__(
        self,
        store: ObjectStore,
        copy: LocalCopy,
        manifest: Manifest,
        before: Manifest | None,
        absent: Mapping[str, Entry],
    ) -> None:
        self.store, self.copy, self.absent = store, copy, dict(absent)
        self.manifest, self.before, self.is_new = manifest, before, before is None
        self.objects = {entry.sha256: entry for entry in manifest.files.values()}
        self.published: dict[str, tuple[Stamp, Entry]] = {}
        self.count, self.last, self.seconds = 0, time.monotonic(), 0.0
        self.error: RunError | TakenOverError | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="unperturbed-publisher", daemon=True)

    def begin(self, lose: Callable[[str], None]) -> None:
        """Delete what killed writers left, and publish in the background; call `lose` if another one takes over."""
        self.lose = lose
        self.copy.note(self.store.url, [self.manifest.writer], published=False)
        self._delete_leftovers()
        self._thread.start()

    def end(self) -> None:
        """Publish all changes, and end as the writer.

        Raises:
            RunError: if they cannot be published; the local copy keeps them for the next command.
            TakenOverError: if another process has taken over.
        """
        self._ended.set()
        self._thread.join()
        if isinstance(self.error, TakenOverError):
            raise self.error
        if self.is_new and not self.manifest.files and not scan(self.copy.folder):
            self.store.delete([place_of(number) for number in numbers(self.store)])  # nothing has come of it
            return
        try:
            self.publish(ended=True)
        except RunError as error:
            raise RunError(
                f"{error} The last changes are not published: they are in {self.copy.folder}, and the next command "
                f"with {self.store.url} on this machine publishes them."
            ) from error
        self.copy.note(self.store.url, [self.manifest.writer], published=True)

    def publish(self, ended: bool = False) -> None:
        """Publish the present state of the folder, if it has changed or is due for a sign of life.

        Raises:
            StorageError: if a request fails at every attempt; the next publication has these changes, too.
            TakenOverError: if another process has published.
        """
        began = time.monotonic()
        stamps, copies = self._changed()
        hashes = {path: file_hash(copy) for path, copy in copies.items()}
        fresh = {sha: copies[path] for path, sha in hashes.items() if sha not in self.objects}
        uploaded = self.store.each(lambda item: self._uploaded(*item), self._numbered(fresh))
        self.objects |= {entry.sha256: entry for entry in uploaded}
        entries = {
            path: (stamp, self.objects[hashes[path]] if path in hashes else self.published[path][1])
            for path, stamp in stamps.items()
        }
        files = {**self.absent, **{path: entry for path, (_, entry) in entries.items()}}
        due = time.monotonic() - self.last > BEAT
        if files != self.manifest.files or due or ended:
            following = replace(self.manifest, number=self.manifest.number + 1, files=files)
            following = put(self.store, replace(following, holder=None) if ended else following)
            before, self.before, self.manifest = self.before, self.manifest, following
            self._delete_before(before)
            self.last = time.monotonic()
        self.published = entries
        shutil.rmtree(self.copy.staging, ignore_errors=True)
        self.seconds = time.monotonic() - began

    def _changed(self) -> tuple[dict[str, Stamp], dict[str, Path]]:
        """Return the stamps of all files at one moment, and copies of those that have changed."""
        for _ in range(FREE_COPIES):
            stamps, copies = self._copied()
            if scan(self.copy.folder) == stamps:
                return stamps, copies
        with WRITING:
            return self._copied()

    def _copied(self) -> tuple[dict[str, Stamp], dict[str, Path]]:
        staging, folder = self.copy.staging, self.copy.folder
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        stamps, copies = scan(folder), dict[str, Path]()
        for path, stamp in list(stamps.items()):
            if path in self.published and self.published[path][0] == stamp:
                continue
            copies[path] = staging / str(len(copies))
            try:
                shutil.copyfile(folder / path, copies[path])
            except FileNotFoundError:  # deleted meanwhile
                del stamps[path], copies[path]
        return stamps, copies

    def _numbered(self, fresh: Mapping[str, Path]) -> list[tuple[str, str, Path]]:
        """Return object names that were never used, with the contents for them by hash."""
        first, self.count = self.count, self.count + len(fresh)
        return [
            (f"{self.manifest.writer}-{first + place:08d}", sha, file)
            for place, (sha, file) in enumerate(fresh.items())
        ]

    def _uploaded(self, name: str, sha: str, file: Path) -> Entry:
        self.store.upload(file, f"{OBJECTS}/{name}")
        return Entry(name, sha, file.stat().st_size)

    def _delete_before(self, before: Manifest | None) -> None:
        """Delete the manifest before the last two, and all objects that those do not name."""
        kept = self._named()
        unused = [entry for entry in self.objects.values() if entry.name not in kept]
        if before is not None:
            unused += [entry for entry in before.files.values() if entry.name not in kept]
        names = {f"{OBJECTS}/{entry.name}" for entry in unused}
        self._delete([*([] if before is None else [place_of(before.number)]), *names])
        for entry in unused:
            if self.objects.get(entry.sha256) == entry:
                del self.objects[entry.sha256]

    def _named(self) -> set[str]:
        manifests = [manifest for manifest in (self.before, self.manifest) if manifest is not None]
        return {entry.name for manifest in manifests for entry in manifest.files.values()}

    def _delete_leftovers(self) -> None:
        """Delete the objects that no manifest names, and the older manifests."""
        try:
            present = {number for number in numbers(self.store) if number < self.manifest.number}
            unnamed = set(self.store.names(OBJECTS)) - self._named()
        except RunError as error:  # the next writer deletes them
            log.debug("%s", error)
            return
        old = present - ({self.before.number} if self.before is not None else set())
        self._delete([*map(place_of, old), *(f"{OBJECTS}/{name}" for name in unnamed)])

    def _delete(self, names: list[str]) -> None:
        """Delete objects; what remains after a failure is deleted by the next writer."""
        try:
            self.store.delete(names)
        except RunError as error:
            log.debug("%s", error)

    def _work(self) -> None:
        """Publish again and again until the end."""
        while not self._ended.wait(max(INTERVAL, self.seconds / SHARE)):
            try:
                self.publish()
                self.error = None
            except TakenOverError as error:
                self.error = error
                self.lose(str(error))
                return
            except Exception as error:  # the next publication has the changes, and the end reports what remains
                if self.error is None:
                    log.warning("The last changes are not published yet (%s): this is tried again.", error)
                self.error = RunError(str(error))
