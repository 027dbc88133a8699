"""Copies of data files from object stores."""

import os
from pathlib import Path
from typing import Any

from filelock import FileLock

from unperturbed.errors import InputError, RunError
from unperturbed.runs.files import write_json
from unperturbed.runs.verify import read_object
from unperturbed.storage.manifest import is_published
from unperturbed.storage.object_store import ObjectStore, log
from unperturbed.storage.places import divided, home_of, joined

VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "blob_id", "lfs", "LastModified", "mtime", "created")
"""Fields of a store's answer that change with the content of an object."""

SUFFIXES = (".parquet", ".npz", ".csv", ".tsv", ".tar")
"""Suffixes of places that are files."""


def data_copy(url: str, may_download: bool) -> Path:
    """Return a copy of a file or folder of data on this machine, up to date; of one Parquet file, the folder with it.

    Files that have not changed since they were downloaded are not downloaded again.

    Raises:
        InputError: if there is nothing, or `may_download` is false and there is no copy yet.
        RunError: if requests fail at every attempt, or the cache cannot be written.
    """
    scheme, parts = divided(url)
    home = home_of(joined(scheme, parts), "data")
    name = Path(parts[-1])
    folder, record = home / (name.stem if name.suffix in SUFFIXES else name.name), home / "copy.json"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / "lock"):
            known = read_object(record).get("versions", {})
            if may_download:
                known = _refreshed(ObjectStore(url), folder, record, known)
    except OSError as error:
        raise RunError(
            f"The cache {home} cannot be written ({error}): free space, or set UNPERTURBED_CACHE."
        ) from error
    if not known:
        raise InputError(
            f"The data {url} stand in a file, and are not on this machine: give them yourself (--data), or add --trust."
        )
    single = [*known] == [parts[-1]] and (folder / parts[-1]).is_file()
    return folder / parts[-1] if single and not parts[-1].endswith(".parquet") else folder


def _refreshed(store: ObjectStore, folder: Path, record: Path, known: dict[str, Any]) -> dict[str, Any]:
    """Download what has changed, remove what is no longer there, and return the versions of all files by path."""
    try:
        details = store.details()
    except FileNotFoundError:
        details = {}
    files = {path or divided(store.url)[1][-1]: about for path, about in details.items() if not _is_hidden(path)}
    if not files:
        raise InputError(f"There are no data {store.url}: check the address.")
    versions = {
        path: [about.get("size"), *(str(about.get(name)) for name in VERSIONS)] for path, about in files.items()
    }
    changed = [path for path in files if versions[path] != known.get(path) or not (folder / path).is_file()]
    for path in known.keys() - files.keys():
        (folder / path).unlink(missing_ok=True)
    if changed:
        kept = {path: version for path, version in versions.items() if path not in changed}
        write_json(record, {"url": store.url, "versions": kept})
        log.info("Downloading %d files of %s.", len(changed), store.url)
    single = "" in details
    store.each(lambda path: _download(store, "" if single else path, folder / path, files[path].get("size")), changed)
    write_json(record, {"url": store.url, "versions": versions})
    return versions


def _download(store: ObjectStore, name: str, path: Path, size: int | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arriving = path.with_name(f".{path.name}.arriving")
    try:
        store.download(name, arriving, size or 0, lambda: size is None or arriving.stat().st_size == size)
        os.replace(arriving, path)
    except FileNotFoundError as error:
        raise InputError(f"{store.url}/{name} was deleted during the download: check the data.") from error
    finally:
        arriving.unlink(missing_ok=True)


def _is_hidden(path: str) -> bool:
    return path != "" and not is_published(path)
