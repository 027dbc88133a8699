"""FAB: planes, distances, and the minimum-norm mode."""

import pytest
import torch

from support import attack_laws as laws
from support.examples import NORMS
from support.shares import first
from unperturbed.attacks.fab import FAB
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Norm


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("attack", "classes"), first(1, [(FAB(steps=40), 4), (FAB(steps=40), 2), (FAB(targets=9, steps=40), 4)])
)
def test_the_nearest_break_of_a_linear_network_is_found_within_a_hundredth(
    attack: FAB, classes: int, norm: Norm
) -> None:
    """With a third of the pixels at their bounds, and whatever the radius."""
    model = laws.Linear(classes, seed=4)
    batch = laws.batch_for(model, laws.inputs(5))
    for eps in (0.01, 10.0):
        nearest = attack.nearest(model, batch, Threat(norm, eps), Noise.of(0, batch.ids), 8)
        exact = torch.tensor(
            [
                laws.distance(model, laws.Batch(batch.x[[i]], batch.y[[i]], batch.ids[[i]]), norm)
                for i in range(len(batch.x))
            ]
        )
        assert ((nearest.distance / exact > 0.9999) & (nearest.distance / exact < 1.01)).all()
        assert (model(nearest.z).argmax(1) != batch.y).all() and nearest.z.min() >= 0 and nearest.z.max() <= 1
        torch.testing.assert_close(Threat(norm, 1.0).distance(batch.x, nearest.z), nearest.distance)
        if eps == 10.0 and norm != "L1":
            assert (nearest.found.margin > 0).all()


def test_where_nothing_breaks_the_distance_is_infinite() -> None:
    model = laws.Linear(3, lead=1e4)
    x = laws.inputs(3)
    batch = laws.batch_for(model, x, laws.zeros(x))
    nearest = FAB(steps=4).nearest(model, batch, Threat("L2", 1.0), Noise.of(0, batch.ids), 4)
    assert nearest.distance.isinf().all() and torch.equal(nearest.z, x) and nearest.found.finite.all()


def test_the_fixed_radius_stops_at_the_first_break_inside() -> None:
    model = laws.Linear(3, seed=2)
    batch = laws.batch_for(model, laws.inputs())
    quick, whole = FAB(steps=30), FAB(steps=30)
    threat, noise = Threat("Linf", 0.5), Noise.of(0, batch.ids)
    found, nearest = quick(model, batch, threat, noise, 8), whole.nearest(model, batch, threat, noise, 8)
    assert (found.margin > 0).all() and found.passes < nearest.found.passes / 5
    assert (nearest.distance <= threat.distance(batch.x, found.z) + 1e-12).all()
