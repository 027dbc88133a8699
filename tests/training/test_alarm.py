import pytest
import torch

from support.examples import untouched
from support.toys import Function, linear, mlp, uniform
from unperturbed.losses import cross_entropy
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training.alarm import Probe, probe
from unperturbed.types import Batch, Inputs, Logits, Norm


def probed(model: torch.nn.Module, threat: Threat, n: int = 300) -> tuple[Probe, Batch]:
    x = uniform(n, 8, low=0.3, high=0.7)
    y = model.eval()(x).argmax(1)
    batch = Batch(x, torch.where(torch.arange(n) % 10 == 0, 1 - y, y), torch.arange(n))
    return probe(model, batch, threat, Noise.of(0, batch.ids)), batch


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.04), ("L2", 0.12), ("L1", 0.3)])
def test_on_a_linear_classifier_one_step_is_as_good_as_ten(norm: Norm, eps: float) -> None:
    model, threat = linear(8), Threat(norm, eps)
    result, batch = probed(model, threat)
    slope = (model.weight[1 - batch.y] - model.weight[batch.y]).detach()
    worst = threat.maximise_linear(batch.x, slope)
    robust = (model(worst).argmax(1) == batch.y).float().mean().item()
    assert result.clean == pytest.approx(0.9) and result.n == 300
    assert result.one_step == pytest.approx(robust) and 0.1 < robust < 0.8
    assert robust - 1e-6 <= result.many_steps <= robust + 0.02
    assert robust < result.noise <= result.clean + 0.02
    loss = cross_entropy(model(worst), batch.y).mean().item()
    assert loss * 0.98 < result.robust_loss <= loss + 1e-6


def masked(x: Inputs) -> Logits:
    """Class 1 for z_0 in (0.6, 0.77); the one step from 0.5 leads past it, and further steps to and fro across it."""
    a = x[:, 0]
    score = torch.where(a < 0.77, 20 * (a - 0.6), 20 * (0.7 - a))
    return torch.stack([torch.zeros_like(a), score], dim=1)


def test_a_mask_of_the_one_step_is_seen_through_by_ten() -> None:
    x = torch.full((200, 2), 0.5)
    batch = Batch(x, torch.zeros(200, dtype=torch.int64), torch.arange(200))
    result = probe(Function(masked), batch, Threat("Linf", 0.3), Noise.of(0, batch.ids))
    assert result.clean == 1 and result.one_step == 1
    assert result.noise == pytest.approx(1 - 0.17 / 0.6, abs=0.1) and result.many_steps < 0.75


def test_probing_changes_nothing_and_can_be_repeated() -> None:
    model = mlp(8, 2, norm=True, dropout=0.3).train()
    with untouched(model):
        first, batch = probed(model.train(), Threat("L2", 0.1))
        model.train()
        again = probe(model, batch, Threat("L2", 0.1), Noise.of(0, batch.ids))
    assert first == again


def test_a_tie_is_not_correct() -> None:
    batch = Batch(uniform(10, 2), torch.zeros(10, dtype=torch.int64), torch.arange(10))
    constant = Function(lambda x: torch.zeros(len(x), 3) + 0 * x.sum(1, keepdim=True))
    result = probe(constant, batch, Threat("Linf", 0.1), Noise.of(0, batch.ids))
    assert result.clean == result.noise == result.one_step == result.many_steps == 0
