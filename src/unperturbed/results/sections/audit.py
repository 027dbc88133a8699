"""The section on audits: is the robustness real?"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from unperturbed.findings import Interval
from unperturbed.reports.document import (
    Alert,
    Block,
    LineChart,
    Paragraph,
    Part,
    Section,
    Series,
    Table,
    section,
    shown,
)
from unperturbed.results.stored import StoredRun

HONEST = "no sign of obfuscation"
UNDECIDED = "undecided"
MISSING = "it found nothing, but checks that it needs were not run. The robust accuracy may be too high."


def audit(runs: Sequence[StoredRun]) -> Section | None:
    """Return the section, with a part for each audited run."""
    lead = (
        "An audit looks for signs that a network only breaks the attack and is not robust: hidden or useless gradients."
    )
    return section("Audit", [Part(run.name if len(runs) > 1 else "", _blocks(run.audit)) for run in runs], lead)


def no_sign(content: Mapping[str, Any]) -> bool:
    """Tell whether no audit raised a suspicion."""
    return str(content.get("verdict", HONEST)) == HONEST


def audited_accuracy(content: Mapping[str, Any]) -> Interval | None:
    """Return an audit's robust accuracy after its remedies, or None."""
    values = content.get("headline")
    if not isinstance(values, Mapping):
        return None
    numbers = [values.get(name) for name in ("value", "low", "high", "n")]
    value, low, high, n = (number if isinstance(number, int | float) else math.nan for number in numbers)
    return Interval(float(value), float(low), float(high), int(n)) if value + low + high + n >= 0 else None


def _blocks(content: Mapping[str, Any] | None) -> tuple[Block, ...]:
    if not content:
        return ()
    verdict = f"Verdict: {_text(content.get('verdict')) or 'none'}"
    reasons = tuple(
        f"{_text(cause.get('name'))}: {_text(cause.get('meaning'))} Remedy: {_text(cause.get('remedy'))}"
        for cause in _mappings(content.get("explanations"))
    )
    points = reasons or tuple(_text(cause) for cause in _list(content.get("causes")))
    if content.get("verdict") == UNDECIDED:
        points = (f"The audit is undecided: {MISSING}",)
    blocks: list[Block] = [Paragraph(f"{verdict}.") if no_sign(content) else Alert(verdict, points)]
    headline = audited_accuracy(content)
    if headline is not None:
        remedies = ", ".join(map(_text, _list(content.get("remedies"))))
        sources = f" Gradients were taken from: {remedies}." if remedies else ""
        blocks.append(Paragraph(f"Robust accuracy after the audit: at most {headline}.{sources}"))
    rows = tuple(map(_row, _mappings(content.get("checks"))))
    if rows:
        columns = ("check", "verdict", "measured", "expected", "question", "where", "seconds")
        blocks.append(Table("Evidence", columns, rows))
    blocks += [chart for check in _mappings(content.get("checks")) for chart in _surface(check.get("surface"))]
    warnings = tuple(map(_text, _list(content.get("warnings"))))
    blocks += [Alert("Warnings of the audit", warnings)] if warnings else []
    return tuple(blocks)


def _surface(grid: Any) -> tuple[LineChart, ...]:
    """Return the loss along both axes of a check's surface as a chart; nothing for anything else."""
    try:
        along, caption = tuple(map(float, grid["along"])), str(grid["caption"])
        values = [tuple(map(float, row)) for row in grid["values"]]
        middle = len(along) // 2
        profiles = tuple(row[middle] for row in values), values[middle]
    except (TypeError, KeyError, ValueError, IndexError):
        return ()
    names = "along the gradient", "along a random direction"
    series = tuple(Series(name, along, profile) for name, profile in zip(names, profiles, strict=True))
    text = f"{caption}; where the gradient tells the truth, the loss rises along it, and less in a random direction."
    return (LineChart("Loss around an example", "step in units of eps", "mean loss in nats", series, text),)


def _row(check: Mapping[str, Any]) -> tuple[str, ...]:
    names = ("name", "verdict", "measured", "expected", "question", "where", "seconds")
    return tuple(_text(check.get(name)) for name in names)


def _text(value: Any) -> str:
    """Return a value of JSON as text for a reader."""
    if value is None:
        return ""
    return shown(value) if isinstance(value, float) else str(value)


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in _list(value) if isinstance(entry, Mapping)]
