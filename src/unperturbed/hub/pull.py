"""Run folders from the hub."""

import glob
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from unperturbed.checks import checked
from unperturbed.errors import InputError
from unperturbed.hub.client import SCHEME, hub_errors, repository_of
from unperturbed.hub.files import CARD, PATTERNS, is_shared
from unperturbed.runs.files import BEST, CONFIG
from unperturbed.storage.opened import copy_to, read_copy
from unperturbed.storage.places import divided, is_object_store

NOTHING = "Nothing was written."


@checked()
def pull(repository: str, out: Path | str | None = None, *, revision: str | None = None) -> Path:
    """Download the run folder that `push` wrote to a repository of the hub, and return it.

    The URL of a folder in an object store, such as `s3://bucket/runs/at`, is downloaded as well, with all its files. Of
    a repository, only the files of a run are downloaded. The folder comes from its author: import paths in it are not
    followed without the user's trust, as in any run folder. The folder appears when all files are there.

    Args:
        repository: user/name, or the URL of a folder in an object store.
        out: the new folder; by default `runs/name`.
        revision: a branch, tag or commit of the repository; by default `main`.

    Raises:
        InputError: if the folder exists, or the repository does not, cannot be read, or holds no run.
        RunError: if the download fails.
    """
    from_store = is_object_store(repository)
    name = "/".join(["", *divided(repository)[1]][-2:]) if from_store else repository_of(repository)
    folder = Path(out) if out is not None else Path("runs") / name.partition("/")[2]
    if folder.exists() or folder.is_symlink():
        raise InputError(f"{folder} exists: give another folder (--out FOLDER), or remove it.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        beside.mkdir()
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be made ({error}): choose another one.") from error
    try:
        if from_store:
            beside.rmdir()
            copy_to(repository, beside)
        else:
            _download(name, revision, beside)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def as_folder(place: Path | str, patterns: Sequence[str] = PATTERNS) -> Path:
    """Return the folder of a run; for `hf://user/name` or a URL in an object store, a copy of its files in a cache."""
    if is_object_store(place):
        return read_copy(place)
    if not isinstance(place, str) or not place.startswith(SCHEME):
        return Path(place)
    from huggingface_hub import snapshot_download

    name = repository_of(place)
    with hub_errors(name, NOTHING):
        return Path(snapshot_download(name, allow_patterns=list(patterns)))


def _download(name: str, revision: str | None, folder: Path) -> None:
    from huggingface_hub import HfApi, snapshot_download

    with hub_errors(name, NOTHING):
        info = HfApi(library_name="unperturbed").model_info(name, revision=revision)
        files = [path for path in (part.rfilename for part in info.siblings or ()) if path == CARD or is_shared(path)]
        if not {CONFIG, BEST} <= {*files}:
            raise InputError(f"{name} holds no run: it lacks {CONFIG} or {BEST}, which `unperturbed push` writes.")
        patterns = [glob.escape(path) for path in files]
        snapshot_download(name, revision=info.sha, local_dir=folder, allow_patterns=patterns)
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's notes on the download
    lacks = [path for path in files if not (folder / path).is_file()]
    if lacks:
        raise InputError(f"{name} lacks the file {lacks[0]} that it lists: push the run again.")
