"""Singular values of layers against those of the dense matrix of what torch computes."""

import math

import pytest
import torch
from torch import Tensor, nn

from unperturbed.anatomy import bounds
from unperturbed.anatomy.bounds import norm_bound
from unperturbed.anatomy.linear_maps import LinearMap, map_of
from unperturbed.anatomy.spectra import circular, estimated, real, real_norm, reshaped

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")

LAYERS = {
    "plain": (nn.Conv2d(3, 4, 3, padding=1), (3, 6, 6)),
    "wide": (nn.Conv2d(2, 6, 3), (2, 7, 6)),
    "stride 2": (nn.Conv2d(3, 4, 3, stride=2, padding=1), (3, 7, 6)),
    "stride 2, even": (nn.Conv2d(3, 4, 4, stride=2, padding=1), (3, 6, 6)),
    "groups": (nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 6, 6)),
    "depthwise": (nn.Conv2d(4, 4, 3, padding=1, groups=4), (4, 6, 6)),
    "dilation": (nn.Conv2d(2, 3, 3, padding=2, dilation=2), (2, 6, 6)),
    "same": (nn.Conv2d(2, 3, 4, padding="same"), (2, 6, 6)),
    "circular padding": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), (3, 6, 6)),
    "reflected padding": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (3, 6, 6)),
    "one dimension": (nn.Conv1d(3, 4, 5, stride=2, padding=2, padding_mode="replicate"), (3, 20)),
    "three dimensions": (nn.Conv3d(2, 3, (2, 3, 1), padding=(1, 0, 1)), (2, 4, 4, 3)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (4, 3, 4)),
    "linear": (nn.Linear(20, 30), (20,)),
}


def filled(layer: nn.Module) -> nn.Module:
    with torch.no_grad():
        draw = torch.Generator().manual_seed(0)
        for weight in layer.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw))
    return layer.double()


def case(name: str) -> tuple[LinearMap, Tensor]:
    """Return a map, and the matrix of what the layer computes, without its bias."""
    layer, shape = LAYERS[name]
    filled(layer)
    units = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    with torch.no_grad():
        matrix = (layer(units) - layer(torch.zeros_like(units))).flatten(1).T
    linear = map_of(layer, name, shape[1:])
    assert linear is not None
    return linear, matrix.T if linear.transposed else matrix


@pytest.mark.parametrize("name", LAYERS)
def test_a_map_is_the_layer_without_its_bias(name: str) -> None:
    linear, matrix = case(name)
    assert linear.size == matrix.shape
    torch.testing.assert_close(linear.matrix(), matrix)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, matrix.shape[1], generator=draw, dtype=torch.float64)
    y = torch.randn(2, matrix.shape[0], generator=draw, dtype=torch.float64)
    torch.testing.assert_close(linear(x.view(-1, *linear.in_shape)).flatten(1), x @ matrix.T)
    torch.testing.assert_close(linear.adjoint(y.view(-1, *linear.out_shape)).flatten(1), y @ matrix)


@pytest.mark.parametrize("name", LAYERS)
def test_the_real_layer_dense_and_by_iterations_is_that_of_the_matrix(name: str) -> None:
    """To 1e-3 by iterations, forced on these small layers with a probe for every dimension."""
    linear, matrix = case(name)
    truth = torch.linalg.svdvals(matrix)
    count = min(matrix.shape)
    draw = torch.Generator().manual_seed(1)
    start = torch.randn(1, count, generator=draw, dtype=torch.float64)
    dense = real(linear)
    iterated = estimated(linear, start, torch.eye(count, dtype=torch.float64), 400)
    for found, tolerance in ((dense, 1e-9), (iterated, 1e-3)):
        expected = {
            "count": count,
            "smallest": truth.min() if truth.min() > 1e-9 else 0,
            "largest": truth.max(),
            "mean": truth.mean(),
            "deviation": truth.std(correction=0),
            "squares": truth.square().sum(),
            "stable_rank": truth.square().sum() / truth.max() ** 2,
            "spread": (truth / truth.max()).std(correction=0),
        }
        for quantity, value in expected.items():
            near = pytest.approx(float(value), rel=tolerance, abs=1e-9)
            assert getattr(found, quantity) == near, f"{quantity} of {name}"
        assert found.smallest_settled and found.largest_settled
    assert real_norm(linear) == dense.largest


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("side", [2048, 1], ids=["dense", "beyond"])
def test_norms_are_bounded_from_above_and_exactly_where_that_is_said(
    name: str, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "SIDE", side)
    linear, matrix = case(name)
    spectral = float(torch.linalg.svdvals(matrix)[0])
    rows, columns = float(matrix.abs().sum(1).max()), float(matrix.abs().sum(0).max())
    exact = linear.mode == "constant"
    for norm, truth, slack in (("Linf", rows, 0.0), ("L1", columns, 0.0), ("L2", spectral, 0.0 if side > 1 else 2.0)):
        bound = norm_bound(linear, norm)
        assert bound >= truth
        if exact or (norm == "L2" and side > 1):
            assert bound <= truth * (1 + 1e-8 + slack), norm


@pytest.mark.slow
def test_random_probes_estimate_a_larger_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within four standard errors of the mean, and the error is small; as `real` does it."""
    linear = map_of(filled(nn.Conv2d(4, 4, 3, padding=1)), "larger", (12, 12))
    assert linear is not None
    truth = torch.linalg.svdvals(linear.matrix())
    monkeypatch.setattr(bounds, "SIDE", 1)
    found = real(linear)
    assert found.largest == pytest.approx(float(truth[0]), rel=1e-3)
    assert float(truth[-1]) * (1 - 1e-9) <= found.smallest
    assert 0 < found.error < 4e-3 * found.mean
    assert abs(found.mean - float(truth.mean())) < 4 * found.error
    assert found.deviation == pytest.approx(float(truth.std(correction=0)), rel=1e-2)
    assert found.squares == pytest.approx(float(truth.square().sum()))
    assert real(linear) == found, "the same random vectors each time"


def test_the_weights_as_a_matrix() -> None:
    conv = filled(nn.Conv2d(4, 6, 3, stride=2, groups=2))
    linear = map_of(conv, "conv", (9, 9))
    assert linear is not None
    values = torch.cat(
        [torch.linalg.svdvals(conv.weight.detach()[rows].flatten(1)) for rows in (slice(3), slice(3, 6))]
    )
    found = reshaped(linear)
    assert (found.count, found.smallest, found.largest) == (
        6,
        pytest.approx(float(values.min())),
        pytest.approx(float(values.max())),
    )


def test_on_a_torus_padding_does_not_matter() -> None:
    """And of a matrix nothing wraps around."""
    wrapped, matrix = case("circular padding")
    truth = torch.linalg.svdvals(matrix)
    for linear in (wrapped, case("plain")[0]):
        found = circular(linear)
        assert found.largest == pytest.approx(float(truth[0]))
        assert found.deviation == pytest.approx(float(truth.std(correction=0)))
    assert circular(case("linear")[0]) == real(case("linear")[0])


def test_a_rank_that_is_not_full_has_a_smallest_value_of_exactly_0() -> None:
    linear = LinearMap("flat", "Linear", torch.ones(4, 5, dtype=torch.float64))
    found = real(linear)
    assert found.smallest == 0 and found.condition == math.inf and found.stable_rank == pytest.approx(1)
    nothing = real(LinearMap("nothing", "Linear", torch.zeros(4, 5, dtype=torch.float64)))
    assert nothing.largest == nothing.spread == nothing.stable_rank == 0
