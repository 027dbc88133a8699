"""A network that fails while its accuracy is measured at the end of an epoch is named like one that fails in a step."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from support.toys import blobs, mlp
from unperturbed.errors import RunError
from unperturbed.methods.erm import ERM
from unperturbed.threat import Threat
from unperturbed.training.loop import train
from unperturbed.training.recipe import Recipe


class Failing(nn.Module):
    """Fails in eval mode, once it has been trained for more than five steps."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp(6, 3, seed=0)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training and torch.is_grad_enabled()
        if not self.training and self.steps > 5:
            raise ValueError("no such mode")
        logits: Tensor = self.inner(x)
        return logits


def test_a_network_that_fails_in_the_measurement_after_an_epoch_is_named_with_the_examples(tmp_path: Path) -> None:
    recipe = Recipe(epochs=3, batch_size=6)
    with pytest.raises(RunError, match="at the end of epoch 1 on examples .*no such mode.*Failing") as caught:
        train(Failing(), blobs(60), Threat("Linf", 0.1), ERM(), recipe, out=tmp_path / "run")
    assert isinstance(caught.value.__cause__, ValueError)
