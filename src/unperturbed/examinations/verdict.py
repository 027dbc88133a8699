"""The conclusion of an audit: the verdict, its causes, and the robust accuracy after the remedies."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from unperturbed.examinations.audited import CheckResult
from unperturbed.examinations.causes import BY_NAME, CAUSES
from unperturbed.findings import AttackRecord, Examined, Interval, Outcome, Shown
from unperturbed.statistics.intervals import wilson

Conclusion = Literal["no sign of obfuscation", "undecided", "suspicious", "obfuscated"]
NEEDED = (
    *("probabilities", "saturation", "zero_gradient", "repair", "company", "quantisation", "repetition"),
    *("slopes", "stationarity", "one_step", "gradient_or_noise", "two_losses", "radii", "black_box"),
    *("planted", "more_restarts", "more_steps"),
)
"""Checks without which nobody can say that there is no sign of obfuscation. The others add to the evidence."""
MEANINGS: dict[Conclusion, str] = {
    "no sign of obfuscation": "No check found another reason why attacks fail than robustness. The robust accuracy "
    "can be believed as an upper bound: stronger attacks may break a few more examples.",
    "undecided": "Nothing was found, but checks that are needed were not run. The robust accuracy may be too high.",
    "suspicious": "Something was found that often goes with a robust accuracy that is too high.",
    "obfuscated": "The network hides from attacks how its answers can be changed. It is less robust than it seems: "
    "attackers take another way.",
}
"""Of the verdicts, for a reader who has never heard of gradient masking."""
HIDING = ("non-finite", "zero gradient", "shattered", "quantised input")
"""Causes that always mean obfuscation; the others only if attacks did better after the remedy."""
DROP = 0.06
"""Fall of the robust accuracy after the remedies above which the earlier number was wrong. Honest networks on MNIST
fall by up to 0.04 from the suite pgd to AutoAttack."""


@dataclass(frozen=True, repr=False)
class Audit(Shown):
    """The result of an audit.

    Attributes:
        verdict: no sign of obfuscation, undecided (a check that is needed was not run), suspicious, or obfuscated.
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
        seconds: processor time of this run, of all threads.
        environment: versions, seed, hashes.
        costs: the same of its parts; stored results cost nothing.
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
    costs: Mapping[str, float] = field(default_factory=dict)

    def evidence(self, cause: str) -> CheckResult | None:
        """Return the check that found a cause, or None if it follows from the headline."""
        return next((check for check in self.checks if cause in check.causes), None)

    def json(self) -> dict[str, Any]:
        """Return plain values; `causes` are names, and `explanations` have the details."""
        return {
            "verdict": self.verdict,
            "meaning": MEANINGS[self.verdict],
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
            "costs": dict(self.costs),
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
        return "undecided" if blocking(checks) else "no sign of obfuscation"
    hidden = any(cause in HIDING for cause in causes)
    fallen = claimed - headline > DROP and any(cause != "weak suite" for cause in causes)
    return "obfuscated" if hidden or fallen else "suspicious"


def blocking(checks: Sequence[CheckResult]) -> tuple[str, ...]:
    """Return the names of the applicable checks that are needed for a verdict, but were not run."""
    return tuple(check.name for check in checks if check.reason in ("budget", "error") and check.name in NEEDED)


def missing(checks: Sequence[CheckResult]) -> tuple[str, ...]:
    """Return sentences on the checks that were not run although they apply, and how to run them."""
    late = [check.name for check in checks if check.reason == "budget"]
    texts = [
        f"The check {check.name} was not run: {check.measured}."
        for check in checks
        if check.verdict == "not run" and check.reason != "budget"
    ]
    if late:
        texts.append(
            f"The budget did not reach for {len(late)} checks ({', '.join(late)}). Run the same command again: it "
            "keeps the finished checks and runs these. Or give a longer --budget."
        )
    if needed := blocking(checks):
        texts.append(
            f"The verdict 'no sign of obfuscation' needs these checks, which were not run: {', '.join(needed)}."
        )
    return tuple(texts)


def shortened(strength: float) -> tuple[str, ...]:
    """Return a sentence on attacks after the remedies with less than all of their steps."""
    if strength >= 1:
        return ()
    return (
        f"The budget reached for {strength:.0%} of the steps of the attacks after the remedies: the robust accuracy "
        "may be too high. Give a longer --budget.",
    )


def survivors(outcome: Outcome, ids: Sequence[int], broken: Collection[int] = ()) -> Interval:
    """Return the share of these examples that survived an evaluation and are not known as broken from elsewhere.

    An example is unknown if it is in this evaluation, since an earlier one may have lacked its gradients.
    """
    verdicts = dict(zip(outcome.examples["id"], outcome.examples["verdict"], strict=True))
    selected = ["broken" if number in broken else verdicts[number] for number in ids if number in verdicts]
    survived, unknown = selected.count("survived"), selected.count("unknown")
    return wilson(survived, len(selected), survived + unknown)
