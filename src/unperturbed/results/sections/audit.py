"""The audit: whether the robustness is real, with its evidence."""

from collections.abc import Mapping, Sequence
from typing import Any

from unperturbed.reports.document import Alert, Block, Paragraph, Part, Section, Table, section, shown
from unperturbed.results.stored import StoredRun

HONEST = "no sign of obfuscation"


def audit(runs: Sequence[StoredRun]) -> Section | None:
    """Return the section, with a part for each audited run."""
    lead = (
        "An audit looks for signs that a network only breaks the attack and is not robust: hidden or useless gradients."
    )
    return section("Audit", [Part(run.name if len(runs) > 1 else "", _blocks(run.audit)) for run in runs], lead)


def no_sign(content: Mapping[str, Any]) -> bool:
    """Return whether an audit raised no suspicion, or there is none."""
    return str(content.get("verdict", HONEST)) == HONEST


def _blocks(content: Mapping[str, Any] | None) -> tuple[Block, ...]:
    if not content:
        return ()
    causes = tuple(_text(cause) for cause in _list(content.get("causes")))
    verdict = f"Verdict: {_text(content.get('verdict')) or 'none'}"
    blocks: list[Block] = [Alert(verdict, causes) if not no_sign(content) else Paragraph(f"{verdict}.")]
    blocks += [Paragraph(_headline(content["headline"]))] if content.get("headline") is not None else []
    rows = tuple(_row(name, finding) for name, finding in _findings(content))
    if rows:
        columns = ("check", "verdict", "measured", "expected", "what it means", "remedy", "cost")
        blocks.append(Table("Evidence", columns, rows))
    return tuple(blocks)


def _headline(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"Robust accuracy after the audit: {value:.1%} at most."
    return f"Headline: {_text(value)}"


def _findings(content: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the findings by name, whether they are stored as a list or by name."""
    found = content.get("findings", content.get("checks"))
    if isinstance(found, Mapping):
        return [(str(name), finding) for name, finding in found.items() if isinstance(finding, Mapping)]
    return [(_name(finding), finding) for finding in _list(found) if isinstance(finding, Mapping)]


def _name(finding: Mapping[str, Any]) -> str:
    return next((_text(finding[key]) for key in ("name", "title", "check") if finding.get(key)), "")


def _row(name: str, finding: Mapping[str, Any]) -> tuple[str, ...]:
    sentence = finding.get("sentence", finding.get("question"))
    cost = finding.get("cost", finding.get("seconds"))
    values = (finding.get("verdict"), finding.get("measured"), finding.get("expected"), sentence, finding.get("remedy"))
    return (name, *map(_text, values), f"{cost:.1f} s" if isinstance(cost, int | float) else _text(cost))


def _text(value: Any) -> str:
    """Return a value of JSON as a reader takes it."""
    if value is None:
        return ""
    if isinstance(value, float):
        return shown(value)
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_text(part)}" for key, part in value.items())
    return ", ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
