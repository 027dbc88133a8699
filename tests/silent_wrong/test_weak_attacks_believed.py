"""How evaluations elsewhere have gone wrong: random networks (S6, S7), saturated logits (S8), an AutoAttack that is
none (S9), going on with something else (S14), and faults that attacks once had (S16)."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from support import attack_laws as laws
from support.toys import QUICK, Function, linear, uniform
from unperturbed.attacks.base import Attack
from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.attacks.multi_targeted import MultiTargeted
from unperturbed.attacks.square import Square
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import SUITES, evaluate
from unperturbed.losses import cross_entropy, dlr_or_margin, margin, targeted_dlr_or_margin
from unperturbed.maximise.apgd import APGD
from unperturbed.maximise.pgd import PGD
from unperturbed.suites.autoattack import STANDARD
from unperturbed.suites.pgd import PGD_SUITE
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Logits


def right_nine_times_in_ten(x: Inputs) -> Logits:
    """Class 0 with probability 0.9, whatever the input; the logits' gradient is not 0."""
    lead = torch.where(torch.rand(len(x)) < 0.9, 1.0, -1.0) + 1e-3 * x.sum(1)
    return torch.stack([lead, -lead], dim=1)


@pytest.mark.slow
def test_an_unlucky_draw_does_not_drop_an_example_s6() -> None:
    """One draw after the other, each dropping what it gets wrong, would end at a power of 0.9."""
    attacks = tuple(GradientAttack(name, cross_entropy, APGD(steps=4), draws=2) for name in ("one", "two", "three"))
    data = uniform(200, 4), torch.zeros(200, dtype=torch.int64)
    outcome = evaluate(Function(right_nine_times_in_ten), data, Threat("Linf", 0.01), Suite("means", attacks, ""))
    assert abs(outcome.clean_accuracy.value - 0.9) < 0.01 and abs(outcome.robust_accuracy.value - 0.9) < 0.01


def test_a_network_that_is_random_on_the_last_example_alone_is_seen_s7(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unperturbed.evaluation.measurement.BLOCK", 16)
    x = torch.linspace(0.1, 0.8, 50)[:, None].repeat(1, 3)

    def logits(z: Inputs) -> Logits:
        lead = 2 + z[:, 0] + torch.where(z[:, 0] > 0.79, torch.randn(len(z)), 0.0)
        return torch.stack([lead, -lead], dim=1)

    outcome = evaluate(Function(logits), (x, torch.zeros(50, dtype=torch.int64)), Threat("Linf", 1e-3), QUICK)
    assert any("draws random numbers" in text for text in outcome.warnings)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 1e3, 1e5])
def test_saturated_logits_hide_nothing_s8(scale: float) -> None:
    """The cross-entropy's gradient vanishes in float32; the suites' other losses see on."""
    model, x = linear(20, 3, seed=4), uniform(80, 20, seed=1)
    y = model(x).argmax(1)
    threat = Threat("Linf", 0.05)
    pgd = replace(PGD_SUITE, attacks=tuple(replace(attack, restarts=2) for attack in PGD_SUITE.attacks))
    truth = evaluate(model, (x, y), threat, pgd)
    assert 10 < truth.counts["survived"] < 70
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(scale)
    short = tuple(
        GradientAttack("APGD-CE", cross_entropy, APGD(steps=20)) if attack.label == "APGD-CE" else attack
        for attack in STANDARD.attacks[:2]
    )
    for suite in (pgd, Suite("short", short, "")):
        assert evaluate(model, (x, y), threat, suite).examples["verdict"] == truth.examples["verdict"]


def test_only_autoattack_is_called_so_s9() -> None:
    """Its four attacks, in its order, with its numbers; and what is not it says so with its result."""
    apgd, targeted, fab, square = STANDARD.attacks
    assert apgd == GradientAttack("APGD-CE", cross_entropy, APGD(steps=100, rho=0.75), restarts=1)
    assert targeted == MultiTargeted("APGD-T", targeted_dlr_or_margin, APGD(steps=100), targets=9, restarts=1)
    assert fab == FAB("FAB-T", targets=9, restarts=1, steps=100, most=0.1, overshoot=1.05, back=0.9)
    assert square == Square(queries=5000, share=0.8)
    assert "AutoAttack" in STANDARD.note and "no AutoAttack" in PGD_SUITE.note
    assert {name for name, suite in SUITES.items() if suite.note.startswith("AutoAttack")} == {
        "standard",
        "plus",
        "rand",
    }


@pytest.mark.slow
def test_what_goes_on_is_the_same_evaluation_s14(tmp_path: Path) -> None:
    """Of another model or radius there is nothing to go on with."""
    model, x = linear(6, 3), uniform(30, 6)
    data = x, model(x).argmax(1)
    first = evaluate(model, data, Threat("Linf", 0.05), QUICK, out=tmp_path)
    assert evaluate(model, data, Threat("Linf", 0.05), QUICK, out=tmp_path).examples == first.examples
    for other, eps in ((linear(6, 3, seed=1), 0.05), (model, 0.04)):
        with pytest.raises(InputError, match="holds another evaluation"):
            evaluate(other, data, Threat("Linf", eps), QUICK, out=tmp_path)


ATTACKS: dict[str, GradientAttack | MultiTargeted] = {
    "cross-entropy": GradientAttack("CE", cross_entropy, APGD(steps=60)),
    "DLR": GradientAttack("DLR", dlr_or_margin, APGD(steps=60)),
    "targeted DLR": MultiTargeted("T", targeted_dlr_or_margin, APGD(steps=60)),
    "targeted margin": MultiTargeted("T", ascent=APGD(steps=60)),
    "PGD": GradientAttack("PGD", margin, PGD(steps=100, step_size=0.05), restarts=3),
}
SHORT: dict[str, Attack] = {
    name: replace(each, ascent=replace(each.ascent, steps=20)) for name, each in ATTACKS.items()
}
SHORT |= {"FAB": FAB(steps=20), "Square": Square(queries=100)}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_directions_losses_and_criteria_are_right_in_every_norm_s16(name: str) -> None:
    """A wrong L1 direction, swapped arguments of a loss, or a wrong criterion for targets would fall short."""
    laws.breaks_what_can_be_broken(ATTACKS[name], slack=1.05, classes=4 if name.startswith("targeted") else 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_the_best_point_is_returned_and_not_the_last_s16(name: str) -> None:
    laws.keeps_the_best_of_all_it_saw(SHORT[name])


def test_what_is_misclassified_already_is_left_as_it_is_s16() -> None:
    model, x = linear(6, 3), uniform(40, 6)
    y = (model(x).argmax(1) + (torch.arange(40) % 2)) % 3
    outcome = evaluate(model, (x, y), Threat("Linf", 0.1), QUICK)
    wrong = [row for row, verdict in enumerate(outcome.examples["verdict"]) if verdict == "misclassified"]
    assert wrong == list(range(1, 40, 2))
    assert all(outcome.examples["distance"][row] == 0 for row in wrong)
