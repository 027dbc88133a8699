"""Which term of the margin is climbed when, and that no scale of the logits matters."""

import pytest
import torch

from support import attack_laws as laws
from support.examples import NORMS
from unperturbed.attacks.margin_decomposition import MarginDecomposition, _Decomposed, same_logits, unit_probabilities
from unperturbed.maximise.cosine import CosinePGD
from unperturbed.threat import Threat
from unperturbed.types import Norm


def test_the_phases_are_the_papers() -> None:
    """One move towards the label, half of the moves on one term, the others on the margin (10 moves)."""
    model = laws.Linear(4)
    x = laws.inputs(8)
    batch = laws.batch_for(model, x)
    climb = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    moves = torch.tensor([0, 1, 4, 5, 0, 1, 4, 5])
    value, rank = _Decomposed(model, batch.y, same_logits, 10, climb, moves)(x, torch.arange(8))
    logits = model(x)
    label = logits.gather(1, batch.y[:, None])[:, 0]
    rival = logits.scatter(1, batch.y[:, None], -torch.inf).amax(1)
    expected = [label[0], -label[1], -label[2], (rival - label)[3], label[4], rival[5], rival[6], (rival - label)[7]]
    torch.testing.assert_close(value, torch.stack(expected))
    torch.testing.assert_close(rank, rival - label)


@pytest.mark.parametrize("scale", [1e-4, 1e3])
@pytest.mark.parametrize("outputs", [same_logits, unit_probabilities])
def test_no_scale_of_the_logits_changes_the_search(scale: float, outputs: object) -> None:
    model = laws.Wavy(lead=2.0)
    x = laws.inputs()
    batch, threat = laws.batch_for(model, x, laws.zeros(x)), Threat("Linf", 0.05)
    attack = MarginDecomposition(outputs=outputs, ascent=CosinePGD(steps=12))  # type: ignore[arg-type]
    plain = laws.run(attack, model, batch, threat)
    model.last.mul_(scale)
    model.lead *= scale
    scaled = laws.run(attack, model, batch, threat)
    torch.testing.assert_close(scaled.z, plain.z, rtol=0, atol=1e-9)
    torch.testing.assert_close(scaled.margin, scale * plain.margin, rtol=1e-6, atol=scale * 1e-9)


def test_probabilities_do_not_saturate() -> None:
    logits = 1e6 * torch.randn(5, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits.requires_grad_()
    probabilities = unit_probabilities(logits)
    assert float(probabilities.detach().amax()) < 1 - 1e-4
    torch.testing.assert_close(probabilities.sum(1).detach(), torch.ones(5, dtype=torch.float64))
    (slope,) = torch.autograd.grad(probabilities[:, 0].sum(), logits)
    assert (slope.abs().sum(1) > 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_the_worst_point_of_a_linear_network_is_reached(norm: Norm) -> None:
    model, threat = laws.Linear(2, lead=1e4), Threat(norm, laws.EPS[norm])
    x = laws.inputs()
    batch = laws.batch_for(model, x, laws.zeros(x))
    result = laws.run(MarginDecomposition(ascent=CosinePGD(steps=60)), model, batch, threat)
    worst, start = model.worst(batch, threat), laws.margin(model(x), batch.y)
    assert ((result.margin - start) >= (0.95 if norm == "L1" else 0.999) * (worst - start)).all()
    assert threat.contains(x, result.z).all()
