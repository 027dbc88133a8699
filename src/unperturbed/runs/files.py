"""The run folder: its names, and writes that are whole or not there at all."""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from unperturbed.errors import InputError
from unperturbed.reading import parse_yaml, read_small

CONFIG = "config.yaml"
MODEL = "model.safetensors"
BEST = "best.safetensors"
CHECKPOINT = "checkpoints/last.pt"
METRICS = "metrics.jsonl"
RESULT = "result.json"
_LONGEST_LINE = 2**20


def evaluation_folder(run: Path, suite: str) -> Path:
    """Return the folder of a suite's per-example results; its summary is `SUITE.json` beside it."""
    return run / "evaluation" / suite


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""

    def write(temporary: Path) -> None:
        temporary.write_text(text)

    write_atomically(path, write)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object whole; numbers that are not finite become null."""
    write_text(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """Return a value of JSON with null where a number is not finite, at any depth: JSON has no other word for it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return value


def write_yaml(path: Path, value: Mapping[str, Any]) -> None:
    """Write a YAML mapping whole, in the order given."""
    write_text(path, yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True))


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Raises:
        InputError: if it holds none, or one that exceeds the limits of `reading`.
    """
    value = parse_yaml(read_small(path), path)
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no options by name, but {type(value).__name__}.")
    return value


def append_jsonl(path: Path, value: Mapping[str, Any]) -> None:
    """Append one line to a JSON-lines file."""
    with path.open("a") as file:
        file.write(json.dumps(value) + "\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON-lines file; a last line that was cut off is left out.

    So are lines of more than a mebibyte, which no run writes.
    """
    values = list[dict[str, Any]]()
    if not path.exists():
        return values
    with path.open(encoding="utf-8", errors="replace") as file:
        while line := file.readline(_LONGEST_LINE):
            with suppress(ValueError, RecursionError):
                if isinstance(value := json.loads(line), dict):
                    values.append(value)
    return values


def write_jsonl(path: Path, values: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSON-lines file whole."""
    write_text(path, "".join(json.dumps(value) + "\n" for value in values))
