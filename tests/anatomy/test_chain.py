"""Bounds on how fast logits change: true on random networks, attained on linear ones; and what is no chain."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import orthogonal

from support.examples import NORMS, untouched
from support.toys import Function
from unperturbed.anatomy import bounds
from unperturbed.anatomy.chain import SLOPES, Chain, chain
from unperturbed.architectures.mlp import MLP
from unperturbed.architectures.normalise import Normalise
from unperturbed.architectures.preact_resnet import PreActResNet
from unperturbed.architectures.small_cnn import SmallCNN
from unperturbed.types import Norm
from unperturbed.weights.files import LogitsOnly

ORDERS: dict[Norm, float] = {"Linf": math.inf, "L2": 2, "L1": 1}


def batch_norm(channels: int, dimensions: int = 2, affine: bool = True) -> nn.Module:
    """Return a batch norm in eval mode, with random averages and weights."""
    norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}[dimensions](channels, affine=affine).double().eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.05, 2)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return norm


def activations() -> list[nn.Module]:
    return [nn.LeakyReLU(1.5), nn.ELU(2.0), nn.Softplus(3.0), nn.GELU("tanh"), *(kind() for kind in SLOPES)]


def random_chain(data: st.DataObject) -> nn.Sequential:
    """Return a network on (2, 8, 8) of any of the layers that are known."""
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 999)))
    layers: list[nn.Module] = [Normalise((0.4, 0.1), (0.5, 0.2))]
    for _ in range(draw(st.integers(1, 2))):
        conv = nn.Conv2d(
            2,
            draw(st.sampled_from([2, 4])),
            draw(st.sampled_from([1, 3])),
            stride=draw(st.integers(1, 2)),
            padding=draw(st.integers(0, 2)),
            dilation=draw(st.integers(1, 2)),
            groups=draw(st.integers(1, 2)),
            padding_mode=draw(st.sampled_from(["zeros", "circular", "reflect"])),
        )
        layers += [conv, *([batch_norm(conv.out_channels)] if draw(st.booleans()) else [])]
        layers += [draw(st.sampled_from(activations())), nn.Conv2d(conv.out_channels, 2, 1)]
        layers.append(nn.AdaptiveAvgPool2d(draw(st.integers(5, 7))))
    pools = [nn.MaxPool2d(2), nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(2, 1, dilation=2), nn.AvgPool2d(3, 1), nn.Identity()]
    layers += [draw(st.sampled_from(pools)), nn.Flatten()]
    features = nn.Sequential(*layers).double().eval()(torch.zeros(1, 2, 8, 8).double()).shape[1]
    return nn.Sequential(*layers, nn.Linear(features, 5), nn.ReLU(), nn.Linear(5, 3)).double().eval()


@pytest.mark.slow
@settings(max_examples=12)
@given(data=st.data())
def test_no_two_inputs_move_the_heads_input_by_more_than_the_bound(data: st.DataObject) -> None:
    model = random_chain(data)
    draw = torch.Generator().manual_seed(0)
    a = torch.randn(32, 2, 8, 8, generator=draw, dtype=torch.float64)
    found = chain(model, a)
    assert isinstance(found, Chain)
    directions = torch.randn(32, 2, 8, 8, generator=draw, dtype=torch.float64)
    directions[::4] = directions[::4].sign()
    directions[1::4] = functional.one_hot(torch.arange(8) * 16, 128).view(8, 2, 8, 8).double()
    directions[2::4] = steepest(model[:-1], a[2::4])
    b = a + directions * torch.logspace(-3, 1, 32, dtype=torch.float64).view(-1, 1, 1, 1)
    with torch.no_grad():
        moved = (model[:-1](b) - model[:-1](a)).flatten(1)
    for norm, order in ORDERS.items():
        bound = math.exp(found.log_lipschitz[norm]) * (b - a).flatten(1).norm(p=order, dim=1)
        assert (moved.norm(p=order, dim=1) <= bound * (1 + 1e-9) + 1e-12).all(), norm


def steepest(features: nn.Module, x: Tensor) -> Tensor:
    """Return the directions in which the features change most, by power iterations over a small distance."""
    u = torch.ones_like(x)
    for _ in range(5):
        u = (0.01 * functional.normalize(u.flatten(1), dim=1)).view_as(x).requires_grad_()
        u = torch.autograd.grad((features(x + u) - features(x)).pow(2).sum(), u)[0]
    return functional.normalize(u.flatten(1), dim=1).view_as(x)


def test_orthogonal_layers_have_the_bound_1_and_it_is_attained() -> None:
    model = nn.Sequential(
        orthogonal(nn.Linear(6, 6).double()), nn.Identity(), orthogonal(nn.Linear(6, 6).double()), nn.Linear(6, 2)
    )
    found = chain(model.double(), torch.rand(2, 6, dtype=torch.float64))
    assert isinstance(found, Chain)
    assert found.log_lipschitz["L2"] == pytest.approx(0, abs=1e-8)
    torch.testing.assert_close(found.head, model[-1].weight)


@pytest.mark.parametrize("dense", [True, False])
def test_a_linear_network_attains_its_bound_in_every_norm(dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With positive weights behind normalisation and batch norm, a constant input moves Linf most, one pixel L1.

    The dense L2 norm is attained, too; that of the larger torus lies a little above it.
    """
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, stride=2, padding=1)
    nn.init.uniform_(conv.weight, 0.1, 1)
    model = nn.Sequential(Normalise((0.1, 0.5), (0.3, 0.7)), conv, batch_norm(3), nn.Flatten(), nn.Linear(48, 2))
    model = model.double().eval()
    x = torch.zeros(1, 2, 8, 8, dtype=torch.float64)
    if not dense:
        monkeypatch.setattr(bounds, "SIDE", 1)
    found = chain(model, x)
    assert isinstance(found, Chain)
    jacobian = torch.autograd.functional.jacobian(model[:-1], x)[0].flatten(1)
    truth = {
        "Linf": jacobian.abs().sum(1).max(),
        "L2": torch.linalg.svdvals(jacobian)[0],
        "L1": jacobian.abs().sum(0).max(),
    }
    for norm in NORMS:
        ratio = math.exp(found.log_lipschitz[norm]) / float(truth[norm])
        assert 1 - 1e-12 <= ratio <= (1.15 if norm == "L2" and not dense else 1 + 1e-8), norm


@pytest.mark.parametrize(
    ("pool", "inputs", "norm", "factor"),
    [
        (nn.MaxPool2d(3, 1, 1), "pixel", "L1", 9),
        (nn.MaxPool2d(3, 1, 1), "pixel", "L2", 3),
        (nn.MaxPool2d((1, 2), 1, dilation=2), "pixel", "L1", 2),
        (nn.MaxPool2d(2), "pixel", "L2", 1),
        (nn.AvgPool2d(2), "constant", "L2", 0.5),
        (nn.AvgPool2d(2), "pixel", "L1", 0.25),
        (nn.AvgPool2d(3, 1, 1), "constant", "Linf", 1),
        (nn.AdaptiveAvgPool2d(1), "constant", "L2", 1 / 8),
    ],
    ids=str,
)
def test_pools_attain_their_bounds(pool: nn.Module, inputs: str, norm: Norm, factor: float) -> None:
    a = torch.zeros(2, 1, 8, 8)
    b = a.clone()
    b[..., 4, 4] = 1
    b = b if inputs == "pixel" else torch.ones_like(a)
    model = nn.Sequential(pool, nn.Flatten(), nn.LazyLinear(2))
    model(a)
    found = chain(model, a)
    assert isinstance(found, Chain)
    moved = pool(b)[0].flatten().norm(p=ORDERS[norm]) / b[0].flatten().norm(p=ORDERS[norm])
    assert math.exp(found.log_lipschitz[norm]) == pytest.approx(factor) == pytest.approx(float(moved))


def test_without_layers_before_the_head_the_bound_is_1() -> None:
    found = chain(nn.Sequential(nn.Flatten(), nn.Linear(8, 3)), torch.rand(2, 2, 2, 2))
    assert isinstance(found, Chain) and found.log_lipschitz == {"Linf": 0, "L2": 0, "L1": 0}


def test_a_layer_of_zeros_makes_the_bound_0() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.zeros_(model[0].weight)
    found = chain(model, torch.rand(1, 4))
    assert isinstance(found, Chain) and set(found.log_lipschitz.values()) == {-math.inf}


@pytest.mark.parametrize("module", activations(), ids=str)
def test_slopes_are_bounded_by_the_constants_and_reach_them(module: nn.Module) -> None:
    x = torch.linspace(-30, 30, 600_001, dtype=torch.float64, requires_grad=True)
    slopes = torch.autograd.grad(module.double()(x).sum(), x)[0].abs()
    bound = SLOPES[type(module)](module)
    assert bound * (1 - 1e-4) <= slopes.max() <= bound


def test_a_matrix_too_large_for_its_singular_values_is_still_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SIDE", 1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 2))
    found = chain(model, torch.rand(1, 30))
    assert isinstance(found, Chain)
    truth = float(torch.linalg.svdvals(model[0].weight.detach())[0])
    assert truth <= math.exp(found.log_lipschitz["L2"]) <= float(model[0].weight.detach().norm()) * (1 + 1e-6)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (SmallCNN(width=2), (1, 28, 28)),
        (MLP(hidden=(8,)), (29,)),
        (LogitsOnly(MLP(hidden=(8,))), (29,)),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4, 2)), (4,)),
    ],
)
def test_networks_that_are_chains(model: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.rand(2, *shape)
    with untouched(model, x):
        assert isinstance(chain(model, x), Chain)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Pieces(nn.Module):
    """Two linear layers and whatever happens between them."""

    def __init__(self, between: Callable[[Tensor, Tensor], Tensor], after: Callable[[Tensor], Tensor] = lambda h: h):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)
        self.between, self.after = between, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.second(self.between(self.first(x), x)))


def _scaled_past_autograd(h: Tensor) -> Tensor:
    h.data.mul_(3)
    return h


class Doubling(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    model[1].register_forward_hook(lambda *given: 2 * given[2])
    return model


def replaced() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    model[1].forward = lambda h: 2 * h
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Pieces(lambda h, x: h + x), "second (Linear) does not get what first (Linear) returns as it is"),
        (Pieces(lambda h, x: h.relu()), "second (Linear) does not get what first (Linear) returns as it is"),
        (Pieces(lambda h, x: h.mul_(3)), "second (Linear) does not get what first (Linear) returns as it is"),
        (Pieces(lambda h, x: h, lambda h: h + 1), "the logits are not what second (Linear) returns as it is"),
        (Pieces(lambda h, x: h, lambda h: h.mul_(2)), "the logits are not what second (Linear) returns as it is"),
        (
            Pieces(lambda h, x: h, _scaled_past_autograd),
            "its layers, one after another, give other logits",
        ),
        (Pieces(lambda h, x: _scaled_past_autograd(h)), "its layers, one after another, give other logits"),
        (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3)), "the effect of 1 (LayerNorm)"),
        (nn.Sequential(nn.Linear(4, 4), Doubling(), nn.Linear(4, 3)), "the effect of 1 (Doubling)"),
        (nn.Sequential(nn.Linear(4, 4), nn.Softplus(threshold=1), nn.Linear(4, 3)), "the effect of 1 (Soft"),
        (hooked(), "the effect of 1 (ReLU)"),
        (replaced(), "the effect of 1 (ReLU)"),
        (nn.Sequential(nn.Linear(4, 3), nn.ReLU()), "its last layer, 1 (ReLU), is not a linear layer"),
        (
            nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)),
            "1 (BatchNorm1d) normalises by the batch",
        ),
        (nn.Sequential(nn.Flatten(0), nn.Linear(8, 3)), "0 (Flatten) does not keep examples apart"),
        (Function(lambda x: x[:, :3]), "its last layer, the Function, is not a linear layer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_chain_is_told(model: nn.Module, reason: str) -> None:
    found = chain(model, torch.rand(3, 4))
    assert isinstance(found, str) and found.startswith(reason)


def test_the_input_may_not_be_changed_on_the_way_in() -> None:
    class Scaled(nn.Module):
        def __init__(self, scale: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.scale, self.linear = scale, nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.scale(x))

    assert isinstance(chain(Scaled(lambda x: x), torch.rand(1, 4)), Chain)
    for scale in (lambda x: 2 * x, lambda x: x.clone().mul_(2)):
        assert chain(Scaled(scale), torch.rand(1, 4)) == "linear (Linear) does not get the input as it is"


def test_residual_networks_are_no_chains() -> None:
    assert isinstance(chain(PreActResNet(width=2, depth=10), torch.rand(1, 3, 16, 16)), str)
