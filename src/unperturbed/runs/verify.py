"""Checksums of written files, for verification at reading."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unperturbed.errors import InputError
from unperturbed.reading import parse_json, read_bytes, read_small, regular
from unperturbed.runs.files import finite, write_json

LARGEST = 256 * 2**20
"""The largest JSON file in bytes; findings have one value per example."""
SEAL = "sha256"
"""The field of a JSON object with the hash of all others."""


def digest(value: Any) -> str:
    """Return a SHA-256 of plain values, independent of the order of names."""
    text = json.dumps(finite(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; "" if it cannot be read."""
    try:
        with regular(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, with its hash."""
    write_json(path, {**value, SEAL: digest(value)})


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, unverified; an empty one if there is none."""
    try:
        value = parse_json(read_bytes(path, LARGEST), path)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def read_sealed(path: Path) -> dict[str, Any]:
    """Return the object of `write_sealed`, without the hash; an empty object if the file was changed."""
    value = read_object(path)
    seal = value.pop(SEAL, None)
    return value if seal is not None and seal == digest(value) else {}


def without_seal(value: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return an object of `write_sealed` without its hash.

    Raises:
        InputError: if the object was changed after it was written, or its hash is missing.
    """
    content = dict(value)
    seal = content.pop(SEAL, None)
    if seal is None:
        raise InputError(f"{path} has no {SEAL!r}, the hash of its content: repeat the command that writes it.")
    if seal != digest(content):
        raise InputError(f"{path} was changed after it was written: repeat the command that writes it.")
    return content


def read_verified(path: Path) -> dict[str, Any]:
    """Return the object of `write_sealed`, without its hash.

    Raises:
        InputError: if the file cannot be read, holds no JSON object, was changed, or has no hash.
    """
    content = parse_json(read_small(path), path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object, but {type(content).__name__}.")
    return without_seal(content, path)
