"""Finished evaluations read from a run folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow

from unperturbed.errors import InputError
from unperturbed.findings import AttackRecord, Interval, Outcome
from unperturbed.reading import parse_json
from unperturbed.runs.tables import read_table


def stored_evaluations(run: Path) -> dict[Path, Outcome]:
    """Return the finished evaluations below a run folder by the place of their summary, without their examples."""
    outcomes = {}
    for path in sorted((run / "evaluation").rglob("*.json")):
        try:
            outcomes[path] = _outcome(parse_json(path.read_bytes(), path))
        except (OSError, ValueError, KeyError, TypeError):  # another kind of result, or a damaged one
            continue
    return outcomes


def with_examples(summary: Path, outcome: Outcome) -> Outcome:
    """Return an evaluation with its table of examples, read from the folder beside its summary.

    Raises:
        InputError: where the table is damaged, or has not as many examples as the summary says.
    """
    parts = sorted(summary.with_suffix("").glob("part-*.parquet"))
    remedy = "repeat the evaluation with --overwrite"
    try:
        tables = [read_table(part) for part in parts]
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"The table of {summary} is damaged ({error}): {remedy}.") from error
    columns = {name: [value for table in tables for value in table[name]] for name in (tables[0] if tables else {})}
    if len(columns.get("id", [])) != outcome.n:
        there = len(columns.get("id", []))
        raise InputError(f"{summary} is of {outcome.n} examples, but its table has {there}: {remedy}.")
    return replace(outcome, examples=columns)


def _outcome(given: dict[str, Any]) -> Outcome:
    """Return the outcome that a summary describes, without its examples."""
    n = int(given["n"])
    (clean_low, clean_high), (low, high) = given["clean_interval"], given["interval"]
    return Outcome(
        suite=str(given["suite"]),
        note=str(given["note"]),
        threat=str(given["threat"]),
        n=n,
        clean_accuracy=Interval(given["clean_accuracy"], clean_low, clean_high, n),
        robust_accuracy=Interval(given["robust_accuracy"], low, high, n),
        counts=dict(given["counts"]),
        attacks=tuple(AttackRecord(**attack) for attack in given["attacks"]),
        ties=int(given["ties"]),
        unverified=int(given["unverified"]),
        seconds=float(given["seconds"]),
        warnings=tuple(given["warnings"]),
        environment=dict(given["environment"]),
        examples={},
    )
