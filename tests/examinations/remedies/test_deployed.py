"""A network with state, called from the same state each time."""

import torch
from torch import Tensor, nn

from unperturbed.examinations.remedies.deployed import Reset, state_restored
from unperturbed.types import Inputs, Logits


class Counting(nn.Module):
    """Adds the number of earlier calls and a sum over them, which it changes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.register_buffer("sum", torch.zeros(2))
        self.late: Tensor | None = None

    def forward(self, x: Inputs) -> Logits:
        self.calls += 1
        self.sum += x.sum(0)
        self.late = x.mean(0) if self.late is None else self.late
        return x + self.calls + self.sum + self.late


def test_every_call_begins_in_the_state_at_construction_whatever_other_calls_did() -> None:
    network, x = Counting(), torch.tensor([[1.0, 2.0]])
    network(x)
    expected = x + 2 + torch.tensor([2.0, 4.0]) + torch.tensor([1.0, 2.0])
    reset = Reset(network)
    for _ in range(3):
        assert torch.equal(reset(x), expected)
        network(10 * x)
    assert torch.equal(reset(x), expected) and network.calls == 1


def test_a_call_that_fails_is_undone_as_well() -> None:
    network = Counting()
    with_state = Reset(network)
    try:
        with_state(torch.zeros(2, 3))
    except RuntimeError:
        pass
    assert network.calls == 0 and torch.equal(network.sum, torch.zeros(2)) and network.late is None


def test_the_state_after_a_block_is_that_before_it_and_attributes_that_appeared_are_gone() -> None:
    network = Counting()
    buffer = network.sum
    with state_restored(network):
        network(torch.ones(1, 2))
        network.further = 3
        with state_restored(network):
            network(torch.ones(1, 2))
        assert network.calls == 1 and torch.equal(network.sum, torch.ones(2))
    assert network.calls == 0 and torch.equal(network.sum, torch.zeros(2)) and not hasattr(network, "further")
    assert buffer is not None and network.late is None
