"""Random numbers are looked for on every batch, and the dependence on the batch at several of its sizes."""

import pytest
import torch
from torch import Tensor, nn

from support.hidden import Cached, Counting
from support.planted import examples, robust
from unperturbed.examinations.behaviour import FIRST, behaviour_of


class RandomOn(nn.Module):
    """A network that draws random numbers where an input is a certain one."""

    def __init__(self, net: nn.Module, marked: Tensor) -> None:
        super().__init__()
        self.net, self.marked = net, [marked]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        rows = (x == self.marked[0]).flatten(1).all(1)
        return logits + rows[:, None] * torch.randn_like(logits)


class OfFive(nn.Module):
    """A network that answers otherwise in batches of five."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits * (2 if len(x) == 5 else 1)


def test_an_honest_network_is_a_function_of_one_example() -> None:
    found = behaviour_of(robust(), examples(100)[0], 0, 32)
    assert not (found.is_random or found.stateful or found.coupled) and found.drawn == 100


def test_one_random_example_in_the_last_batch_is_noticed() -> None:
    x, _ = examples(150)
    assert len(x) > 2 * FIRST
    assert behaviour_of(RandomOn(robust(), x[149]), x, 0, 32).is_random


def test_a_size_of_the_batch_that_matters_is_noticed() -> None:
    found = behaviour_of(OfFive(robust()), examples(64)[0], 0, 32)
    assert found.coupled and found.size > 0.1 and not found.is_random


@pytest.mark.parametrize("defence", [Cached, Counting])
@pytest.mark.parametrize("calls", [0, 1, 4, 5])
def test_a_gradient_that_later_calls_do_not_have_is_state(defence: type[nn.Module], calls: int) -> None:
    x, _ = examples(32)
    model = defence(robust())
    for _ in range(calls):
        model(x)
    found = behaviour_of(model, x, 0, 32)
    assert found.stateful and not found.is_random
