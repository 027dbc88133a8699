"""How many examples the network sees at a time, where nobody says."""

import pytest
import torch
from torch import nn

from unperturbed.data.convert import as_split
from unperturbed.evaluation.subject import Subject, kept_for_gradient, look_at, physical_batch_size
from unperturbed.threat import Threat


def subject(width: int, extent: int = 2) -> Subject:
    """Return two layers of this width on vectors, as a subject."""
    model = nn.Sequential(nn.Linear(extent, width), nn.Tanh(), nn.Linear(width, 3))
    return look_at(model, as_split((torch.rand(3, extent), torch.zeros(3, dtype=torch.int64))), Threat("Linf", 0.1), 0)


@pytest.mark.parametrize(("asked", "n", "places"), [
    (1, 50, 1), (7, 50, 8), (64, 50, 64), (65, 50, 64), (1000, 50, 64), (50, 64, 64), ("auto", 5, 8), ("auto", 1, 1),
    ("auto", 300, 512), ("auto", 3000, 512),
])  # fmt: skip
def test_the_network_sees_powers_of_two(asked: int, n: int, places: int) -> None:
    assert physical_batch_size(asked, subject(4), n) == places


@pytest.mark.parametrize(("width", "places"), [(2**16, 512), (2**17, 256), (2**18, 128), (2**20, 128)])
def test_large_networks_see_fewer_examples_at_a_time_but_never_too_few(width: int, places: int) -> None:
    """tanh keeps its outputs, and no layer its inputs, since their weights need no gradient."""
    assert physical_batch_size("auto", subject(width), 3000) == places


def test_large_inputs_come_in_smaller_batches() -> None:
    assert physical_batch_size("auto", subject(4, 2**18), 3000) == 128
    assert physical_batch_size("auto", subject(4, 2**22), 3000) == 32


def test_what_is_kept_is_counted_without_the_weights() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.Tanh())
    assert kept_for_gradient(model, torch.rand(5)) == 7 + 3
    assert all(weight.requires_grad for weight in model.parameters())
