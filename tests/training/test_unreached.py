"""Weights without a gradient are detected before processes share gradients."""

import pytest
import torch
from torch import Tensor, nn

from unperturbed.data.convert import as_data
from unperturbed.training.prepare import strategy_for

DATA = as_data((torch.rand(8, 6), torch.arange(8) % 3))


class Unused(nn.Module):
    """Leaves a layer out: always, or in train mode at random, as stochastic depth does."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.used, self.left_out, self.share = nn.Linear(6, 3), nn.Linear(6, 3), share

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.used(x)
        return out if float(torch.rand(1)) < self.share else out + self.left_out(x)


@pytest.mark.parametrize(("share", "strategy"), [(1.0, "ddp_find_unused_parameters_true"), (0.0, "ddp")])
def test_weights_that_the_loss_does_not_reach_are_looked_for(share: float, strategy: str) -> None:
    assert strategy_for(Unused(share), DATA) == strategy


def test_layers_that_are_left_out_at_random_are_seen() -> None:
    torch.manual_seed(0)
    assert strategy_for(Unused(0.7), DATA) == "ddp_find_unused_parameters_true"
