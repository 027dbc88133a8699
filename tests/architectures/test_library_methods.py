"""Twelve models of other libraries take a step of four methods, or say which form of the method can."""

import pytest
import torch
from studies.foreign_models import MODELS
from torch import Tensor, nn

from unperturbed.methods.at import AT
from unperturbed.methods.base import Method
from unperturbed.methods.dale import DALE
from unperturbed.methods.llr import LLR
from unperturbed.methods.scorpio import SCORPIO
from unperturbed.threat import Threat
from unperturbed.training.robust_loss import robust_loss
from unperturbed.types import Inputs, Labels
from unperturbed.weights.files import build_model

METHODS: list[Method] = [AT(), LLR(), LLR(form="differences"), SCORPIO(), DALE()]
TWICE = ("timm:mobilenetv3_small_050", "torchvision:mobilenet_v3_small")
"""Models with layers that lack a second derivative, which the exact slope of LLR needs."""


@pytest.mark.slow
@pytest.mark.parametrize("text", MODELS)
def test_a_model_takes_a_step_of_each_method(text: str) -> None:
    pytest.importorskip(text.partition(":")[0], reason="make test-foreign installs it")
    torch.manual_seed(0)
    model = build_model(text, MODELS[text], (3, 32, 32), 10, (0.0,), (1.0,)).train()
    x, y = torch.rand(4, 3, 32, 32), torch.tensor([0, 5, 2, 9])
    for method in METHODS:
        if text in TWICE and isinstance(method, LLR) and method.form == "exact":
            with pytest.raises(RuntimeError, match="derivative"):  # `train` says which layer, and what to do
                gradient(method, model, x, y)
        else:
            gradients = gradient(method, model, x, y)
            assert all(g.isfinite().all() for g in gradients), method
            assert any(g.abs().max() > 0 for g in gradients), method


def gradient(method: Method, model: nn.Module, x: Inputs, y: Labels) -> list[Tensor]:
    """Return the gradients of a method's loss at the weights that it depends on."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    loss = robust_loss(method, model, x, y, Threat("Linf", 4 / 255), step=0)
    assert loss.isfinite()
    return [g for g in torch.autograd.grad(loss, weights, allow_unused=True) if g is not None]
