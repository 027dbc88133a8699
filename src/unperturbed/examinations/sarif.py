"""An audit as SARIF 2.1.0, which code hosts show on their scanning pages."""

import hashlib
from typing import Any

from unperturbed.examinations.causes import BY_NAME, Cause
from unperturbed.examinations.verdict import Audit

UNDECIDED = Cause(
    "undecided",
    "Checks that are needed for a verdict were not run, so nobody knows whether the robust accuracy is real.",
    "Run the same audit again, which keeps the finished checks, or give it a longer --budget.",
)
RULES = {**BY_NAME, UNDECIDED.name: UNDECIDED}
"""By name: the causes, and that of no verdict."""
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif(audit: Audit, path: str) -> dict[str, Any]:
    """Return the audit as a SARIF log: one rule per cause, one result per found cause, at the file of the network.

    https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html. A verdict *suspicious* is a warning, *obfuscated*
    an error, and *undecided* a note of the rule of that name.

    Args:
        audit: the audit.
        path: the relative path of the file that defines the network, such as a run's config.yaml.
    """
    level = "error" if audit.verdict == "obfuscated" else "warning"
    rules = [
        {
            "id": identifier(cause.name),
            "name": "".join(word.capitalize() for word in cause.name.replace("-", " ").split()),
            "shortDescription": {"text": cause.name},
            "fullDescription": {"text": cause.meaning},
            "help": {"text": cause.remedy},
            "defaultConfiguration": {"level": "warning"},
        }
        for cause in RULES.values()
    ]
    results = [_result(audit, name, level, path) for name in audit.causes]
    if audit.verdict == "undecided":
        results = [_result(audit, UNDECIDED.name, "note", path)]
    elif not results and audit.verdict != "no sign of obfuscation":
        results = [_result(audit, "weak suite", level, path)]
    tool = {
        "driver": {
            "name": "unperturbed audit",
            "version": str(audit.environment.get("unperturbed", "")),
            "rules": rules,
        }
    }
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": tool, "results": results, "columnKind": "utf16CodeUnits"}],
    }


def identifier(name: str) -> str:
    """Return the rule's id of a cause."""
    return name.replace(" ", "-")


def _result(audit: Audit, name: str, level: str, path: str) -> dict[str, Any]:
    check = audit.evidence(name)
    measured = f" Measured: {check.measured}." if check is not None else ""
    text = (
        f"Robust accuracy under {audit.threat}: at most {audit.headline}; by the suite {audit.suite} {audit.claimed}. "
        f"{RULES[name].meaning}{measured} {RULES[name].remedy}"
    )
    key = f"{name} {audit.environment.get('network', '')} {audit.threat}"
    return {
        "ruleId": identifier(name),
        "ruleIndex": [identifier(cause) for cause in RULES].index(identifier(name)),
        "level": level,
        "message": {"text": text},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": path}, "region": {"startLine": 1}}}],
        "partialFingerprints": {"causeAndNetwork/v1": hashlib.sha256(key.encode()).hexdigest()},
    }
