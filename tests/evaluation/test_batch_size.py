"""The automatic batch size."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unperturbed.data.convert import as_split
from unperturbed.errors import InputError
from unperturbed.evaluation.batch_size import kept_for_gradient, physical_batch_size
from unperturbed.evaluation.checked_model import CheckedModel, check_model
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Logits


def checked(model: nn.Module, extent: int = 2) -> CheckedModel:
    """Return a model on three vectors as a checked."""
    return check_model(
        model, as_split((torch.rand(3, extent), torch.zeros(3, dtype=torch.int64))), Threat("Linf", 0.1), 0
    )


def wide(width: int, extent: int = 2) -> nn.Module:
    """Return a network that keeps `width` numbers for a gradient: tanh's outputs, no inputs of layers at rest."""
    return nn.Sequential(nn.Linear(extent, width), nn.Tanh(), nn.Linear(width, 3))


class Odd(nn.Module):
    """A linear classifier that does something else first."""

    def __init__(self, first: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.first, self.linear = first, nn.Linear(2, 3)

    def forward(self, x: Inputs) -> Logits:
        self.first(x)
        logits: Logits = self.linear(x.tanh())
        return logits


@pytest.mark.parametrize(("asked", "n", "places"), [
    (1, 50, 1), (7, 50, 8), (64, 50, 64), (65, 50, 64), (1000, 50, 64), (50, 64, 64), ("auto", 5, 8), ("auto", 1, 1),
    ("auto", 300, 512), ("auto", 3000, 512),
])  # fmt: skip
def test_the_network_sees_powers_of_two(asked: int, n: int, places: int) -> None:
    assert physical_batch_size(asked, checked(wide(4)), n) == places


@pytest.mark.parametrize("asked", [0, -1])
def test_what_is_no_batch_size_is_refused(asked: Any) -> None:
    with pytest.raises(InputError, match=f"batch_size is {asked!r}"):
        physical_batch_size(asked, checked(wide(4)), 100)


@pytest.mark.parametrize(("width", "places"), [(2**16, 512), (2**17, 256), (2**18, 128), (2**20, 128)])
def test_large_networks_see_fewer_examples_at_a_time_but_never_too_few(width: int, places: int) -> None:
    assert physical_batch_size("auto", checked(wide(width)), 3000) == places


@pytest.mark.long
@pytest.mark.slow
def test_large_inputs_come_in_smaller_batches() -> None:
    assert physical_batch_size("auto", checked(wide(4, 2**18), 2**18), 3000) == 128
    assert physical_batch_size("auto", checked(wide(4, 2**22), 2**22), 3000) == 32


def test_what_is_kept_is_counted_without_the_weights() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.Tanh())
    assert kept_for_gradient(checked(model, 5)) == 7 + 3
    assert all(weight.requires_grad for weight in model.parameters())


def of_two(x: Tensor) -> None:
    if len(x) == 2:
        raise ValueError("not two")


@pytest.mark.parametrize("first", [of_two, torch.func.vmap(torch.func.grad(lambda x: x.pow(2).sum()))])
def test_a_network_that_cannot_be_asked_is_evaluated_all_the_same(first: Callable[[Tensor], Any]) -> None:
    assert kept_for_gradient(checked(Odd(first))) is None
    assert physical_batch_size("auto", checked(Odd(first)), 3000) == 128


def test_a_network_that_keeps_nothing_more_for_a_second_example_says_nothing_of_its_size() -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    assert kept_for_gradient(checked(model)) is None and physical_batch_size("auto", checked(model), 3000) == 128
