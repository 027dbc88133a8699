"""Weight gradients of regularisers on models of other libraries, in float64 against finite differences."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unperturbed.methods.base import Method
from unperturbed.methods.gradient_penalty import GradientPenalty
from unperturbed.methods.llr import LLR
from unperturbed.methods.scorpio import SCORPIO
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch
from unperturbed.weights.files import build_model

VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 8}
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("timm:vit_tiny_patch16_224", {"depth": 2, "patch_size": 8}),
    ("transformers:vit", VIT),
    ("torchvision:efficientnet_b0", {}),
]
"""Smooth networks: of GELU, or SiLU."""
METHODS: list[tuple[Method, str]] = [
    (LLR(), "gap"),
    (LLR(), "slope"),
    (SCORPIO(value="quadratic"), "gap"),
    (GradientPenalty(form="exact"), "penalty"),
]


@pytest.mark.parametrize(("text", "options"), MODELS)
def test_gradients_of_regularisers_are_those_of_finite_differences(text: str, options: dict[str, Any]) -> None:
    pytest.importorskip(text.partition(":")[0], reason="make test-foreign installs it")
    torch.manual_seed(0)
    model = build_model(text, options, (3, 16, 16), 5, (0.0,), (1.0,)).double().eval()
    draw = torch.Generator().manual_seed(0)
    batch = Batch(
        torch.rand((3, 3, 16, 16), generator=draw, dtype=torch.float64), torch.tensor([0, 3, 1]), torch.arange(3)
    )
    threat, noise = Threat("Linf", 0.05), Noise.of(0, batch.ids)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if "vit" in text:  # starts almost linear, with gaps near 0, whose absolute values have a kink there
        for weight in weights:
            weight.data *= 5 if weight.dim() > 1 else 1
    direction = [
        torch.randn(weight.shape, generator=draw, dtype=torch.float64) * weight.detach().abs().mean()
        for weight in weights
    ]
    for method, term in METHODS:
        inner = method.perturb(model, batch, threat, noise)

        def value(method: Method = method, term: str = term, inner: Any = inner) -> Tensor:
            return method.loss(model, batch, inner, threat, noise)[term]

        gradients = torch.autograd.grad(value(), weights, allow_unused=True)
        along = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True) if g is not None)
        expected = difference(value, weights, direction)
        assert along == pytest.approx(expected, rel=1e-5), (text, method, term)


def difference(value: Any, weights: list[nn.Parameter], direction: list[Tensor], h: float = 1e-6) -> float:
    """Return the central difference of a value along a direction of the weights."""

    def moved(step: float) -> None:
        with torch.no_grad():
            for weight, d in zip(weights, direction, strict=True):
                weight += step * d

    moved(h)
    above = float(value().detach())
    moved(-2 * h)
    below = float(value().detach())
    moved(h)
    return (above - below) / (2 * h)
