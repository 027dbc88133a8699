"""Scores of maps in closed form, ROAD's imputation, and the check by random weights."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from support.examples import make_batch, network
from unperturbed.examinations.explanations.alignment import class_means, gradient_scores, perceptual_alignment
from unperturbed.examinations.explanations.deletion import impute
from unperturbed.examinations.explanations.faithfulness import max_sensitivity, normalised_infidelity
from unperturbed.examinations.explanations.maps import input_gradient
from unperturbed.examinations.explanations.randomisation import (
    complexity_gain,
    learnt_layers,
    shuffled_weights,
    similarities,
    survivors,
)
from unperturbed.examinations.explanations.scores import (
    cosine,
    entropy,
    etmann_alignment,
    rank_correlation,
    sparseness,
    total_variation,
)
from unperturbed.types import Batch

WIDE = make_batch(5, torch.float64)


def test_scores_have_their_closed_forms() -> None:
    x = WIDE.x
    torch.testing.assert_close(cosine(x, -2 * x), -torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(etmann_alignment(-3 * x, x), x.flatten(1).norm(dim=1))
    one = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    one[0, 0, 2, 2] = -2.0
    assert float(total_variation(one)) == 4.0 and float(total_variation(torch.ones_like(one))) == 0.0
    assert float(sparseness(one)) == pytest.approx(24 / 25) and float(sparseness(torch.ones_like(one))) == 0.0
    assert float(entropy(torch.arange(100.0)[None])) == pytest.approx(math.log(100))
    torch.testing.assert_close(rank_correlation(x + 1, (x + 1) ** 3), torch.ones(5, dtype=torch.float64))
    assert cosine(x, torch.zeros_like(x)).isnan().all() and rank_correlation(x, torch.ones_like(x)).isnan().all()


def test_imputation_solves_for_the_mean_of_the_neighbours() -> None:
    """A linear ramp stays what it is inside; the known pixels are never touched."""
    ramp = torch.arange(6.0).expand(1, 2, 6, 6).contiguous().double()
    removed = torch.zeros(1, 6, 6, dtype=torch.bool)
    removed[0, 2:4, 1:5] = True
    torch.testing.assert_close(impute(ramp, removed), ramp)
    x = torch.rand(1, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = impute(x, removed)
    kernel = torch.tensor([[1, 2, 1], [2, 0, 2], [1, 2, 1]], dtype=torch.float64) / 12
    means = functional.conv2d(found.view(2, 1, 6, 6), kernel.view(1, 1, 3, 3), padding=1).view_as(x)
    inside = removed.expand(2, 6, 6)[None]
    torch.testing.assert_close(found[inside], means[inside])
    assert torch.equal(found[~inside], x[~inside])


def test_the_gradient_of_a_linear_network_is_faithful_and_a_random_map_is_not() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 2)).double()
    gradient = input_gradient(model, WIDE.x, WIDE.y % 2)
    assert (normalised_infidelity(model, WIDE.x, WIDE.y % 2, 7 * gradient, 0.1) < 1e-12).all()
    rolled = gradient.flatten(1).roll(1, dims=1).view_as(gradient)
    assert (normalised_infidelity(model, WIDE.x, WIDE.y % 2, rolled, 0.1) > 0.3).all()


def test_max_sensitivity_of_the_identity_is_the_largest_relative_perturbation() -> None:
    x = torch.ones(4, 10, dtype=torch.float64)
    found = max_sensitivity(lambda z, y: z, x, torch.zeros(4, dtype=torch.int64), 0.1)
    assert ((found > 0) & (found <= 0.1)).all()
    assert float(max_sensitivity(lambda z, y: z * 0 + 1, x, torch.zeros(4, dtype=torch.int64), 0.1).max()) == 0


def test_shuffled_weights_are_permutations_and_restored() -> None:
    model = network("norm")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with shuffled_weights(learnt_layers(model)[:1], 0):
        last = model[-1].weight
        assert not torch.equal(last, before["4.weight"])
        assert torch.equal(last.flatten().sort().values, before["4.weight"].flatten().sort().values)
        assert torch.equal(model[0].weight, before["0.weight"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def edges(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return a map that does not look at the network."""
    return functional.pad(x.diff(dim=-1), (0, 1))


def test_an_edge_detector_is_flagged_and_a_gradient_is_not() -> None:
    model = network("plain", torch.float64)
    assert all((each > 0.999).all() for each in similarities(model, edges, WIDE.x, WIDE.y))
    assert not complexity_gain(model, edges, WIDE.x, WIDE.y).any()
    assert float(similarities(model, input_gradient, WIDE.x, WIDE.y)[-1].mean()) < 0.5
    scores = gradient_scores(edges(model, WIDE.x, WIDE.y), WIDE.x)
    assert all(survives for _, survives in survivors(scores, scores).values())


def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network trained on noisy patterns, and examples: the informative pixels are those of the class."""
    draw = torch.Generator().manual_seed(0)
    patterns = torch.eye(3, dtype=torch.float64).repeat_interleave(3, dim=1)[:, None, :, None].expand(3, 1, 9, 9)
    y = torch.arange(150) % 3
    x = (0.8 * patterns[y] + 0.2 * torch.rand(150, 1, 9, 9, generator=draw, dtype=torch.float64)).clamp(0, 1)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(81, 32), nn.Softplus(), nn.Linear(32, 3)).double()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.01)
    for _ in range(100):
        loss = functional.cross_entropy(model(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model, x, y


def test_random_weights_lower_the_alignment_scores_of_a_trained_network() -> None:
    model, x, y = trained()
    found = gradient_scores(input_gradient(model, x, y), x)
    batch = Batch(x, y, torch.arange(len(x)))
    means = class_means(batch, 3)
    found["perceptual alignment"], baseline = perceptual_alignment(model, batch, means, 3)
    assert (found["perceptual alignment"] > baseline).all()
    with shuffled_weights(learnt_layers(model), 0):
        random = gradient_scores(input_gradient(model, x, y), x)
        random["perceptual alignment"], _ = perceptual_alignment(model, batch, means, 3)
    verdicts = survivors(found, random)
    for name in ("cosine of gradient and image", "Etmann alignment", "perceptual alignment"):
        number, survives = verdicts[name]
        assert number.value > 0 and not survives
