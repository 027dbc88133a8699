"""Manifests: which objects of a store are the files of a folder, and which process publishes the next manifest.

A folder in an object store has numbered manifests, `manifests/00000042.json`, and objects, `objects/NAME`. The folder's
content is that of the newest whole manifest. An object is written once, under a name that is never used again, before a
manifest names it, and deleted after the manifests that name it. So a reader never sees a file in parts, or files of two
states. A manifest is written under the next number and only if there is none: of two writers, one is refused.
"""

import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from unperturbed.errors import InputError
from unperturbed.reading import parse_json
from unperturbed.runs.files import HOST, is_running
from unperturbed.runs.lock import PATIENCE, Holder, InUseError, this_process
from unperturbed.runs.verify import SEAL, digest
from unperturbed.storage.object_store import ObjectStore, StorageError
from unperturbed.storage.places import divided, joined

MANIFESTS = "manifests"
OBJECTS = "objects"
ATTEMPTS = 20
"""Attempts to read while another process publishes."""
_NAME = re.compile(r"(\d{8})\.json")
_OBJECT = re.compile(r"[0-9a-f]{16}-\d{8}")


class TakenOverError(InUseError):
    """Another process publishes into the folder now."""


@dataclass(frozen=True)
class Entry:
    """The content of a file: its object, and the SHA-256 and the size of its bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """The files of a folder in an object store.

    Attributes:
        number: manifests count up.
        writer: a random name of the process that wrote it.
        holder: that process, while it may publish further manifests; None: it has ended.
        files: by path.
    """

    number: int
    writer: str
    holder: Holder | None
    files: Mapping[str, Entry]

    def encoded(self) -> bytes:
        """Return the content of the manifest's object, with a hash."""
        value = {
            "number": self.number,
            "writer": self.writer,
            "holder": None if self.holder is None else asdict(self.holder),
            "files": {path: [entry.name, entry.sha256, entry.size] for path, entry in sorted(self.files.items())},
        }
        return json.dumps({**value, SEAL: digest(value)}).encode()

    @staticmethod
    def decoded(content: bytes) -> "Manifest | None":
        """Return a manifest of its object's content; None if that is incomplete, changed, or of another kind."""
        try:
            value: Any = parse_json(content.decode(), "a manifest")
            seal = value.pop(SEAL)
            files = {
                str(path): Entry(str(name), str(sha), int(size)) for path, (name, sha, size) in value["files"].items()
            }
            holder = None if value["holder"] is None else Holder(**value["holder"])
            manifest = Manifest(int(value["number"]), str(value["writer"]), holder, files)
        except (ValueError, TypeError, LookupError, AttributeError):
            return None
        fits = all(_OBJECT.fullmatch(entry.name) and entry.size >= 0 for entry in files.values())
        return manifest if seal == digest(value) and fits and all(map(is_published, files)) else None


def is_published(path: str) -> bool:
    """Tell whether a relative path names a file that is published: none that is hidden, or outside of the folder."""
    return all(part and not part.startswith(".") and "\\" not in part and "\0" not in part for part in path.split("/"))


def numbers(store: ObjectStore) -> list[int]:
    """Return the numbers of the manifests, in order."""
    return sorted(int(match[1]) for name in store.names(MANIFESTS) if (match := _NAME.fullmatch(name)))


def place_of(number: int) -> str:
    """Return the name of a manifest's object."""
    return f"{MANIFESTS}/{number:08d}.json"


def newest(store: ObjectStore) -> tuple[Manifest | None, int]:
    """Return the newest whole manifest, and the highest number of all (0: there is none)."""
    for _ in range(ATTEMPTS):
        present = numbers(store)
        for number in reversed(present):
            try:
                manifest = Manifest.decoded(store.read(place_of(number)))
            except FileNotFoundError:  # it has been deleted since the list, so there are newer ones
                break
            if manifest is not None and manifest.number == number:
                return manifest, present[-1]
        else:
            if present and store.names(OBJECTS):  # else the first writer died while it wrote the first one
                raise InputError(f"All manifests of {store.url} are damaged: restore one from a backup.")
            return None, max(present, default=0)
    raise StorageError(f"{store.url} changes too fast to be read: try again later.")


def put(store: ObjectStore, manifest: Manifest) -> Manifest:
    """Write a manifest under its number, or the next free number after an earlier attempt; return the manifest.

    Raises:
        TakenOverError: if another process has published since.
    """
    while True:
        content = manifest.encoded()
        try:
            store.write(place_of(manifest.number), content, new=True)
            break
        except FileExistsError:
            stored = _stored(store, manifest.number)
            if stored == manifest:  # by an attempt whose answer was lost
                break
            if stored is not None and stored.writer != manifest.writer:
                raise taken_over(store, stored) from None
            manifest = replace(manifest, number=manifest.number + 1)  # ours, or written in part
    if (highest := max(numbers(store), default=0)) > manifest.number:
        later = _stored(store, highest)
        store.delete([place_of(manifest.number)])
        raise taken_over(store, later)
    return manifest


def _stored(store: ObjectStore, number: int) -> Manifest | None:
    try:
        return Manifest.decoded(store.read(place_of(number)))
    except FileNotFoundError:
        return None


def taken_over(store: ObjectStore, other: Manifest | None) -> TakenOverError:
    """Return the error of a writer that another one has replaced."""
    by = "another process" if other is None or other.holder is None else str(other.holder)
    return TakenOverError(
        f"{store.url} is now being written by {by}, which took this process for dead: nothing more of this process is "
        "published. Wait for the end of the other one, and run the command again."
    )


def claim(
    store: ObjectStore, announce: Callable[[Manifest | None, str], None] = lambda before, writer: None
) -> tuple[Manifest | None, Manifest]:
    """Become the writer of a folder; return the manifest before (None: the folder is new) and the own first one.

    Args:
        store: of the folder.
        announce: called with the manifest before and the own name, before the own manifest is written.

    Raises:
        InUseError: if another process is the writer, and alive.
    """
    for _ in range(ATTEMPTS):
        token = secrets.token_hex(8)
        before, highest = newest(store)
        if before is not None and before.holder is not None and _is_alive(store, before, before.holder, token):
            raise InUseError(
                f"{store.url} is being written by {before.holder}: wait for its end or stop it, or give another --out."
            )
        files = {} if before is None else before.files
        announce(before, token)
        try:
            return before, put(store, Manifest(highest + 1, token, this_process(), files))
        except TakenOverError:
            continue
    raise InUseError(f"{store.url} is claimed by several processes at the same time: run the command again.")


def _is_alive(store: ObjectStore, manifest: Manifest, holder: Holder, token: str) -> bool:
    """Tell whether the writer of a manifest lives: by its process on this host, else by its last sign of life."""
    if holder.host == HOST:
        return is_running(holder.pid)
    probe = f"probes/{token}"
    store.write(probe, b"")
    try:
        return store.modified(probe) - store.modified(place_of(manifest.number)) < PATIENCE
    except FileNotFoundError:  # a newer manifest has replaced it
        return True
    finally:
        store.delete([probe])


def root_of(url: str) -> str:
    """Return the URL of the folder with manifests that a place lies in: the place itself, or one above; else the place.

    So a run of a published sweep is found by its URL.
    """
    scheme, parts = divided(url)
    for count in range(len(parts), 1, -1):
        above = joined(scheme, parts[:count])
        if numbers(ObjectStore(above)):
            return above
    return joined(scheme, parts)
