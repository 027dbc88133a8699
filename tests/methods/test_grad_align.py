"""GradAlign on losses whose gradients are known, and against its formula, typed again here with plain autograd."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from support.examples import NORMS, make_batch, network, noise_for
from unperturbed.errors import InputError
from unperturbed.methods.fgsm import FGSM
from unperturbed.methods.grad_align import GradAlign
from unperturbed.networks.modes import under_attack
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Inputs, Logits, Norm, Terms

BATCH = make_batch(6, torch.float64)
THREAT = Threat("Linf", 0.2)
every_norm = pytest.mark.parametrize("norm", NORMS)


def inner_of(model: nn.Module, threat: Threat, batch: Batch = BATCH) -> Inner:
    with under_attack(model):
        return GradAlign().perturb(model, batch, threat, noise_for(batch))


def terms_of(model: nn.Module, threat: Threat, batch: Batch = BATCH, weight: float = 1.0) -> Terms:
    return GradAlign(weight).loss(model, batch, inner_of(model, threat, batch), threat, noise_for(batch))


def learned(model: nn.Module) -> nn.Module:
    """Return the network with running averages that are not the batch's."""
    if len(model) > 4:  # type: ignore[arg-type]
        with torch.no_grad():
            model.get_buffer("1.running_mean").copy_(torch.tensor([0.3, -0.2, 0.1, 0.5]))
            model.get_buffer("1.running_var").copy_(torch.tensor([0.5, 2.0, 1.0, 0.3]))
    return model


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    """Return the gradient of the network with its running averages, with its graph."""
    leaf = x.clone().requires_grad_()
    if len(model) == 4:  # type: ignore[arg-type]
        logits = model(leaf)
    else:
        conv, norm, _, _, last = model  # type: ignore[misc]
        mean, var, scale, shift = (
            t.view(1, -1, 1, 1) for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        h = (conv(leaf) - mean) / (var + norm.eps).sqrt() * scale + shift
        logits = last(functional.softplus(h).flatten(1))
    (g,) = torch.autograd.grad(functional.cross_entropy(logits, BATCH.y, reduction="sum"), leaf, create_graph=True)
    return g.flatten(1)


@every_norm
@pytest.mark.parametrize("net", ["plain", "norm"])
def test_it_is_its_formula_and_learns_through_one_gradient(norm: Norm, net: str) -> None:
    """g(x) is a constant; with batch norm both gradients are those of the network in eval mode."""
    model, threat = learned(network(net, torch.float64)), Threat(norm, {"Linf": 0.2, "L2": 0.8, "L1": 3.0}[norm])
    inner = inner_of(model, threat)
    random = threat.sample(BATCH.x, noise_for(BATCH))
    cosine = functional.cosine_similarity(gradient(model, BATCH.x).detach(), gradient(model, random), dim=1)
    assert (1 - cosine).mean() > 1e-4
    expected = 0.6 * (1 - cosine).mean()
    terms = GradAlign(0.6).loss(model, BATCH, inner, threat, noise_for(BATCH))
    torch.testing.assert_close(terms["misalignment"], expected, rtol=1e-9, atol=1e-12)
    weights = list(model.parameters())
    for mine, theirs in zip(
        torch.autograd.grad(terms["misalignment"], weights, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(expected, weights, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(terms["adversarial"], functional.cross_entropy(model(inner.z), BATCH.y))


@every_norm
def test_it_attacks_as_fgsm(norm: Norm) -> None:
    model, threat = network("norm", torch.float64), Threat(norm, 0.5)
    with under_attack(model):
        expected = FGSM().perturb(model, BATCH, threat, noise_for(BATCH)).z
    torch.testing.assert_close(inner_of(model, threat).z, expected, rtol=0, atol=1e-12)


@every_norm
def test_a_binary_linear_model_is_aligned(norm: Norm) -> None:
    """All its gradients point the same way, however long they are."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 2).double())
    batch = replace(BATCH, y=BATCH.y % 2, targets=BATCH.y % 2)
    terms = terms_of(model, Threat(norm, 1.0), batch)
    assert abs(float(terms["misalignment"].detach())) < 1e-12
    assert float(terms["adversarial"].detach()) > 0.1


class Turning(nn.Module):
    """A linear model at the inputs it knows, and its opposite elsewhere; without slope where an input starts with 0."""

    def __init__(self, known: Inputs) -> None:
        super().__init__()
        self.known = known
        self.w = nn.Parameter(torch.randn(32, generator=torch.Generator().manual_seed(2)).double())

    def forward(self, x: Inputs) -> Logits:
        flat = x.flatten(1)
        sign = torch.where((x.detach() == self.known).flatten(1).all(1), 1.0, -1.0)
        value = sign * (self.known.flatten(1)[:, 0] > 0) * (flat @ self.w)
        return torch.stack([value, torch.zeros_like(value)], 1)


def test_opposite_gradients_cost_twice_the_weight_and_missing_ones_nothing() -> None:
    """The mean is over the examples that have gradients."""
    missing = BATCH.x.flatten(1)[:, 0] == 0
    assert 0 < missing.sum() < 5
    batch, model = replace(BATCH, y=BATCH.y % 2, targets=BATCH.y % 2), Turning(BATCH.x)
    terms = terms_of(model, THREAT, batch, 0.3)
    torch.testing.assert_close(terms["misalignment"].detach(), torch.tensor(0.6, dtype=torch.float64))
    same = terms_of(model, replace(THREAT, eps=0.0), batch, 0.3)
    assert abs(float(same["misalignment"].detach())) < 1e-12


@pytest.mark.parametrize("net", ["plain", "norm"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_a_distance_there_is_no_misalignment(net: str, smoothing: float) -> None:
    """The two gradients are of one network and one loss: also with batch norm, also with smoothed labels."""
    model, targets = learned(network(net, torch.float64)), functional.one_hot(BATCH.y, 3) * (1 - smoothing)
    batch = replace(BATCH, targets=targets + smoothing / 3)
    terms = terms_of(model, replace(THREAT, eps=0.0), batch)
    assert abs(float(terms["misalignment"].detach())) < 1e-12
    assert float(terms_of(model, THREAT, batch)["misalignment"].detach()) > 1e-4


@every_norm
def test_a_flat_loss_gives_zero(norm: Norm) -> None:
    model = network("plain")
    with torch.no_grad():
        model.get_parameter("3.weight").zero_()
    terms = terms_of(model, Threat(norm, 0.2), make_batch(6))
    assert float(terms["misalignment"].detach()) == 0
    gradients = torch.autograd.grad(sum(terms.values(), torch.zeros(())), list(model.parameters()))
    assert all(g.isfinite().all() for g in gradients)


def test_it_does_not_depend_on_the_length_of_the_gradients() -> None:
    """In float32, for gradients of 1e-17: squares are 1e-34, and the slope of a cosine is 1e17."""
    found = []
    for scale in (1.0, 1e-14):
        model = network("plain")
        with torch.no_grad():
            model[3].weight.mul_(1e-3 * scale)  # type: ignore[index,union-attr,operator]
            model[3].bias.zero_()  # type: ignore[index,union-attr,operator]
        misalignment = terms_of(model, THREAT, make_batch(6))["misalignment"]
        found.append(float(misalignment.detach()))
        gradients = torch.autograd.grad(misalignment, list(model.parameters()), allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in gradients)
    assert found[0] > 1e-3 and found[1] == pytest.approx(found[0], rel=0.02)


def test_batch_norms_averages_see_the_attacked_batch_and_once() -> None:
    model = network("norm", torch.float64)
    inner = inner_of(model, THREAT)
    GradAlign().loss(model, BATCH, inner, THREAT, noise_for(BATCH))
    assert int(model.get_buffer("1.num_batches_tracked")) == 1
    seen = model[0](inner.z).mean((0, 2, 3))  # type: ignore[index]
    torch.testing.assert_close(model.get_buffer("1.running_mean"), 0.1 * seen)


def test_it_says_what_it_measures_and_where_it_would_go_wrong() -> None:
    model = network("plain", torch.float64)
    with under_attack(model):
        found = GradAlign().examine(model, BATCH, THREAT, noise_for(BATCH))["alignment"]
    random = THREAT.sample(BATCH.x, noise_for(BATCH))
    expected = functional.cosine_similarity(gradient(model, BATCH.x), gradient(model, random), dim=1).detach()
    torch.testing.assert_close(found, expected)
    assert GradAlign().check(model, BATCH, THREAT, noise_for(BATCH)) == []
    assert len(GradAlign().check(network("dropout"), BATCH, THREAT, noise_for(BATCH))) == 1
    assert GradAlign().weight == 0.2


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(InputError, match="weight"):
        GradAlign(weight=-0.1)
