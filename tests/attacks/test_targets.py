"""The order of targets against closed forms."""

import pytest
import torch

from support import attack_laws as laws
from support.examples import NORMS
from unperturbed.attacks.multi_targeted import MultiTargeted
from unperturbed.attacks.targets import ByDistance, ByLogit
from unperturbed.maximise.pgd import PGD
from unperturbed.threat import Threat
from unperturbed.types import Norm


@pytest.mark.parametrize("norm", NORMS)
def test_the_nearest_boundary_of_a_linear_network_comes_first(norm: Norm) -> None:
    """Its distance is (f_y - f_k) over the dual norm of the difference of the weights."""
    model = laws.Linear(6, lead=3.0)
    x = laws.inputs(9)
    batch, order = laws.batch_for(model, x), {"Linf": 1, "L2": 2, "L1": torch.inf}[norm]
    logits, expected = model(x), []
    for row, label in enumerate(batch.y.tolist()):
        others = [k for k in range(6) if k != label]
        expected.append(
            sorted(
                others,
                key=lambda k: float(
                    (logits[row, label] - logits[row, k]) / (model.weight[label] - model.weight[k]).norm(p=order)
                ),
            )
        )
    threat = Threat(norm, 0.1)
    assert ByDistance()(model, batch, threat, 16).tolist() == expected
    assert ByDistance()(model, batch, threat, 2).tolist() == expected
    assert ByLogit()(model, batch, threat, 16).tolist() != expected


def test_a_class_that_no_gradient_leads_to_comes_last() -> None:
    model = laws.Linear(4, lead=10.0)
    model.weight[2] = model.weight[0]  # as far from class 0 everywhere, and next to it
    model.bias[2] = model.bias[0] - 1e-3
    x = laws.inputs(5)
    batch = laws.batch_for(model, x, laws.zeros(x))
    threat = Threat("Linf", 0.1)
    assert (ByDistance()(model, batch, threat, 8)[:, -1] == 2).all()
    assert (ByLogit()(model, batch, threat, 8)[:, 0] == 2).all()


def test_classes_that_are_no_candidates_follow_by_logit() -> None:
    model = laws.Linear(6, lead=3.0)
    x = laws.inputs(5)
    batch, threat = laws.batch_for(model, x), Threat("L2", 0.1)
    likely, order = ByLogit()(model, batch, threat, 8), ByDistance(candidates=2)(model, batch, threat, 8)
    assert torch.equal(order[:, 2:], likely[:, 2:])
    assert torch.equal(order[:, :2].sort().values, likely[:, :2].sort().values)


def test_what_the_order_costs_is_counted() -> None:
    """Two forwards and five backwards for each of 4 examples come on top of the climbs."""
    model = laws.Linear(6, lead=1e4)
    x = laws.inputs(4)
    batch, threat = laws.batch_for(model, x, laws.zeros(x)), Threat("Linf", 0.1)
    climbs = {"ascent": PGD(steps=3), "targets": 2}
    plain, ordered = (
        laws.run(MultiTargeted(order=order, **climbs), model, batch, threat)  # type: ignore[arg-type]
        for order in (ByLogit(), ByDistance())
    )
    assert (plain.passes, plain.backwards) == (4 + 4 * 2 * 4, 4 * 2 * 4)
    assert (ordered.passes, ordered.backwards) == (plain.passes + 4, plain.backwards + 4 * 5)


def test_no_examples() -> None:
    model = laws.Linear(6)
    batch = laws.batch_for(model, laws.inputs(0))
    assert ByDistance()(model, batch, Threat("L2", 0.1), 8).shape == (0, 5)
