"""Derivatives against finite differences and full Hessians, and where torch's own forward mode is wrong."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional

import unperturbed
from support.calculus import GivenLoss, Polynomial, gradient_error, hessians, random_matrix, times, weight_gradient
from support.examples import Counted, make_batch, network, noise_for, untouched
from unperturbed.architectures.libraries.base import Adapt, LibraryModel
from unperturbed.architectures.mlp import MLP
from unperturbed.architectures.normalise import Normalise
from unperturbed.architectures.preact_resnet import PreActResNet
from unperturbed.architectures.small_cnn import SmallCNN
from unperturbed.architectures.wide_resnet import WideResNet
from unperturbed.curvature import products
from unperturbed.curvature.products import (
    Slope,
    central_difference,
    central_slope,
    cross_entropy_with,
    dot,
    forward_difference,
    forward_slope,
    gradient_with_graph,
    hessian_product,
    input_gradient,
    not_proven,
    reverse_slope,
    slope,
    three_point_slope,
)
from unperturbed.losses import cross_entropy
from unperturbed.methods.awp import At, layers
from unperturbed.methods.llr import LLR
from unperturbed.networks.inputs import FirstLayer
from unperturbed.networks.logits import Copied, LogitsOnly, OneLogit
from unperturbed.networks.modes import clean_batch_stats
from unperturbed.networks.precision import InPrecision
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Inputs

Y = torch.arange(5) % 3


def drawn(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn((5, *shape), generator=torch.Generator().manual_seed(seed), dtype=dtype)


def around(*middle: nn.Module, shape: tuple[int, ...]) -> nn.Sequential:
    """Return a network with weights before and behind these modules, which get inputs of this shape."""
    d = torch.Size(shape).numel()
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        layers = [nn.Flatten(), nn.Linear(d, d), nn.Unflatten(1, shape), *middle, nn.Flatten()]
        size = nn.Sequential(*layers)(torch.rand(5, *shape)).shape[1]
        made = nn.Sequential(*layers, nn.Linear(size, 6), nn.Tanh(), nn.Linear(6, 3)).double()
        for weight in made.parameters():
            weight.data += 0.3 * torch.randn_like(weight)
        for buffer in made.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
    return made


def measured(form: Slope, model: nn.Module, x: Inputs, v: Inputs, targets: Tensor = Y) -> Tensor:
    """Return a number that depends on every example's loss and slope, in another way on each."""
    with clean_batch_stats(model):
        value, found = form(model, x, v, cross_entropy_with(targets))
    share = torch.linspace(0.5, 1.5, len(x), dtype=x.dtype)
    return (share * (value + 3 * found + found.square())).sum()


# Forward mode: each module that it is used for

PROVEN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Linear": (lambda: nn.Linear(6, 4), (6,)),
    "Linear without bias": (lambda: nn.Linear(3, 2, bias=False), (2, 3)),
    "Conv1d": (lambda: nn.Conv1d(2, 3, 3, padding=1, stride=2), (2, 5)),
    "Conv2d": (lambda: nn.Conv2d(2, 3, 3, padding="same"), (2, 4, 4)),
    "Conv2d of groups": (lambda: nn.Conv2d(4, 4, 2, groups=2, dilation=2, bias=False), (4, 3, 3)),
    "Conv2d round": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 3, 3)),
    "Conv2d mirrored": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 3, 3)),
    "Conv3d": (lambda: nn.Conv3d(2, 2, 2), (2, 3, 2, 2)),
    "Identity": (nn.Identity, (6,)),
    "Flatten": (nn.Flatten, (2, 3)),
    "Unflatten": (lambda: nn.Unflatten(1, (2, 3)), (6,)),
    "Sequential": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh()), (6,)),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(6), (6,)),
    "BatchNorm1d of sequences": (lambda: nn.BatchNorm1d(2, affine=False), (2, 4)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(2), (2, 3, 3)),
    "BatchNorm2d without averages": (lambda: nn.BatchNorm2d(2, track_running_stats=False), (2, 3, 3)),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(2, momentum=None), (2, 2, 2, 2)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), (4, 3, 3)),
    "GroupNorm of features": (lambda: nn.GroupNorm(3, 6), (6,)),
    "GroupNorm without weights": (lambda: nn.GroupNorm(1, 4, affine=False), (4, 3)),
    "ReLU": (nn.ReLU, (6,)),
    "ReLU in place": (lambda: nn.ReLU(inplace=True), (6,)),
    "LeakyReLU": (lambda: nn.LeakyReLU(0.2), (6,)),
    "LeakyReLU in place": (lambda: nn.LeakyReLU(0.2, inplace=True), (6,)),
    "SiLU": (nn.SiLU, (6,)),
    "SiLU in place": (lambda: nn.SiLU(inplace=True), (6,)),
    "GELU": (nn.GELU, (6,)),
    "GELU by tanh": (lambda: nn.GELU("tanh"), (6,)),
    "Softplus": (nn.Softplus, (6,)),
    "Softplus, sharp": (lambda: nn.Softplus(beta=10, threshold=5), (6,)),
    "Tanh": (nn.Tanh, (6,)),
    "Sigmoid": (nn.Sigmoid, (6,)),
    "ELU": (lambda: nn.ELU(0.7), (6,)),
    "ELU in place": (lambda: nn.ELU(inplace=True), (6,)),
    "MaxPool2d": (lambda: nn.MaxPool2d(2), (2, 4, 4)),
    "MaxPool2d that overlaps": (lambda: nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True), (2, 4, 4)),
    "AvgPool2d": (lambda: nn.AvgPool2d(2), (2, 4, 4)),
    "AvgPool2d that overlaps": (lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), (2, 4, 4)),
    "AdaptiveAvgPool2d": (lambda: nn.AdaptiveAvgPool2d((2, 1)), (2, 4, 3)),
}
"""Instances of every class in `products._PROVEN`, with the shape of what they get."""

IMAGE = (2, 4, 4)


class Moved(nn.Module):
    """A network called at other weights, which follow its own."""

    forward_mode: ClassVar[bool] = True

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.at = At(inner, {})

    def forward(self, x: Inputs) -> Tensor:
        self.at.tensors = {path: 1.5 * weight for path, weight in layers(self.at.network).items()}
        logits: Tensor = self.at(x)
        return logits


OWN: dict[str, Callable[[], nn.Module]] = {
    "SmallCNN": lambda: SmallCNN(IMAGE, 3, (0.4, 0.5), (0.2, 0.3), width=2, activation="silu"),
    "MLP": lambda: MLP(IMAGE, 3, hidden=(8, 6), activation="softplus"),
    "MLP with kinks": lambda: MLP(IMAGE, 3, hidden=(8,), activation="relu"),
    "PreActResNet": lambda: PreActResNet(IMAGE, 3, depth=10, width=2, activation="silu"),
    "WideResNet": lambda: WideResNet(IMAGE, 3, depth=10, width=1, activation="silu"),
    "InPrecision": lambda: InPrecision(SmallCNN(IMAGE, 3, width=2, activation="silu")),
    "LogitsOnly": lambda: LogitsOnly(MLP(IMAGE, 3, hidden=(8,), activation="silu")),
    "FirstLayer": lambda: FirstLayer(MLP(IMAGE, 3, hidden=(8,), activation="silu"), 2.0, (0.4, 0.5), (0.2, 0.3)),
    "Copied": lambda: Copied(MLP(IMAGE, 3, hidden=(8,), activation="silu")),
    "OneLogit": lambda: nn.Sequential(OneLogit(MLP(IMAGE, 1, hidden=(8,), activation="silu")), nn.Linear(2, 3)),
    "LibraryModel": lambda: LibraryModel(
        SmallCNN((2, 6, 6), 3, width=2, activation="silu"), Adapt(2, (6, 6)), Normalise((0.4,), (0.2,)), "a:b", {}
    ),
    "at other weights": lambda: Moved(SmallCNN(IMAGE, 3, width=4, activation="silu")),
}
"""Our own networks and wrappers; each class that says `forward_mode = True` is in one of them."""


def own(kind: str) -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        made = OWN[kind]().double()
        for name, buffer in made.named_buffers():
            if "running" in name:
                buffer.uniform_(0.5, 1.5)
    return made


def agree(model: nn.Module, shape: tuple[int, ...]) -> None:
    """Assert that forward mode gives reverse mode's slopes and weight gradient, and finite differences'."""
    x, v = drawn(shape, 2), drawn(shape, 3)
    forward, reverse = measured(forward_slope, model, x, v), measured(reverse_slope, model, x, v)
    torch.testing.assert_close(forward, reverse, rtol=1e-10, atol=1e-10)
    mine, theirs = weight_gradient(forward, model), weight_gradient(reverse, model)
    assert (mine - theirs).norm() <= 1e-9 * theirs.norm()
    assert gradient_error(lambda: measured(forward_slope, model, x, v), model) <= 1e-6


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", PROVEN)
def test_forward_mode_is_right_on_each_proven_module(name: str, mode: str) -> None:
    """Values, and gradients to the weights before, in and behind the module; batch norm's statistics held or learnt."""
    make, shape = PROVEN[name]
    model = around(make(), shape=shape).train(mode == "train")
    assert not_proven(model) is None
    agree(model, shape)


def test_every_proven_module_has_been_proven() -> None:
    proven = {type(module) for make, shape in PROVEN.values() for module in around(make(), shape=shape).modules()}
    assert set(products._PROVEN) <= proven


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("kind", OWN)
def test_forward_mode_is_right_on_our_own_networks(kind: str, mode: str) -> None:
    agree(own(kind).train(mode == "train"), IMAGE)


@pytest.mark.parametrize("kind", OWN)
def test_our_own_networks_are_proven(kind: str) -> None:
    assert not_proven(own(kind)) is None


def test_every_class_that_vouches_for_itself_has_been_proven() -> None:
    """And no class inherits the word of another: a subclass may have another forward."""
    folder = Path(str(unperturbed.__file__)).parent
    vouching: set[type] = set()
    for file in folder.rglob("*.py"):
        if "forward_mode: ClassVar" in file.read_text():
            module = importlib.import_module(".".join(("unperturbed", *file.relative_to(folder).with_suffix("").parts)))
            vouching |= {kind for kind in vars(module).values() if "forward_mode" in getattr(kind, "__dict__", {})}
    assert len(vouching) >= 9
    assert vouching <= {type(module) for kind in OWN for module in own(kind).modules()}


def test_slopes_go_through_fabrics_wrapper_in_forward_mode() -> None:
    model = InPrecision(own("SmallCNN"))
    wrapped = Fabric(accelerator="cpu", devices=1, precision="64-true").setup_module(model)
    assert wrapped is not model and not_proven(wrapped) is None
    x, v = drawn(IMAGE, 2), drawn(IMAGE, 3)
    torch.testing.assert_close(measured(slope, wrapped, x, v), measured(reverse_slope, model, x, v))


# Where it is wrong


def total_slope(form: Slope, model: nn.Module, x: Inputs, v: Inputs) -> Tensor:
    """Return <gradient of the summed loss, v>: the same number in every form, whatever couples the examples."""
    return form(model, x, v, cross_entropy_with(Y))[1].sum()


UNPROVEN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "LayerNorm": (lambda: nn.LayerNorm(6), (6,)),
    "InstanceNorm": (lambda: nn.InstanceNorm1d(2, affine=True), (2, 5)),
    "BatchNorm by its batch": (lambda: nn.BatchNorm1d(6), (6,)),
}


@pytest.mark.parametrize("name", UNPROVEN)
def test_torchs_forward_mode_has_a_wrong_weight_gradient_here_and_ours_is_not_used(name: str) -> None:
    """The slope itself is right and only its gradient is not, without a sign of it. If this fails, torch is mended."""
    make, shape = UNPROVEN[name]
    model, x, v = around(make(), shape=shape), drawn(shape, 2), drawn(shape, 3)
    forward, reverse = total_slope(forward_slope, model, x, v), total_slope(reverse_slope, model, x, v)
    torch.testing.assert_close(forward, reverse)
    error = gradient_error(lambda: total_slope(forward_slope, model, x, v), model)
    assert error > 1e-3, f"torch's forward mode has become right on {name}: it may join the proven ones"
    assert gradient_error(lambda: measured(slope, model, x, v), model) <= 1e-6
    assert (not_proven(model) is None) == (name == "BatchNorm by its batch")


@pytest.mark.parametrize("name", UNPROVEN)
def test_llr_is_right_there(name: str) -> None:
    make, shape = UNPROVEN[name]
    model, x = around(make(), shape=shape), drawn(shape, 2)
    batch, threat = Batch(x, Y, torch.arange(5)), Threat("L2", 0.5, None)
    inner = Inner(x + 0.1 * drawn(shape, 3))

    def loss() -> Tensor:
        terms = LLR().loss(model, batch, inner, threat, noise_for(batch))
        return torch.stack(list(terms.values())).sum()

    assert gradient_error(loss, model) <= 1e-6


def test_what_is_not_proven_is_named() -> None:
    class Vouching(nn.Sequential):
        forward_mode = True

    class Heir(Vouching):
        pass

    class Narrow(nn.Linear):
        pass

    for unknown in (nn.LayerNorm(3), nn.Dropout(0.5), nn.Softmax(1), Narrow(3, 3), Heir(nn.Tanh())):
        assert not_proven(nn.Sequential(nn.Linear(3, 3), unknown)) == f"1 is a {type(unknown).__name__}"
    assert not_proven(Narrow(3, 3)) == "the network is a Narrow"
    assert not_proven(Vouching(nn.Linear(3, 3))) is None
    assert not_proven(Vouching(nn.LayerNorm(3))) == "0 is a LayerNorm", "its parts are still looked at"


@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
def test_networks_with_hooks_are_not_proven(kind: str) -> None:
    """A hook may do anything."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    handle = getattr(model[1], kind)(lambda *given: None)
    assert not_proven(model) == "1 has forward hooks"
    handle.remove()
    assert not_proven(model) is None


def test_slope_takes_forward_mode_where_it_is_proven_and_reverse_elsewhere() -> None:
    """Seen by what passes the network: a tangent counts as a second forward, a gradient as a backward to the inputs."""
    for module, passes in ((nn.Softplus(), (10, 0)), (nn.LayerNorm(6), (5, 5))):
        model = Counted(around(module, shape=(6,)))
        total_slope(slope, model, drawn((6,), 2), drawn((6,), 3))
        assert (model.forwards, model.to_inputs) == passes


# The pieces


@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_with_is_the_cross_entropy(soft: bool) -> None:
    """Of labels and of distributions, finite with gradients where logits lie far apart."""
    targets = functional.one_hot(Y, 3).double() * 0.8 + 0.2 / 3 if soft else Y
    for scale, dtype in ((1.0, torch.float64), (300.0, torch.float32)):
        logits = (scale * drawn((3,), 0, dtype)).requires_grad_()
        wanted = targets.to(dtype) if soft else targets
        mine, theirs = cross_entropy_with(wanted)(logits), cross_entropy(logits, wanted)
        torch.testing.assert_close(mine, theirs)
        for a, b in zip(*(torch.autograd.grad(loss.sum(), logits) for loss in (mine, theirs)), strict=True):
            torch.testing.assert_close(a, b)


def test_distributions_as_targets_have_the_right_slope() -> None:
    model, x, v = around(nn.SiLU(), shape=(6,)), drawn((6,), 2), drawn((6,), 3)
    soft = functional.one_hot(Y, 3).double() * 0.8 + 0.2 / 3
    for form in (forward_slope, reverse_slope):
        assert gradient_error(lambda form=form: measured(form, model, x, v, soft), model) <= 1e-6  # type: ignore[misc]
    loss = cross_entropy_with(soft)
    torch.testing.assert_close(forward_slope(model, x, v, loss)[1], dot(input_gradient(model, x, loss)[1], v))


def test_input_gradients_are_each_examples_own_and_touch_nothing() -> None:
    """Not a mean's: no 1/n in them. The tape is not needed outside, and the weights get nothing."""
    model, batch = network("dropout", torch.float64).eval(), make_batch(5, torch.float64)
    with untouched(model, batch.x), torch.no_grad():
        value, gradient = input_gradient(model, batch.x, cross_entropy_with(batch.y))
    assert not value.requires_grad and not gradient.requires_grad
    for k in range(5):
        one = batch.x[k : k + 1].clone().requires_grad_()
        loss = functional.cross_entropy(model(one), batch.y[k : k + 1])
        torch.testing.assert_close(value[k], loss.detach())
        torch.testing.assert_close(gradient[k : k + 1], torch.autograd.grad(loss, one)[0])
    again, with_graph = gradient_with_graph(model, batch.x, cross_entropy_with(batch.y))
    assert again.requires_grad and with_graph.requires_grad
    torch.testing.assert_close(with_graph.detach(), gradient)


class Attention(nn.Module):
    """Attention by the fused kernels, which have no second derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.inside(x).chunk(3, dim=-1)
        out: Tensor = functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])
        return out[:, 0]


def test_attention_has_second_derivatives() -> None:
    model, x, v = around(Attention(), shape=(3, 4)), drawn((3, 4), 2), drawn((3, 4), 3)
    assert gradient_error(lambda: measured(slope, model, x, v), model) <= 1e-6
    loss = cross_entropy_with(Y)
    torch.testing.assert_close(hessian_product(model, x, v, loss), times(hessians_of_attention(model, x), v))


def hessians_of_attention(model: nn.Module, x: Inputs) -> Tensor:
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return hessians(model, x, cross_entropy_with(Y))


@pytest.mark.parametrize("norm", [False, True])
def test_one_forward_gives_the_training_loss_and_each_examples_own_gradient(norm: bool) -> None:
    """And both, with batch norm's statistics in them, reach the weights."""
    model = Counted(network("norm" if norm else "plain", torch.float64))
    batch = make_batch(5, torch.float64)
    with clean_batch_stats(model):
        value, gradient = gradient_with_graph(model, batch.x, cross_entropy_with(batch.y))
        assert model.forwards == 5
        _, replayed = gradient_with_graph(model, batch.x, cross_entropy_with(batch.y))
    torch.testing.assert_close(value, functional.cross_entropy(model(batch.x), batch.y, reduction="none"))
    torch.testing.assert_close(gradient, replayed)
    for mine, theirs in (
        (gradient, replayed),
        (value, functional.cross_entropy(model(batch.x), batch.y, reduction="none")),
    ):
        found, expected = (
            torch.autograd.grad(each.square().mean(), list(model.parameters()), retain_graph=True)
            for each in (mine, theirs)
        )
        torch.testing.assert_close(found, expected)


def test_gradients_inside_held_statistics_are_each_examples_own() -> None:
    """Through ordinary batch norm, an example's loss would depend on the other inputs as well."""
    model, batch = network("norm", torch.float64), make_batch(5, torch.float64)
    leaf = batch.x.clone().requires_grad_()
    with clean_batch_stats(model):
        value = functional.cross_entropy(model(leaf), batch.y, reduction="none")
        assert torch.autograd.grad(value[0], leaf, retain_graph=True)[0][1:].any(), "the ordinary forward couples them"
        replayed = functional.cross_entropy(model(batch.x.clone().requires_grad_()), batch.y, reduction="none")
        torch.testing.assert_close(replayed, value)
        _, gradient = gradient_with_graph(model, batch.x, cross_entropy_with(batch.y))
        for k in range(5):
            one = batch.x[k : k + 1].clone().requires_grad_()
            loss = functional.cross_entropy(model(one), batch.y[k : k + 1])
            torch.testing.assert_close(gradient[k : k + 1], torch.autograd.grad(loss, one)[0])


def test_central_slopes_err_by_the_square_of_the_step() -> None:
    """Losses and slopes."""
    model, x, v = around(nn.Tanh(), shape=(6,)), drawn((6,), 2), 0.3 * drawn((6,), 3)
    loss = cross_entropy_with(Y)
    exact = torch.stack(reverse_slope(model, x, v, loss))
    found = [torch.stack(central_slope(model, x, v, loss, h)) for h in (0.2, 0.1, 0.05)]
    first, second, third = [(pair - exact).norm(dim=1).detach() for pair in found]
    torch.testing.assert_close(first / second, torch.full_like(first, 4), rtol=0.1, atol=0)
    torch.testing.assert_close(second / third, torch.full_like(first, 4), rtol=0.03, atol=0)


@pytest.mark.parametrize("cubic", [0.0, 1.0])
def test_slopes_by_three_points_are_exact_on_quadratics_and_err_by_their_order_on_cubics(cubic: float) -> None:
    """By -h/6 times the third derivative along v."""
    x, v = drawn((6,), 2), drawn((6,), 3)
    function = Polynomial(drawn((6,), 4)[0], random_matrix(6), cubic)
    third = (function.gradient(x + v) - 2 * function.gradient(x) + function.gradient(x - v)).mul(v).sum(dim=1)
    for h in (0.5, 0.1, 0.01):
        found = three_point_slope(function(x), function(x + h * v), function(x + v), h)
        torch.testing.assert_close(found, dot(function.gradient(x), v) - h / 6 * third, rtol=1e-9, atol=1e-9)


def test_hessian_products_are_those_of_the_full_hessian() -> None:
    model, batch = network("dropout", torch.float64).eval(), make_batch(4, torch.float64)
    loss, v = cross_entropy_with(batch.y), torch.randn(batch.x.shape, dtype=torch.float64)
    with untouched(model, batch.x, v), torch.no_grad():
        product = hessian_product(model, batch.x, v, loss)
    assert not product.requires_grad
    torch.testing.assert_close(product, times(hessians(model, batch.x, loss), v), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("frozen", [True, False])
def test_the_hessian_is_zero_where_the_loss_is_linear(frozen: bool) -> None:
    """Where autograd sees no dependence at all, and where it sees one on the weights alone."""
    model = nn.Linear(6, 3, dtype=torch.float64).requires_grad_(not frozen)
    product = hessian_product(model, drawn((6,), 0), drawn((6,), 1), lambda logits: logits[:, 0])
    assert torch.equal(product, torch.zeros_like(product))


@pytest.mark.parametrize("cubic", [0.0, 1.0])
def test_differences_of_gradients_are_exact_on_quadratics_and_err_by_their_order_on_cubics(cubic: float) -> None:
    """The Hessian changes by the same along v everywhere, so the forward difference errs by h/2 of that change."""
    matrix, x, v = random_matrix(6), drawn((6,), 2), drawn((6,), 3)
    function = Polynomial(drawn((6,), 4)[0], matrix, cubic)
    curved = v @ matrix + cubic * x * v
    for h in (0.5, 0.25):
        ahead = forward_difference(function.gradient, x, function.gradient(x), v, h)
        torch.testing.assert_close(ahead, curved + h / 2 * cubic * v.square())
        torch.testing.assert_close(central_difference(function.gradient, x, v, h), curved)


def test_a_network_with_a_given_loss_has_it() -> None:
    """Of the tests' own tools: cross-entropy, gradient and Hessian are the polynomial's."""
    function = Polynomial(drawn((6,), 4)[0], random_matrix(6), 0.5)
    model, x, loss = GivenLoss(function), 0.3 * drawn((6,), 2), cross_entropy_with(torch.zeros(5, dtype=torch.int64))
    value, gradient = input_gradient(model, x, loss)
    torch.testing.assert_close(value, function(x).detach())
    torch.testing.assert_close(gradient, function.gradient(x))
    expected = function.hessian + 0.5 * torch.diag_embed(x)
    torch.testing.assert_close(hessians(model, x, loss), expected.detach())


@pytest.mark.long
@pytest.mark.slow
def test_forward_mode_needs_no_warning_of_torch_about_its_rules() -> None:
    """A new process, in which warnings are errors: torch loads its rules for tangents at the first one."""
    code = (
        "import torch; from unperturbed.curvature.products import forward_slope; x = torch.ones(2, 3); "
        "print(forward_slope(torch.nn.Linear(3, 2), x, x, lambda logits: logits.sum(1))[1].shape)"
    )
    call = [sys.executable, "-W", "error::FutureWarning", "-W", "error::DeprecationWarning:torch", "-c", code]
    there = os.environ | {"PYTHONPATH": str(Path(products.__file__).parents[2])}
    done = subprocess.run(call, env=there, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "torch.Size([2])", done.stderr
