"""Pieces without a gradient: their value bit for bit, the surrogate's gradient, and attacks that get through."""

from collections.abc import Callable

import pytest
import scipy.fft
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad

from support.examples import untouched
from support.toys import QUICK, linear, uniform
from unperturbed.attacks.straight_through import StraightThrough, identity, jpeg_like, reduce_bits
from unperturbed.curvature.products import tangents
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.networks.modes import under_attack
from unperturbed.threat import Threat
from unperturbed.types import Inputs


def images(n: int = 2, side: int = 16, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def in_place(x: Tensor) -> Tensor:
    return x.mul_(7).round_().div_(7)


# The value


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("piece", [reduce_bits(1), reduce_bits(5), jpeg_like(0.2), torch.round, identity, in_place])
@given(seed=st.integers(0, 1000))
def test_the_value_is_the_pieces_bit_for_bit(piece: Callable[[Tensor], Tensor], dtype: torch.dtype, seed: int) -> None:
    x = images(dtype=dtype, seed=seed)
    before = x.clone()
    for asked in (x, x.clone().requires_grad_()):
        value = StraightThrough(piece)(asked)
        assert torch.equal(value, piece(x.clone())) and value.dtype == dtype
        assert torch.equal(asked, before) and value.requires_grad == asked.requires_grad


def test_a_bit_depth_has_its_levels() -> None:
    x = torch.linspace(0, 1, 1001)
    assert reduce_bits(3)(x).unique().tolist() == pytest.approx([k / 7 for k in range(8)])
    assert float((reduce_bits(3)(x) - x).abs().max()) <= 0.5 / 7 + 1e-6
    pixels = torch.arange(256) / 255
    assert torch.equal(reduce_bits(8)(pixels), pixels)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (24, 16), (13, 10), (3, 30)])
@pytest.mark.parametrize("step", [0.05, 0.5, 1.7])
def test_the_block_transform_is_scipys(height: int, width: int, step: float) -> None:
    x = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    padded = nn.functional.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate").numpy()
    for i in range(0, padded.shape[2], 8):
        for j in range(0, padded.shape[3], 8):
            cosines = scipy.fft.dctn(padded[:, :, i : i + 8, j : j + 8], axes=(2, 3), norm="ortho")
            rounded = torch.from_numpy(cosines / step).round().numpy() * step
            padded[:, :, i : i + 8, j : j + 8] = scipy.fft.idctn(rounded, axes=(2, 3), norm="ortho")
    expected = torch.from_numpy(padded)[:, :, :height, :width].clamp(0, 1)
    torch.testing.assert_close(jpeg_like(step)(x), expected)


# The gradient


@pytest.mark.parametrize(("surrogate", "slope"), [(identity, torch.ones_like), (torch.sin, torch.cos)])
def test_the_gradient_is_the_surrogates_at_the_input_and_the_networks_at_the_value(
    surrogate: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor]
) -> None:
    x = uniform(6, 4).double().mul(5).requires_grad_()
    (gradient,) = torch.autograd.grad(StraightThrough(torch.round, surrogate)(x).pow(3).sum(), x)
    assert gradient.dtype == torch.float64
    torch.testing.assert_close(gradient, 3 * x.round() ** 2 * slope(x), rtol=1e-14, atol=0)


def test_a_smooth_piece_as_its_own_surrogate_has_its_own_derivatives() -> None:
    """First and second, by finite differences."""
    wrapped = nn.Sequential(linear(4, 4, seed=1), StraightThrough(torch.tanh, torch.tanh), linear(4, 2)).double()
    x = uniform(3, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(wrapped, (x,)) and torch.autograd.gradgradcheck(wrapped, (x,))


def test_a_second_derivative_is_the_surrogates() -> None:
    """d/dx [2 q(x) s'(x)] with q' read as s': 2 s'^2 + 2 q s''."""
    x = uniform(6, 4).double().mul(3).requires_grad_()
    value = StraightThrough(torch.round, lambda x: x**2 / 2)(x).pow(2).sum()
    (first,) = torch.autograd.grad(value, x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(second, 2 * x**2 + 2 * x.round())


def test_a_piece_may_change_shape_and_precision_if_the_surrogate_does() -> None:
    def halved(x: Tensor) -> Tensor:
        return x[:, :, ::2, ::2].float()

    x = images().requires_grad_()
    wrapped = StraightThrough(halved, lambda x: nn.functional.avg_pool2d(x, 2))
    (gradient,) = torch.autograd.grad(wrapped(x).sum(), x)
    assert gradient.dtype == torch.float64 and torch.equal(gradient, torch.full_like(x, 0.25))


@pytest.mark.slow
def test_forward_mode_is_refused_by_name() -> None:
    """By torch itself, whose versions differ in the type of the error."""
    with tangents(), pytest.raises((NotImplementedError, RuntimeError), match="jvp|forward"):
        dual = forward_ad.make_dual(torch.ones(2, 2), torch.ones(2, 2))  # type: ignore[no-untyped-call]
        StraightThrough(torch.round)(dual)


@pytest.mark.parametrize(("make", "message"), [
    (lambda x: StraightThrough(lambda x: (255 * x).to(torch.uint8))(x), "uint8.*floating-point"),
    (lambda x: StraightThrough(lambda x: x.tolist())(x), "list.*floating-point"),
    (lambda x: StraightThrough(lambda x: x[:, :2])(x).sum().backward(), r"\(3, 4\).*\(3, 2\)"),
    (lambda x: StraightThrough(torch.round, torch.ones_like)(x).sum().backward(), "does not depend"),
    (lambda x: StraightThrough(torch.round, lambda x: nn.Parameter(torch.ones(3, 4)))(x).sum().backward(), "depend"),
    (lambda x: reduce_bits(0), "bits is 0"),
    (lambda x: jpeg_like(0.0), "step is 0"),
    (lambda x: jpeg_like(0.1)(x), r"images.*\(3, 4\)"),
])  # fmt: skip
def test_what_cannot_work_is_told(make: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(uniform(3, 4).requires_grad_())


# In networks


class Dropping(nn.Module):
    """A piece with a mode, a weight and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.scale = nn.Dropout(0.5), nn.Parameter(torch.tensor(7.0))
        self.calls = nn.Buffer(torch.zeros(()))

    def forward(self, x: Inputs) -> Inputs:
        self.calls += 1
        rounded: Inputs = self.dropout((x * self.scale).round() / self.scale)
        return rounded


def test_a_piece_that_is_a_module_is_under_attack_with_the_rest() -> None:
    model = nn.Sequential(linear(6, 6), StraightThrough(Dropping()), linear(6, 2)).train()
    x = uniform(4, 6)
    with untouched(model, x):
        with under_attack(model):
            assert not any(module.training for module in model.modules())
            z = x.clone().requires_grad_()
            assert torch.equal(model(z), model(z))
            (gradient,) = torch.autograd.grad(model(z).sum(), z)
            assert gradient.abs().sum() > 0
    torch.testing.assert_close(gradient, (model[2].weight.sum(0) @ model[0].weight).expand(4, 6))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["in front", "within"])
def test_an_attack_finds_nothing_without_it_and_the_exact_worst_case_with_it(place: str) -> None:
    """A linear network on rounded features: each feature is worst at one end, as rounding keeps the order."""
    x, last, threat, bits = uniform(120, 64, seed=2), linear(64, 2, seed=3), Threat("Linf", 0.04), reduce_bits(3)
    first = nn.Identity() if place == "in front" else nn.Linear(64, 64, bias=False)
    if isinstance(first, nn.Linear):
        with torch.no_grad():
            first.weight.copy_(torch.diag(torch.linspace(0.5, 1.0, 64)))

    def network(piece: nn.Module) -> nn.Module:
        return nn.Sequential(first, piece, last)

    class Bare(nn.Module):
        def forward(self, x: Inputs) -> Inputs:
            return bits(x)

    bare, wrapped = network(Bare()), network(StraightThrough(bits))
    with torch.no_grad():
        assert torch.equal(bare(x), wrapped(x))
        y = bare(x).argmax(1)
        slope = torch.where(y[:, None] == 0, last.weight[1] - last.weight[0], last.weight[0] - last.weight[1])
        truth = bare(threat.maximise_linear(x, slope)).argmax(1) == y
    assert 20 < int(truth.sum()) < 80
    plain, through = (evaluate(model, (x, y), threat, QUICK) for model in (bare, wrapped))
    assert plain.counts["survived"] >= truth.sum() + 20, "random starts alone break few"
    assert [verdict == "survived" for verdict in through.examples["verdict"]] == truth.tolist()
    assert through.unverified == 0
