"""A second derivative that is missing is said before the first step, with the layer and the remedy."""

from pathlib import Path

import pytest
import torch
from torch import nn

from unperturbed import Recipe, Threat, train
from unperturbed.errors import InputError
from unperturbed.methods.base import Method
from unperturbed.methods.cure import CURE
from unperturbed.methods.grad_align import GradAlign
from unperturbed.methods.llr import LLR
from unperturbed.methods.soar import SOAR
from unperturbed.networks.second import layers_without

X = torch.rand(60, 8, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0.5).long()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.Sequential(nn.Hardsigmoid()), nn.Linear(6, 2))


@pytest.mark.parametrize("method", [LLR(), CURE(), SOAR(), GradAlign()])
def test_it_is_said_before_the_folder_is_made_and_the_retry_is_not_refused(method: Method, tmp_path: Path) -> None:
    out, threat, recipe = tmp_path / "run", Threat("Linf", 0.1), Recipe(epochs=1, batch_size=10)
    with pytest.raises(InputError, match=r"'1.0' \(Hardsigmoid\).*--method.form differences.*nn.Sigmoid in place"):
        train(network(), (X, Y), threat, method, recipe, device="cpu", out=out)
    assert not out.exists()
    train(network(), (X, Y), threat, LLR(form="differences"), recipe, device="cpu", out=out)


def test_layers_that_have_one_are_not_named() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.SiLU(), nn.LayerNorm(6), nn.ReLU(inplace=True), nn.Linear(6, 2))
    assert layers_without(model, X[:2]) == {}
    assert layers_without(network(), X[:2]) == {"1.0": "Hardsigmoid"}
