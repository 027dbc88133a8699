"""The conclusion of an audit: the verdict, its causes, and the robust accuracy after the remedies."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from unperturbed.examinations.audited import CheckResult
from unperturbed.examinations.causes import BY_NAME, CAUSES
from unperturbed.findings import AttackRecord, Examined, Interval, Outcome
from unperturbed.statistics.intervals import wilson

Conclusion = Literal["no sign of obfuscation", "suspicious", "obfuscated"]
HIDING = ("non-finite", "zero gradient", "shattered", "quantised input", "catastrophic overfitting")
"""Causes that always mean obfuscation; the others only if attacks did better after the remedy."""
DROP = 0.06
"""Fall of the robust accuracy after the remedies above which the earlier number was wrong. Honest networks on MNIST
fall by up to 0.04 from the suite pgd to AutoAttack."""


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Attributes:
        verdict: no sign of obfuscation, suspicious, or obfuscated.
        causes: by name, the most important first.
        headline: the robust accuracy after the remedies, an upper bound, with its 95% interval.
        claimed: the robust accuracy of the evaluation in question.
        clean: accuracy without an attack.
        suite: of the evaluation in question.
        threat: the threat set, as text.
        checks: the result of every check.
        remedies: the sources of the gradient of the strongest attacks.
        attacks: the record of each attack after the remedies.
        warnings: limits of the audit.
        seconds: total time.
        environment: versions, seed, hashes.
    """

    verdict: Conclusion
    causes: tuple[str, ...]
    headline: Interval
    claimed: Interval
    clean: Interval
    suite: str
    threat: str
    checks: tuple[CheckResult, ...]
    remedies: tuple[str, ...]
    attacks: tuple[AttackRecord, ...]
    warnings: tuple[str, ...]
    seconds: float
    environment: Mapping[str, Any]

    def evidence(self, cause: str) -> CheckResult | None:
        """Return the check that found a cause, or None if it follows from the headline."""
        return next((check for check in self.checks if cause in check.causes), None)

    def json(self) -> dict[str, Any]:
        """Return plain values; `causes` are names, and `explanations` have the details."""
        return {
            "verdict": self.verdict,
            "causes": list(self.causes),
            "headline": asdict(self.headline),
            "claimed": asdict(self.claimed),
            "clean": asdict(self.clean),
            "suite": self.suite,
            "threat": self.threat,
            "explanations": [asdict(BY_NAME[name]) for name in self.causes],
            "checks": [check.json() for check in self.checks],
            "remedies": list(self.remedies),
            "attacks": [asdict(attack) for attack in self.attacks],
            "warnings": list(self.warnings),
            "seconds": self.seconds,
            "environment": dict(self.environment),
        }

    def examined(self, name: str) -> Examined:
        """Return the checks as findings of a network, for the report page."""
        return Examined(name, 0.0, 0, tuple(check.finding() for check in self.checks))

    def __str__(self) -> str:
        """Return the verdict and the headline."""
        causes = f" ({', '.join(self.causes)})" if self.causes else ""
        bound = f"robust under {self.threat} at most {self.headline}"
        return f"{self.verdict}{causes}; {bound}; {self.suite} said {self.claimed}"


def causes_of(checks: Sequence[CheckResult], claimed: float, headline: float) -> tuple[str, ...]:
    """Return the causes named by the checks, in the order of the table; an unexplained fall means a weak suite."""
    names = {name for check in checks if check.verdict == "fail" for name in check.causes}
    unrelated = names - {"catastrophic overfitting", "weak suite"}
    if unrelated:
        names -= {"catastrophic overfitting", "weak suite"}  # the other causes explain the failure of the attacks
    if not unrelated and claimed - headline > DROP:
        names.add("weak suite")
    return tuple(cause.name for cause in CAUSES if cause.name in names)


def conclude(causes: Sequence[str], checks: Sequence[CheckResult], claimed: float, headline: float) -> Conclusion:
    """Return the verdict."""
    if not causes and not any(check.verdict == "fail" for check in checks):
        return "no sign of obfuscation"
    hidden = any(cause in HIDING for cause in causes)
    fallen = claimed - headline > DROP and any(cause != "weak suite" for cause in causes)
    return "obfuscated" if hidden or fallen else "suspicious"


def survivors(outcome: Outcome, earlier: Outcome | None, ids: Sequence[int]) -> Interval:
    """Return the share of these examples that survived an evaluation, and that no earlier one broke.

    An example is unknown if it is in this evaluation, since an earlier one may have lacked its gradients.
    """
    verdicts = dict(zip(outcome.examples["id"], outcome.examples["verdict"], strict=True))
    if earlier is not None:
        rows = zip(earlier.examples["id"], earlier.examples["verdict"], strict=True)
        verdicts |= {number: verdict for number, verdict in rows if verdict == "broken" and number in verdicts}
    selected = [verdicts[number] for number in ids if number in verdicts]
    survived, unknown = selected.count("survived"), selected.count("unknown")
    return wilson(survived, len(selected), survived + unknown)
