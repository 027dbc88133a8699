"""Places in object stores: their URLs, and the folder of their local copies."""

import hashlib
import os
import re
from pathlib import Path
from typing import TypeGuard

from unperturbed.errors import InputError

PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "adlfs"),
    **dict.fromkeys(("memory", "file"), "fsspec"),
    "hf": "huggingface_hub",
}
"""The package of each scheme."""
_URL = re.compile(rf"(?P<scheme>{'|'.join(PACKAGES)})://(?P<path>.+)")


def is_url(place: object) -> TypeGuard[str]:
    """Tell whether a value is a URL with one of the known schemes."""
    return isinstance(place, str) and _URL.fullmatch(place) is not None


def is_object_store(place: object) -> TypeGuard[str]:
    """Tell whether a value is the URL of a place in an object store.

    Buckets of the Hugging Face hub (`hf://buckets/user/name`) are such, and its repositories are not.
    """
    return is_url(place) and (not place.startswith("hf://") or place.startswith("hf://buckets/"))


def divided(url: str) -> tuple[str, list[str]]:
    """Return the scheme of a URL, and the parts of its path.

    Raises:
        InputError: if a part is empty, or leads out of the folder above it.
    """
    scheme, _, path = url.partition("://")
    parts = path.strip("/").split("/")
    if any(part in ("", ".", "..") or "\\" in part or not part.isprintable() for part in parts):
        raise InputError(f"{url!r:.200} is no place of a file or folder: write {scheme}://BUCKET/FOLDER.")
    return scheme, parts


def joined(scheme: str, parts: list[str]) -> str:
    """Return the URL of a scheme and the parts of a path."""
    return f"{scheme}://{'/' if scheme == 'file' else ''}{'/'.join(parts)}"


def cache() -> Path:
    """Return the folder of local copies: `$UNPERTURBED_CACHE`, else `unperturbed` in the user's cache folder."""
    named = os.environ.get("UNPERTURBED_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unperturbed"


def home_of(url: str, kind: str) -> Path:
    """Return the folder for local copies of a place; `kind` is "runs" or "data"."""
    return cache() / kind / hashlib.sha256(url.encode()).hexdigest()[:20]
