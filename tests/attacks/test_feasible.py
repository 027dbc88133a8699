"""Every point at which an attack evaluates the network lies within its bounds."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from support import attack_laws as laws
from support.examples import NORMS
from unperturbed.attacks.base import Attack
from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import GradientAttack
from unperturbed.attacks.margin_decomposition import MarginDecomposition, unit_probabilities
from unperturbed.attacks.multi_targeted import MultiTargeted
from unperturbed.attacks.square import LocalSearch, Square
from unperturbed.attacks.targets import ByDistance
from unperturbed.losses import cross_entropy, dlr_or_margin, targeted_dlr_or_margin
from unperturbed.maximise.apgd import APGD
from unperturbed.maximise.cosine import CosinePGD
from unperturbed.threat import Threat
from unperturbed.types import Norm

ATTACKS: dict[str, tuple[Attack, float]] = {  # and in how many eps its points may lie
    "APGD-CE": (GradientAttack("APGD-CE", cross_entropy, APGD(steps=12), restarts=2), 1.0),
    "APGD-DLR": (GradientAttack("APGD-DLR", dlr_or_margin, APGD(steps=12)), 1.0),
    "APGD-T": (MultiTargeted("APGD-T", targeted_dlr_or_margin, APGD(steps=6), targets=9), 1.0),
    "APGD, wide": (GradientAttack("APGD", cross_entropy, APGD(steps=10, wide=True)), 3.0),
    "MultiTargeted": (MultiTargeted(ascent=APGD(steps=6)), 1.0),
    "MD": (MarginDecomposition(ascent=CosinePGD(steps=8)), 1.0),
    "PMA": (MarginDecomposition("PMA", unit_probabilities, CosinePGD(steps=8)), 1.0),
    "APGD-T by distance": (MultiTargeted(ascent=APGD(steps=6), targets=2, order=ByDistance()), 1.0),
    "Square": (Square(queries=30), 1.0),
    "Local search": (LocalSearch(queries=30), 1.0),
    "FAB": (FAB(steps=6, restarts=2), torch.inf),
    "FAB-T": (FAB(steps=4, targets=9), torch.inf),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
@given(
    norm=some.sampled_from(NORMS),
    shape=some.sampled_from([(5,), (1, 4, 4), (3, 3, 5)]),
    size=some.floats(1e-3, 2.0),
    low=some.floats(-3.0, 0.5),
    width=some.floats(0.01, 4.0),
    lead=some.sampled_from([0.5, 30.0]),
    seed=some.integers(0, 2**31),
)
@settings(max_examples=15, deadline=None)
def test_every_point_lies_in_the_threat_set(
    name: str, norm: Norm, shape: tuple[int, ...], size: float, low: float, width: float, lead: float, seed: int
) -> None:
    """Box included, in float32; FAB looks beyond the radius, but never outside of the box. What is returned is inside.

    `size` is the radius in units of one that the box just holds.
    """
    attack, reach = ATTACKS[name]
    features = torch.Size(shape).numel()
    whole: dict[Norm, float] = {"Linf": 1.0, "L2": features**0.5, "L1": float(features)}
    threat = Threat(norm, size * width / 2 * whole[norm], (low, low + width))
    model = laws.Wavy(classes=4, lead=lead, shape=shape).float().eval()
    x = threat.boxed(low + width * laws.inputs(1, shape, seed % 1000).float())
    with laws.seen_by(model) as seen:
        found = laws.run(attack, model, laws.batch_for(model, x, laws.zeros(x)), threat, 8, seed)
    points = torch.cat([z for z, _ in seen])
    assert len(points) >= 8 and threat.contains(x, found.z).all()
    around = x.expand_as(points)
    low_at, high_at = threat.limits(points)
    assert ((points >= low_at) & (points <= high_at)).all()
    if reach < torch.inf:
        assert replace(threat, eps=reach * threat.eps).contains(around, points).all()
