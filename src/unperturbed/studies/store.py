"""The measured values of runs in files: one file of lines for all seeds of a network, small enough to be shared."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unperturbed.errors import InputError
from unperturbed.runs.files import write_text
from unperturbed.studies.design import Measured

DIGITS = 5
"""Significant digits of stored values."""


@dataclass(frozen=True)
class Store:
    """A folder with one file of lines per network and setting.

    A line holds the values of one measurement of one run. Only one process writes.

    Attributes:
        folder: of the files.
    """

    folder: Path

    def read(self, key: str, seed: int, question: str) -> Measured | None:
        """Return the values of a measurement; None if it has not been made."""
        for line in self._lines(key):
            if (line["seed"], line["question"]) == (seed, question):
                return {str(name): list(values) for name, values in line["values"].items()}
        return None

    def write(self, key: str, seed: int, question: str, values: Measured) -> None:
        """Add the values of a measurement, in the order of questions and seeds."""
        line = {"seed": seed, "question": question, "values": {name: _rounded(row) for name, row in values.items()}}
        others = [entry for entry in self._lines(key) if (entry["seed"], entry["question"]) != (seed, question)]
        lines = sorted([*others, line], key=lambda entry: (entry["question"], entry["seed"]))
        text = "".join(f"{json.dumps(entry, separators=(',', ':'), allow_nan=False)}\n" for entry in lines)
        write_text(self.folder / f"{key}.jsonl", text)

    def _lines(self, key: str) -> list[dict[str, Any]]:
        path = self.folder / f"{key}.jsonl"
        try:
            lines = [dict(json.loads(text)) for text in path.read_text(encoding="utf-8").splitlines()]
            if any(not {"seed", "question", "values"} <= line.keys() for line in lines):
                raise ValueError("a line lacks its seed, question or values")
        except FileNotFoundError:
            return []
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} is damaged ({error}): delete it, and its runs are measured again.") from error
        return lines


def _rounded(row: list[float | None]) -> list[float | None]:
    return [None if value is None or not math.isfinite(value) else _short(value) for value in row]


def _short(value: float) -> float:
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 10**DIGITS else rounded
