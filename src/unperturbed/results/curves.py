"""A stored curve of robust accuracy against eps, recomputed from the table of distances."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unperturbed.errors import InputError
from unperturbed.evaluation.parts import Part
from unperturbed.evaluation.stored import check_doubts, check_job, stored_parts
from unperturbed.evaluation.surroundings import reach
from unperturbed.findings import Interval
from unperturbed.statistics.intervals import wilson

STEPS = 60
"""Number of even steps of eps."""
SLACK = 1e-9


@dataclass(frozen=True, eq=False)
class StoredCurve:
    """Robust accuracy against eps, of one run.

    Attributes:
        path: of its summary.
        threat: the threat set at the largest radius, as text.
        suite: name of the suite.
        n: examples.
        points: accuracy at the radii and at even steps between them, from eps 0.
        radii: the radii of all attacks of the suite.
        median: of the distances; None if fewer than half of the examples have one.
        doubts: reasons why the accuracies are not credible.
        warnings: of the measurement.
    """

    path: Path
    threat: str
    suite: str
    n: int
    points: Sequence[tuple[float, Interval]]
    radii: Sequence[float]
    median: float | None
    doubts: tuple[str, ...]
    warnings: tuple[str, ...]


def read_curve(path: Path, content: Mapping[str, Any]) -> StoredCurve:
    """Return the curve of a summary and the verified table in the folder of the same name.

    Raises:
        InputError: if a part of the table is missing or damaged, or the summary contradicts the table or the job.
    """
    check_job(path, {**content["environment"], "threat": content["threat"], "suite": content["suite"]})
    n, doubts, warnings = int(content["n"]), tuple(map(str, content["doubts"])), tuple(map(str, content["warnings"]))
    parts = stored_parts(path, n)
    check_doubts(path, doubts, warnings, parts)
    rows = _rows(parts)
    if len(rows) != n:
        raise InputError(f"{path} is of {n} examples, but its table of {len(rows)}: repeat the curve with --overwrite.")
    radii = [float(entry["eps"]) for entry in content["curve"]]
    for entry in content["curve"]:
        accuracy = _at(rows, float(entry["eps"])).value
        if abs(accuracy - float(entry["robust_accuracy"])) > SLACK:
            raise InputError(
                f"{path} says {entry['robust_accuracy']} at eps {entry['eps']}, but its table {accuracy}: it was "
                "changed. Repeat the curve with --overwrite."
            )
    steps = sorted({radii[-1] * step / STEPS for step in range(STEPS)} | {*radii})
    ends = sorted(min(distance, doubt) for distance, doubt, _ in rows)
    median = next(end for count, end in enumerate(ends, 1) if count / n >= 0.5)
    return StoredCurve(
        path=path,
        threat=str(content["threat"]),
        suite=str(content["suite"]),
        n=n,
        points=[(eps, _at(rows, eps)) for eps in steps],
        radii=radii,
        median=median if math.isfinite(median) else None,
        doubts=doubts,
        warnings=warnings,
    )


def _rows(parts: Sequence[Part]) -> list[tuple[float, float, float]]:
    """Return (distance, doubt, rounding) of each example."""
    columns = ("distance", "doubt", "rounding")
    return [row for part in parts for row in zip(*(part.table[name] for name in columns), strict=True)]


def _at(rows: Sequence[tuple[float, float, float]], eps: float) -> Interval:
    """Return the robust accuracy at a radius; a doubtful example is not robust."""
    beyond = [(distance, doubt, reach(eps, rounding)) for distance, doubt, rounding in rows]
    robust = sum(min(distance, doubt) > within for distance, doubt, within in beyond)
    possible = sum(distance > within for distance, _, within in beyond)
    return wilson(robust, len(rows), possible)
