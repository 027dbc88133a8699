"""Planted defences: the audit names the cause, and the robust accuracy after the remedy is the network's own."""

from pathlib import Path

import pytest
import torch

from support.audited import under_audit
from support.planted import EPS, Averaged, Small, examples, other_function, robust, same_function
from support.shares import in_ci
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.examinations import audit as audit_module
from unperturbed.examinations.audit import audit
from unperturbed.examinations.audits.zero_gradient import zero_gradient
from unperturbed.examinations.budget import checks_in
from unperturbed.examinations.causes import BY_NAME
from unperturbed.examinations.verdict import Audit
from unperturbed.losses import cross_entropy, margin
from unperturbed.maximise.pgd import PGD
from unperturbed.threat import Threat

SHORT = Suite(
    "short",
    (
        GradientAttack("PGD-CE", cross_entropy, PGD(steps=10), restarts=2),
        GradientAttack("PGD-margin", margin, PGD(steps=10), restarts=2),
    ),
    "a test",
)
THREAT = Threat("Linf", EPS)
N = 100


def audited(model: object, n: int = N, **options: object) -> Audit:
    return audit(model, examples(n), THREAT, SHORT, examples=n, budget=1000, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def net() -> Small:
    return robust()


@pytest.mark.long
@pytest.mark.slow
def test_an_honest_network_shows_no_sign_of_obfuscation(net: Small, tmp_path: Path) -> None:
    found = audited(net, 24, out=tmp_path / "audit")
    assert found.verdict == "no sign of obfuscation" and found.causes == ()
    assert {check.verdict for check in found.checks} == {"pass"}, [c for c in found.checks if c.verdict != "pass"]
    assert found.json()["meaning"].startswith("No check found")
    assert 0.3 < found.headline.value <= found.claimed.value and found.headline.n == 24
    again = audited(net, 24, out=tmp_path / "audit")
    assert again.checks == found.checks, "with their seconds: nothing is measured again"
    assert again.headline == found.headline


@pytest.mark.long
@pytest.mark.slow
def test_a_network_with_state_is_audited_in_the_state_in_which_it_was_given(
    net: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Averaged(net)
    shifts = list[torch.Tensor | None]()

    def begun(*_: object) -> None:
        shifts.append(model.average)
        raise KeyboardInterrupt

    monkeypatch.setattr(audit_module, "_audited", begun)
    with pytest.raises(KeyboardInterrupt):
        audited(model, 24)
    with torch.no_grad():
        model(examples(1)[0])
    given = model.average
    with pytest.raises(KeyboardInterrupt):
        audited(model, 24)
    assert shifts[0] is None and given is not None and torch.equal(shifts[1], given)
    assert model.average is not None and torch.equal(model.average, given), "and left so"


@pytest.mark.slow
def test_a_gradient_of_zeros_is_named(net: Small) -> None:
    found = zero_gradient(under_audit(same_function(net)["zero gradient"][0]))
    assert found.verdict == "fail" and "zero gradient" in found.causes, found.measured


@pytest.mark.slow
@pytest.mark.long
def test_a_planted_defence_is_named_and_undone(net: Small) -> None:
    model, cause = same_function(net)["zero gradient"]
    found, truth = audited(model, 24), evaluate(net, examples(24), THREAT, SHORT).robust_accuracy
    assert cause in found.causes and found.verdict == "obfuscated" and found.claimed.value > truth.value + 0.2
    assert abs(found.headline.value - truth.value) <= 0.05, "one example of 24"
    check = found.evidence(cause)
    assert check is not None and check.verdict == "fail" and any(character.isdigit() for character in check.measured)


@pytest.fixture(scope="module")
def truth(net: Small) -> float:
    return evaluate(net, examples(N), THREAT, "standard").robust_accuracy.value


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", in_ci(1, same_function(Small())))
def test_the_headline_of_a_network_with_the_same_answers_is_the_undefended_ones(
    net: Small, truth: float, name: str
) -> None:
    model, cause = same_function(net)[name]
    found = audited(model)
    assert cause in found.causes and abs(found.headline.value - truth) <= 0.02, str(found)
    assert found.verdict in ("suspicious", "obfuscated")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", in_ci(1, other_function(Small())))
def test_the_cause_of_a_network_with_other_answers_is_named(net: Small, name: str) -> None:
    model, cause = other_function(net)[name]
    assert cause in audited(model, 50).causes


def test_every_check_is_found_by_its_file_and_says_what_it_asks() -> None:
    checks = checks_in()
    assert len(checks) >= 9 and [cost for _, cost in checks] == sorted(cost for _, cost in checks)
    assert all((check.__doc__ or "").strip() for check, _ in checks)
    assert len(BY_NAME) == 12
