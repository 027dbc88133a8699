"""Running statistics: the share of their initial values by the recursion of torch, and networks that are named."""

import pytest
import torch
from torch import nn

from unperturbed.networks.inputs import missing_layer
from unperturbed.networks.unsettled import unsettled_statistics


def seen(batches: int, momentum: float | None = 0.1) -> nn.Module:
    network = nn.Sequential(nn.BatchNorm1d(3, momentum=momentum), nn.Linear(3, 2)).train()
    generator = torch.Generator().manual_seed(0)
    for _ in range(batches):
        network(2 + torch.randn(64, 3, generator=generator))
    return network.eval()


def test_the_share_is_that_of_the_recursion() -> None:
    network = seen(4)
    norm = network[0]
    assert isinstance(norm, nn.BatchNorm1d) and norm.running_mean is not None
    share = 0.9**4
    assert float((norm.running_mean - 2 * (1 - share)).abs().max()) < 0.15, "the mean is 2, the initial value 0"
    assert f"{share:.0%} of their initial values after 4 training batches" in str(unsettled_statistics(network))


@pytest.mark.parametrize(("batches", "momentum"), [(100, 0.1), (3, None), (40, 0.1), (3, 0.9)])
def test_settled_statistics_are_not_named(batches: int, momentum: float | None) -> None:
    assert unsettled_statistics(seen(batches, momentum)) is None


def test_statistics_without_a_count_are_named_at_their_initial_values_only() -> None:
    network = seen(100)
    network[0].num_batches_tracked = None  # as BatchNorm of old checkpoints
    assert unsettled_statistics(network) is None
    assert "100% of their initial values" in str(unsettled_statistics(seen(0)))
    assert unsettled_statistics(nn.Linear(3, 2)) is None
    assert unsettled_statistics(nn.BatchNorm1d(3, track_running_stats=False)) is None


def test_normalisation_is_not_proposed_for_a_network_whose_batch_norms_have_not_settled() -> None:
    x = torch.linspace(0.4, 0.6, 40)[:, None]
    y = (x[:, 0] > 0.5).long()
    norm, head = nn.BatchNorm1d(1), nn.Linear(1, 2)
    head.weight.data, head.bias.data = torch.tensor([[-9.0], [9.0]]), torch.zeros(2)
    network = nn.Sequential(norm, head).eval()  # right on inputs around 0
    norm.running_mean = torch.full((1,), 1e-3)
    for batches, proposed in ((1000, True), (5, False)):
        norm.num_batches_tracked = torch.tensor(batches)
        assert (missing_layer(network, x, y) is not None) == proposed
