"""Copies of single files from object stores, such as weights."""

import json
import os
from pathlib import Path

from unperturbed.errors import InputError
from unperturbed.storage.data_copy import data_copy
from unperturbed.storage.manifest import numbers, root_of
from unperturbed.storage.object_store import ObjectStore
from unperturbed.storage.opened import OPENED, check_object_store, read_copy
from unperturbed.storage.places import divided


def is_in_published_folder(url: str) -> bool:
    """Tell whether a place in an object store is a published folder, or lies in one."""
    return bool(numbers(ObjectStore(root_of(url))))


def file_copy(url: str) -> Path:
    """Return a copy of a file on this machine, up to date: of an object, or of a file in a published folder.

    Raises:
        InputError: if there is no such file, or the URL is of a repository of the hub.
        RunError: if requests fail at every attempt.
    """
    check_object_store(url)
    if is_in_published_folder(url):
        root = root_of(url)
        within = "/".join(divided(url)[1][len(divided(root)[1]) :])
        opened = json.loads(os.environ.get(OPENED, "{}")).get(root)
        path = Path(opened) / within if opened else read_copy(url, lambda path: path == within)
    else:
        try:
            found = "" in ObjectStore(url).details()
        except FileNotFoundError:
            found = False
        path = data_copy(url, may_download=True) if found else Path()
    if not path.is_file():
        raise InputError(f"There is no file {url}: check the address.")
    return path
