"""Summaries changed on purpose, with the hash of the new content, so that a test reaches the checks behind the hash."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unperturbed.runs.verify import SEAL, write_sealed


def reseal(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with the hash of its content; a hash in the object is left out."""
    write_sealed(path, {name: value for name, value in content.items() if name != SEAL})
