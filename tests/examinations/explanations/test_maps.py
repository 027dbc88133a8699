"""Saliency maps: equal to our own gradients, exact on linear networks, and without a trace on the network."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from support.examples import make_batch, network, noise_for
from unperturbed.architectures.normalise import Normalise
from unperturbed.curvature.products import input_gradient as own_gradient
from unperturbed.examinations.explanations.maps import (
    class_margin,
    input_gradient,
    integrated_gradients,
    maps_of,
    occlusion,
)
from unperturbed.losses import cross_entropy
from unperturbed.networks.classifier import as_classifier
from unperturbed.networks.modes import under_attack
from unperturbed.types import Logits, PerExample

WIDE = make_batch(5, torch.float64)


class Pair(nn.Module):
    """Returns a tuple that begins with the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network("norm", torch.float64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner(x), x.sum()


KINDS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: network("plain", torch.float64),
    "tuple": lambda: as_classifier(Pair().eval(), WIDE.x[:1]),
    "normalised": lambda: nn.Sequential(Normalise((0.4, 0.5), (0.2, 0.3)), network("norm")).double(),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quantity", [class_margin, cross_entropy])
def test_the_map_is_our_own_gradient_and_the_network_is_as_before(
    kind: str, quantity: Callable[[Logits, Tensor], PerExample]
) -> None:
    model = KINDS[kind]()
    model.train()
    weight = next(model.parameters())
    weight.grad = torch.ones_like(weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = input_gradient(model, WIDE.x, WIDE.y, quantity)
    with under_attack(model):
        _, own = own_gradient(model, WIDE.x, lambda logits: quantity(logits, WIDE.y))
    torch.testing.assert_close(found, own, rtol=1e-5, atol=1e-12)
    assert all(module.training for module in model.modules()) and weight.requires_grad
    assert torch.equal(weight.grad, torch.ones_like(weight)) and not WIDE.x.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def two_class_linear() -> tuple[nn.Module, Tensor]:
    linear = nn.Linear(32, 2).double()
    return nn.Sequential(nn.Flatten(), linear), (linear.weight[0] - linear.weight[1]).detach()


def test_integrated_gradients_and_occlusion_are_exact_where_the_margin_is_linear() -> None:
    model, w = two_class_linear()
    y = torch.zeros(5, dtype=torch.int64)
    expected = (w * WIDE.x.flatten(1)).view_as(WIDE.x)
    torch.testing.assert_close(integrated_gradients(model, WIDE.x, y), expected)
    # a window of one pixel and both channels gives each of them the sum over the channels
    summed = expected.sum(1, keepdim=True).expand_as(WIDE.x)
    torch.testing.assert_close(occlusion(model, WIDE.x, y), summed, rtol=1e-5, atol=1e-6)  # Captum keeps float32


def test_a_map_does_not_depend_on_the_batch() -> None:
    model = network("norm", torch.float64)
    noise = noise_for(WIDE)
    together, apart = (maps_of(model, WIDE.x, WIDE.y, noise, size) for size in (5, 2))
    for name, found in together.items():
        torch.testing.assert_close(found, apart[name])
