"""Every attack under every law of `attack_laws`."""

import inspect
from functools import partial

import pytest

from support import attack_laws as laws
from support.shares import first
from unperturbed.attacks.base import Attack
from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import GradientAttack
from unperturbed.attacks.multi_targeted import MultiTargeted
from unperturbed.attacks.square import Square
from unperturbed.losses import cross_entropy, dlr_or_margin, margin, targeted_dlr_or_margin
from unperturbed.maximise.apgd import APGD
from unperturbed.maximise.pgd import PGD

ATTACKS: dict[str, Attack] = {
    "PGD": GradientAttack("PGD", margin, PGD(steps=8), restarts=2),
    "APGD-CE": GradientAttack("APGD-CE", cross_entropy, APGD(steps=10), restarts=2),
    "APGD-DLR": GradientAttack("APGD-DLR", dlr_or_margin, APGD(steps=10), restarts=2),
    "APGD-wide": GradientAttack("APGD", margin, APGD(steps=10, wide=True), restarts=2),
    "APGD-T": MultiTargeted("APGD-T", targeted_dlr_or_margin, APGD(steps=8), targets=9),
    "MultiTargeted": MultiTargeted(ascent=PGD(steps=8), restarts=2),
    "EOT": GradientAttack("PGD", cross_entropy, PGD(steps=8), restarts=2, draws=3),
    "EOT-T": MultiTargeted(ascent=PGD(steps=6), draws=2),
    "FAB": FAB(steps=6, restarts=2),
    "FAB-T": FAB("FAB-T", targets=9, steps=6, restarts=2),
    "Square": Square(queries=30),
}
EXACT: dict[str, tuple[Attack, float, int]] = {
    "PGD": (GradientAttack("PGD", margin, PGD(steps=100)), 0.98, 2),
    "APGD": (GradientAttack("APGD", margin, APGD()), 0.999, 2),
    "APGD-wide": (GradientAttack("APGD", margin, APGD(wide=True)), 0.999, 2),
    "APGD-T": (MultiTargeted("APGD-T", targeted_dlr_or_margin, APGD(), targets=9), 0.999, 2),
    "MultiTargeted": (MultiTargeted(ascent=APGD()), 0.999, 4),
    "Square": (Square(queries=500), 0.5, 2),
}
BREAKS: dict[str, tuple[Attack, float, int]] = {
    "APGD-CE": (GradientAttack("APGD-CE", cross_entropy, APGD()), 1.02, 2),
    "FAB": (FAB(steps=50), 1.01, 3),
    "FAB-T": (FAB(targets=9, steps=50), 1.01, 3),
}
ALWAYS = (
    laws.stays_inside,
    laws.keeps_the_best_of_all_it_saw,
    laws.leaves_the_network_alone,
    laws.counts_its_passes,
    laws.does_not_depend_on_order_or_company,
    laws.leaves_what_is_broken,
    laws.begins_each_climb_at_random,
)


@pytest.mark.parametrize("name", first(4, ATTACKS))
@pytest.mark.parametrize("check", ALWAYS, ids=lambda check: check.__name__)
def test_every_attack_obeys(check, name: str) -> None:  # type: ignore[no-untyped-def]
    check(ATTACKS[name])


@pytest.mark.parametrize("name", ATTACKS)
def test_the_unknown_is_flagged(name: str) -> None:
    laws.never_calls_the_unknown_robust_or_broken(ATTACKS[name], gradient=name != "Square")


@pytest.mark.parametrize("name", ATTACKS)
def test_all_restarts_are_tried(name: str) -> None:
    """FAB looks at most points twice, to see where it is and for the gradient; Square's patches may coincide.

    A mean over draws looks at each point as often as there are draws.
    """
    least = {"FAB": 0.5, "FAB-T": 0.5, "Square": 0.8, "EOT": 0.3, "EOT-T": 0.45}
    laws.tries_every_restart(ATTACKS[name], least.get(name, 0.9))


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", first(3, EXACT))
def test_linear_networks_are_attacked_to_the_end(name: str) -> None:
    laws.reaches_the_worst_margin(*EXACT[name])


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", BREAKS)
def test_linear_networks_break_where_they_can(name: str) -> None:
    laws.breaks_what_can_be_broken(*BREAKS[name])


def test_every_law_is_used() -> None:
    used = {*ALWAYS, laws.tries_every_restart, laws.never_calls_the_unknown_robust_or_broken}
    assert {*laws.LAWS} - used == {laws.reaches_the_worst_margin, laws.breaks_what_can_be_broken}
    assert all("attack" in inspect.signature(partial(check)).parameters for check in laws.LAWS)
