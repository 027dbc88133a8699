"""The suites: as published, and finishing whatever the number of classes and the strength of the network."""

from dataclasses import replace

import pytest
import torch

from support import attack_laws as laws
from support.examples import NORMS
from support.shares import first
from unperturbed.attacks.base import Attack, likely_targets
from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.attacks.multi_targeted import MultiTargeted
from unperturbed.attacks.square import Square
from unperturbed.evaluation.accuracy import SUITES, evaluate
from unperturbed.losses import cross_entropy, dlr_or_margin, targeted_dlr_or_margin
from unperturbed.maximise.apgd import APGD
from unperturbed.networks.precision import InPrecision
from unperturbed.suites.autoattack import PLUS, RAND, STANDARD
from unperturbed.threat import Threat
from unperturbed.types import Norm


def quick(suite: Suite) -> Suite:
    """Return the suite in little."""

    def small(attack: Attack) -> Attack:
        if isinstance(attack, GradientAttack | MultiTargeted):
            return replace(attack, ascent=replace(attack.ascent, steps=6))  # type: ignore[type-var]
        return replace(attack, steps=4) if isinstance(attack, FAB) else replace(attack, queries=12)  # type: ignore[type-var]

    return replace(suite, attacks=tuple(map(small, suite.attacks)), l1=tuple(map(small, suite.l1)))


def test_the_suites_are_as_published() -> None:
    ce, t, fab, square = STANDARD.attacks
    assert ce == GradientAttack("APGD-CE", cross_entropy, APGD(steps=100, rho=0.75), restarts=1)
    assert t == MultiTargeted("APGD-T", targeted_dlr_or_margin, APGD(steps=100), targets=9, restarts=1)
    assert fab == FAB("FAB-T", targets=9, restarts=1, steps=100, most=0.1, overshoot=1.05, back=0.9)
    assert square == Square("Square", queries=5000, share=0.8)
    assert STANDARD.l1[0] == replace(ce, ascent=APGD(wide=True), restarts=5)
    assert STANDARD.l1[1] == replace(t, ascent=APGD(wide=True), targets=5)
    assert STANDARD.l1[2:] == (fab, square)

    assert [attack.label for attack in PLUS.attacks] == ["APGD-CE", "APGD-DLR", "FAB", "Square", "APGD-T", "FAB-T"]
    assert [attack.restarts for attack in PLUS.attacks] == [5, 5, 5, 1, 1, 1]
    assert PLUS.attacks[1] == GradientAttack("APGD-DLR", dlr_or_margin, APGD(), restarts=5)
    assert PLUS.attacks[2] == FAB("FAB", restarts=5) and PLUS.attacks[3:] == (square, t, fab)
    assert RAND.attacks == (replace(ce, draws=20), replace(PLUS.attacks[1], restarts=1, draws=20))
    assert [SUITES[name] for name in ("standard", "plus", "rand")] == [STANDARD, PLUS, RAND]


@pytest.mark.slow
@pytest.mark.parametrize("classes", first(2, [3, 10, 2, 4, 8, 100]))
@pytest.mark.parametrize("lead", [0.0, 500.0], ids=["broken", "robust"])
def test_any_number_of_classes_finishes(classes: int, lead: float) -> None:
    """And the result says where the margin stands in for DLR."""
    model = laws.Linear(classes, lead=lead).float()
    x = laws.inputs(5).float()
    y = model(x).argmax(1)
    for suite in (STANDARD, PLUS) if classes <= 10 else (STANDARD,):
        outcome = evaluate(model, (x, y), Threat("Linf", 0.2), quick(suite))
        assert outcome.counts["survived" if lead else "broken"] == 5 and outcome.unverified == 0
        assert ("margin in place of DLR" in outcome.note) == (classes < 4)
        assert [attack.name for attack in outcome.attacks] == [attack.label for attack in suite.attacks]
        if lead:
            targets = min(9, classes - 1)
            by_name = {attack.name: attack for attack in outcome.attacks}
            assert by_name["APGD-T"].backwards == 5 * targets * 7
            assert (by_name["APGD-T"].forwards, by_name["FAB-T"].forwards) == (5 * targets * 7 + 5, 5 * targets * 8 + 5)
            assert by_name["FAB-T"].backwards == 5 * targets * 4
            assert (by_name["Square"].forwards, by_name["Square"].backwards) == (60, 0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("suite", [STANDARD, PLUS, RAND], ids=lambda suite: suite.name)
def test_each_suite_runs_in_each_norm(suite: Suite, norm: Norm) -> None:
    model = laws.Wavy(classes=4, lead=2.0).float()
    x = laws.inputs(12).float()
    outcome = evaluate(model, (x, model.eval()(x).argmax(1)), Threat(norm, laws.EPS[norm] / 2), quick(suite))
    assert outcome.counts["unknown"] == outcome.unverified == 0 and outcome.counts["broken"] > 0
    assert "upper bound" in outcome.note and outcome.suite == suite.name


def test_a_single_start_is_not_a_last_restart() -> None:
    """Only where an attack restarts does a break by its last climb mean that more would break more."""
    model = laws.Linear(3).float()
    x = laws.inputs(5).float()
    outcome = evaluate(model, (x, model(x).argmax(1)), Threat("Linf", 0.2), quick(STANDARD))
    assert outcome.attacks[0].broken == 5 and outcome.warnings == ()


def test_targets_are_the_likeliest_other_classes() -> None:
    logits = torch.tensor([[1.0, 5.0, 3.0, 2.0], [9.0, 1.0, 1.0, 4.0]])
    model = laws.Linear(4)
    model.forward = lambda x: logits[: len(x)].double()  # type: ignore[method-assign]
    batch = laws.batch_for(model, laws.inputs(2), torch.tensor([1, 3]))
    assert likely_targets(model, batch, None, 2).tolist() == [[2, 3, 0], [0, 1, 2]]
    assert likely_targets(model, batch, 2, 2).tolist() == [[2, 3], [0, 1]]
    assert likely_targets(model, batch, 9, 2).shape == (2, 3)


def test_targets_are_those_of_the_network_in_its_own_precision() -> None:
    """Three classes whose biases are one number in bfloat16."""
    inner = torch.nn.Linear(6, 4)
    with torch.no_grad():
        inner.weight.zero_()
        inner.bias.copy_(torch.tensor([2.0, 1.0, 1.001, 1.002]))
    rough, x = InPrecision(inner, torch.bfloat16), torch.rand(3, 6)
    assert torch.equal(rough(x)[:, 1], rough(x)[:, 3]), "the test needs a rounding that ties"
    batch = laws.batch_for(inner, x, torch.zeros(3, dtype=torch.int64))
    assert likely_targets(rough, batch, 2, 2).tolist() == [[3, 2]] * 3
