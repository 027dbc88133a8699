"""Casts change no kind of number: complex, integer and 8-bit float tensors stay as they are."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unperturbed import AT, Recipe, Threat, evaluate, train
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.awp import AWP
from unperturbed.networks.dtype import cast, home

X = torch.rand(60, 8, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0.5).long()


class Filter(nn.Module):
    """A filter of frequencies with complex weights, the first of its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.polar(torch.ones(2, 8), torch.linspace(0, 3, 16).view(2, 8)))
        self.register_buffer("phase", torch.polar(torch.ones(8), torch.linspace(0, 3, 8)))
        self.register_buffer("count", torch.arange(3, dtype=torch.int8))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.fft.ifft(torch.fft.fft(x) * self.w.sum(0) * self.phase).real
        out: Tensor = self.head(seen.to(x.dtype))
        return out


def test_only_real_floating_point_tensors_are_cast() -> None:
    model = Filter()
    model.register_buffer("small", torch.ones(2).to(torch.float8_e4m3fn))
    model.register_buffer("flag", torch.ones(2, dtype=torch.bool))
    before = {name: value.dtype for name, value in model.state_dict().items()}
    cast(model, torch.float64)
    after = {name: value.dtype for name, value in model.state_dict().items()}
    assert {name for name in before if before[name] != after[name]} == {"head.weight", "head.bias"}
    assert home(model) == (torch.device("cpu"), torch.float64) and home(Filter().w_only) == home(Filter())


Filter.w_only = property(lambda self: nn.ParameterList([self.w]))  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [{}, {"averaging": 0.9}, {"optimiser": "sgd", "clip_grad_norm": 1.0}])
@pytest.mark.parametrize("method", [AT(PGD(steps=1)), AWP(AT(PGD(steps=1)))])
def test_complex_weights_train_and_keep_their_imaginary_part(recipe: dict, method: AT, tmp_path: Path) -> None:  # type: ignore[type-arg]
    torch.manual_seed(0)
    model, phase = Filter(), Filter().phase
    before = model.w.detach().clone()
    settings = Recipe(epochs=2, batch_size=10, **recipe)
    train(model, (X, Y), Threat("Linf", 0.05), method, settings, device="cpu", out=tmp_path / "run")
    assert model.w.dtype == torch.complex64 and torch.equal(model.phase, phase) and model.count.dtype == torch.int8
    assert (model.w - before).imag.abs().max() > 1e-4
    assert evaluate(model, (X, Y), Threat("Linf", 0.05), "apgd-ce").counts["unknown"] == 0
