"""An audit that left out a needed check decides nothing, and says how to run it."""

import pytest

from unperturbed.examinations.audited import CheckResult
from unperturbed.examinations.audited import Result as Verdict
from unperturbed.examinations.budget import checks_in
from unperturbed.examinations.verdict import MEANINGS, NEEDED, blocking, conclude, missing, shortened


def passed(name: str) -> CheckResult:
    return CheckResult(name, "Is it?", "pass", "yes", "yes")


def skipped(name: str, reason: str) -> CheckResult:
    verdict: Verdict = "not run"
    return CheckResult(name, "Is it?", verdict, "it takes about 9 s", "", reason=reason)  # type: ignore[arg-type]


ALL = [passed(check.__name__) for check, _ in checks_in()]


def without(name: str, reason: str) -> list[CheckResult]:
    return [skipped(name, reason) if check.name == name else check for check in ALL]


def test_every_needed_check_exists_and_all_passed_is_no_sign() -> None:
    assert {*NEEDED} < {check.name for check in ALL}, "and some are evidence only"
    assert conclude((), ALL, 0.7, 0.7) == "no sign of obfuscation" and missing(ALL) == ()


@pytest.mark.parametrize("name", NEEDED)
def test_a_needed_check_without_a_result_blocks_the_verdict(name: str) -> None:
    for reason in ("budget", "error"):
        checks = without(name, reason)
        assert conclude((), checks, 0.7, 0.7) == "undecided" and blocking(checks) == (name,)
        assert any(name in text for text in missing(checks))
    assert "Run the same command again" in missing(without(name, "budget"))[0]
    assert conclude((), without(name, "not applicable"), 0.7, 0.7) == "no sign of obfuscation"


def test_another_check_without_a_result_does_not() -> None:
    optional = next(check.name for check in ALL if check.name not in NEEDED)
    checks = without(optional, "budget")
    assert conclude((), checks, 0.7, 0.7) == "no sign of obfuscation" and optional in missing(checks)[0]


def test_what_was_found_counts_in_any_case() -> None:
    checks = without("more_steps", "budget")
    assert conclude(("zero gradient",), checks, 0.7, 0.7) == "obfuscated"
    assert conclude(("weak suite",), checks, 0.7, 0.6) == "suspicious"
    assert {*MEANINGS} == {"no sign of obfuscation", "undecided", "suspicious", "obfuscated"}


def test_shortened_attacks_are_told() -> None:
    assert shortened(1.0) == ()
    (text,) = shortened(0.25)
    assert "25% of the steps" in text and "may be too high" in text
