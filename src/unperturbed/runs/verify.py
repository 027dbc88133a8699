"""Checksums of what is written, so that what is read is known to be what was written."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unperturbed.reading import parse_json, regular
from unperturbed.runs.files import finite, write_json

SEAL = "sha256"
"""The field of a JSON object that holds the hash of all the others."""


def digest(value: Any) -> str:
    """Return a SHA-256 of plain values; the order of names does not matter."""
    text = json.dumps(finite(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; "" where it cannot be read."""
    try:
        with regular(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object whole, with its own hash."""
    write_json(path, {**value, SEAL: digest(value)})


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file holds, verified or not; an empty one where it holds none."""
    try:
        value = parse_json(regular(path).read_bytes(), path)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_sealed(path: Path) -> dict[str, Any]:
    """Return what `write_sealed` wrote, without the hash; an empty object where the file is not as it was written."""
    value = read_object(path)
    seal = value.pop(SEAL, None)
    return value if seal is not None and seal == digest(value) else {}
