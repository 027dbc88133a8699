"""Directions and singular values: against dense Jacobians, distributions known in closed form, and laws."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad

from support.architectures import BUILDERS, built, images
from support.examples import untouched
from support.shares import first
from unperturbed.anatomy.blocks import blocks, features
from unperturbed.attacks.straight_through import StraightThrough
from unperturbed.examinations.diagnostics import directions as module
from unperturbed.examinations.diagnostics.directions import Tangents, directions, input_jacobian, largest_singular_value
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Distribution, Finding, Line
from unperturbed.networks.modes import under_attack
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs

SPREAD = "directional spread"
LARGEST, SMALLEST = (f"{which} singular value of the input Jacobian" for which in ("largest", "smallest"))
RELATIVE = "spread of the input Jacobian's singular values"
DISTRIBUTIONS = (SPREAD, LARGEST, SMALLEST, RELATIVE)


def subject(model: nn.Module, x: Inputs, ids: Tensor | None = None, batch_size: int = 128, seed: int = 0) -> Subject:
    ids = torch.arange(len(x)) if ids is None else ids
    return Subject(
        "a model", model, Batch(x, torch.zeros_like(ids), ids), None, Threat("Linf", 0.1), 3, seed, batch_size
    )


def line(finding: Finding, name: str) -> Line:
    (found,) = [line for line in finding.lines if line.name == name]
    return found


def distribution(finding: Finding, name: str) -> Distribution:
    (found,) = [each for each in finding.distributions if each.name == name]
    return found


def values(finding: Finding, name: str) -> dict[int, float]:
    found = distribution(finding, name)
    return dict(zip(found.ids, found.values, strict=True))


def linear(matrix: Tensor) -> nn.Sequential:
    layer = nn.Linear(*reversed(matrix.shape)).to(matrix.dtype)
    with torch.no_grad():
        layer.weight.copy_(matrix)
    return nn.Sequential(nn.Flatten(), layer)


def flat(n: int = 3, d: int = 5) -> Inputs:
    return torch.rand(n, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two_layers(d: int = 5, hidden: int = 8, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(d, hidden), activation(), nn.Linear(hidden, 3)).double()


def dense(model: nn.Module, x: Inputs) -> list[Tensor]:
    """Return every block's Jacobian at one example, from torch's own function."""
    found, _ = blocks(model, x)
    with under_attack(model):
        rows: Any = torch.autograd.functional.jacobian(lambda z: tuple(f[0] for f in features(model, z, found)), x)
    return [row.flatten(1) for row in rows]


# --- directions -------------------------------------------------------------------------------------------------------


def test_a_square_orthogonal_map_treats_all_directions_alike() -> None:
    q, _ = torch.linalg.qr(normal(5, 5))
    finding = directions(subject(linear(3 * q), flat()))
    assert all(value < 1e-12 for value in values(finding, SPREAD).values())
    assert line(finding, "directional spread of equal singular values").y == (0.0,)
    assert line(finding, "root mean square of the Jacobian's singular values").y == pytest.approx((3.0,))
    for name, expected in {LARGEST: 3.0, SMALLEST: 3.0, RELATIVE: 0.0}.items():
        assert list(values(finding, name).values()) == pytest.approx([expected] * 3, abs=1e-7)


def test_a_diagonal_map_has_the_spread_that_quadrature_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """In two dimensions u = (cos t, sin t): ||D u|| = sqrt(a^2 cos^2 t + b^2 sin^2 t), t uniform."""
    monkeypatch.setattr(module, "DIRECTIONS", 20_000)
    a, b = 3.0, 0.5
    t = (torch.arange(100_000, dtype=torch.float64) + 0.5) * 2 * math.pi / 100_000
    length = (a**2 * t.cos() ** 2 + b**2 * t.sin() ** 2).sqrt()
    expected = float(length.std(correction=0) / length.mean())
    finding = directions(
        subject(linear(torch.diag(torch.tensor([a, b], dtype=torch.float64))), flat(2, 2), batch_size=4096)
    )
    assert list(values(finding, SPREAD).values()) == pytest.approx([expected] * 2, rel=0.02)
    (rms,) = line(finding, "root mean square of the Jacobian's singular values").y
    assert rms == pytest.approx(math.sqrt((a**2 + b**2) / 2), rel=0.02)


@pytest.mark.parametrize(("outputs", "inputs"), [(1, 2), (3, 10), (10, 784), (7, 8)])
def test_the_spread_of_equal_singular_values_is_that_of_a_projection(outputs: int, inputs: int) -> None:
    model = linear(torch.eye(outputs, inputs))
    (floor,) = line(directions(subject(model, torch.rand(1, inputs))), "directional spread of equal singular values").y
    u = Noise.of(0, torch.arange(20_000)).normal((inputs,))
    length = (u / u.norm(dim=1, keepdim=True))[:, :outputs].norm(dim=1)
    assert floor == pytest.approx(float(length.std() / length.mean()), rel=0.03)


def test_the_spread_is_that_of_the_directions_drawn_by_id() -> None:
    model, x, ids = two_layers(), flat(), torch.tensor([4, 9, 2])
    finding = directions(subject(model, x, ids))
    for row, example in enumerate(ids.tolist()):
        noise = Noise.of(0, ids[row : row + 1]).fold(1)
        u = noise.normal((64, 5), torch.float64)[0]
        u = u / u.norm(dim=1, keepdim=True)
        spreads = []
        for matrix in dense(model, x[row : row + 1]):
            length = (u @ matrix.T).norm(dim=1)
            spreads.append(float(length.std(correction=0) / length.mean()))
        assert values(finding, SPREAD)[example] == pytest.approx(sum(spreads) / 2, rel=1e-9)


def test_at_most_64_examples_are_drawn_by_id_whatever_their_order() -> None:
    x, ids = flat(200), torch.arange(200)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    model = two_layers(activation=nn.Tanh)
    a, b = (directions(subject(model, x[k], ids[k])) for k in (ids, order))
    assert len(a.distributions[0].ids) == 64 and max(a.distributions[0].ids) > 100
    for name in DISTRIBUTIONS:
        assert values(a, name) == pytest.approx(values(b, name), rel=1e-9)
    assert set(values(a, SPREAD)) != set(values(directions(subject(model, x, ids, seed=1)), SPREAD))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchvision", "sequence first", "grouped"])
def test_neither_places_nor_order_matter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DIRECTIONS", 8)
    monkeypatch.setattr(module, "KRYLOV_STEPS", 6)
    model, x, ids = built(name, torch.float64), images(3, torch.float64), torch.tensor([4, 9, 2])
    one = directions(subject(model, x, ids))
    order = torch.tensor([2, 0, 1])
    other = directions(subject(model, x[order], ids[order], batch_size=6))
    for each in DISTRIBUTIONS:
        assert values(other, each) == pytest.approx(values(one, each), rel=1e-6)
    for a, b in zip(one.lines, other.lines, strict=True):
        assert a.y == pytest.approx(b.y, rel=1e-6)


# --- singular values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_singular_values_of_a_two_layer_network_are_the_dense_ones(
    dtype: torch.dtype, activation: Callable[[], nn.Module]
) -> None:
    model, x = two_layers(activation=activation), flat()
    jacobians = [dense(model, x[k : k + 1]) for k in range(3)]
    finding = directions(subject(model.to(dtype), x.to(dtype)))
    exact = torch.stack([torch.linalg.svdvals(j[-1]) for j in jacobians])
    assert list(values(finding, LARGEST).values()) == pytest.approx(by_id(finding, exact[:, 0]), rel=1e-5)
    assert list(values(finding, SMALLEST).values()) == pytest.approx(by_id(finding, exact[:, -1]), rel=1e-5, abs=1e-7)
    relative = exact.std(dim=1, correction=0) / exact.mean(dim=1)
    assert list(values(finding, RELATIVE).values()) == pytest.approx(by_id(finding, relative), rel=1e-5)
    largest = torch.stack([torch.stack([torch.linalg.matrix_norm(m, 2) for m in j]) for j in jacobians])
    found = line(finding, "largest singular value of the Jacobian")
    assert found.x == ("0", "logits")
    assert found.y == pytest.approx(largest.quantile(0.5, dim=0).tolist(), rel=1e-5)
    assert found.high == pytest.approx(largest.quantile(0.75, dim=0).tolist(), rel=1e-5)


def by_id(finding: Finding, exact: Tensor) -> list[float]:
    return [float(exact[k]) for k in finding.distributions[0].ids]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", first(2, BUILDERS))
def test_every_style_of_network_goes_through_and_agrees_with_dense_jacobians(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DIRECTIONS", 8)
    model, x = built(name, torch.float64), images(1, torch.float64)
    with untouched(model):
        finding = directions(subject(model, x))
    assert finding.notes == ("J u is computed in forward mode, which agreed with differences.",)
    jacobians = dense(model, x)
    exact = [float(torch.linalg.matrix_norm(matrix, 2)) for matrix in jacobians]
    largest = line(finding, "largest singular value of the Jacobian")
    assert largest.y == pytest.approx(exact, rel=2e-2)
    assert all(found <= true * (1 + 1e-9) for found, true in zip(largest.y, exact, strict=True))
    smallest = float(torch.linalg.svdvals(jacobians[-1])[-1])
    assert values(finding, SMALLEST) == pytest.approx({0: smallest}, rel=1e-6)
    assert all(0 < value < 2 for value in values(finding, SPREAD).values())


@pytest.mark.slow
@given(n=st.integers(1, 3), m=st.integers(1, 60), d=st.integers(1, 60), seed=st.integers(0, 1000))
def test_the_largest_singular_value_is_approached_from_below(n: int, m: int, d: int, seed: int) -> None:
    matrix = normal(n, m, d, seed=seed)
    maps = (lambda v: torch.einsum("nmd,nd->nm", matrix, v), lambda w: torch.einsum("nmd,nm->nd", matrix, w))
    found = largest_singular_value(*maps, normal(n, d, seed=seed + 1), 20)
    exact = torch.linalg.matrix_norm(matrix, 2)
    assert bool((found <= exact * (1 + 1e-9)).all())
    torch.testing.assert_close(found, exact, rtol=1e-6 if min(m, d) <= 15 else 0.05, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_exact_where_the_krylov_space_is_exhausted(dtype: torch.dtype) -> None:
    """Matrices of rank 1, of one singular value, and of zeros: after a step or two only rounding is left."""
    q, _ = torch.linalg.qr(normal(6, 6))
    kinds = (normal(6, 1) @ normal(1, 6, seed=1), 3 * q, torch.zeros(6, 6))
    matrix = torch.stack([kind.to(dtype) for kind in kinds])
    maps = (lambda v: torch.einsum("nmd,nd->nm", matrix, v), lambda w: torch.einsum("nmd,nm->nd", matrix, w))
    found = largest_singular_value(*maps, normal(3, 6).to(dtype), 20)
    exact = torch.linalg.matrix_norm(matrix.double(), 2)
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-7)


def test_the_input_jacobian_is_the_dense_one_and_leaves_no_gradients() -> None:
    model, x = built("torchvision", torch.float64).eval(), images(2, torch.float64)
    found = input_jacobian(model, x)
    for k in range(2):
        torch.testing.assert_close(found[k], dense(model, x[k : k + 1])[-1])
    assert all(weight.grad is None for weight in model.parameters()) and not x.requires_grad


def test_too_much_work_is_done_on_four_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = two_layers(activation=nn.Tanh), flat(9)
    all_ = directions(subject(model, x))
    monkeypatch.setattr(module, "WORK", 1.0)
    some = directions(subject(model, x))
    assert [len(each.values) for each in some.distributions] == [9, 4, 4, 4]
    assert values(some, LARGEST) == pytest.approx({id: values(all_, LARGEST)[id] for id in values(some, LARGEST)})
    assert "Input Jacobians: of 4 examples only, because of their cost." in some.notes


# --- which derivative -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        *(nn.LayerNorm(6), nn.LayerNorm((2, 3)), nn.GroupNorm(2, 2), nn.InstanceNorm1d(2), nn.BatchNorm1d(2)),
        *(nn.GELU(), nn.Softmax(-1), nn.MaxPool1d(2), nn.LocalResponseNorm(2), nn.LSTM(3, 4, batch_first=True)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_tangents_through_a_layer_are_its_differences(layer: nn.Module) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.flat = layer, not isinstance(layer, nn.LayerNorm) or len(layer.normalized_shape) > 1

        def forward(self, x: Tensor) -> Tensor:
            h = self.layer(x.view(-1, 2, 3) if self.flat else x)
            out: Tensor = (h[0] if isinstance(h, tuple) else h).flatten(1)
            return out

    model = Net().double().eval()
    found, _ = blocks(model, normal(3, 6))
    x, u = normal(3, 6), normal(3, 6, seed=1)
    with under_attack(model):
        ahead, behind = (Tangents(model, torch.float64, step)(x, u, found) for step in (None, 1e-5))
    for a, b in zip(ahead, behind, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
        assert a.abs().sum() > 0


@pytest.mark.parametrize("name", BUILDERS)
def test_forward_mode_and_differences_agree(name: str) -> None:
    model, x = built(name, torch.float64), images(2, torch.float64)
    found, _ = blocks(model, x)
    u = normal(*x.shape, seed=2)
    fast = torch.backends.mha.get_fastpath_enabled()
    with under_attack(model):
        ahead, behind = (Tangents(model, torch.float64, step)(x, u, found) for step in (None, 1e-6))
    for a, b in zip(ahead, behind, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert torch.backends.mha.get_fastpath_enabled() == fast


class Cubed(torch.autograd.Function):
    """x^3 without a forward-mode derivative."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(context: Any, grad: Tensor) -> Tensor:
        (x,) = context.saved_tensors
        out: Tensor = 3 * x**2 * grad
        return out


class WronglyCubed(Cubed):
    """With a wrong one."""

    @staticmethod
    def jvp(context: Any, tangent: Tensor) -> Tensor:
        return tangent * 7


class Custom(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_forward_mode_does_not_run_or_is_wrong_differences_do(dtype: torch.dtype) -> None:
    def network(function: Callable[[Tensor], Tensor]) -> nn.Module:
        first = two_layers()
        return nn.Sequential(first[0], Custom(function), first[2]).to(dtype)

    x = flat().to(dtype)
    right = directions(subject(network(lambda h: h**3), x))
    for function, why in ((Cubed.apply, "does not run"), (WronglyCubed.apply, "another derivative at logits")):
        other = directions(subject(network(function), x))
        (note,) = [note for note in other.notes if why in note]
        assert "central differences in float64" in note
        for name in DISTRIBUTIONS:
            assert values(other, name) == pytest.approx(values(right, name), rel=1e-5)
        for a, b in zip(right.lines, other.lines, strict=True):
            assert a.y == pytest.approx(b.y, rel=1e-5)


def test_a_network_that_knows_float32_only_is_differenced_in_float32() -> None:
    first = two_layers().float()
    model = nn.Sequential(Custom(lambda x: x.float()), first[0], Custom(Cubed.apply), first[2])
    x = flat().float()
    finding = directions(subject(model, x))
    assert any("central differences in float32, step 0.01" in note for note in finding.notes)
    right = directions(subject(nn.Sequential(first[0], Custom(lambda h: h**3), first[2]), x))
    assert values(finding, SPREAD) == pytest.approx(values(right, SPREAD), rel=1e-2)


def test_a_gradient_that_is_a_surrogate_is_told_and_not_taken_for_the_derivative() -> None:
    first = two_layers()
    model = nn.Sequential(first[0], StraightThrough(lambda h: 5 * h.tanh()), first[2])
    finding = directions(subject(model, flat()))
    assert any(note.startswith("logits: the gradient is not the function's") for note in finding.notes)
    largest = line(finding, "largest singular value of the Jacobian")
    assert largest.y[0] is not None and largest.y[1] is None
    true = directions(subject(nn.Sequential(first[0], Custom(lambda h: 5 * h.tanh()), first[2]), flat()))
    assert values(finding, SPREAD) == pytest.approx(values(true, SPREAD), rel=1e-6)


def test_at_a_kink_it_is_the_derivative_that_is_taken() -> None:
    """Black images through a convolution without bias: every unit sits on a kink, and every pool is a tie."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        conv = nn.Conv2d(3, 4, 3, bias=False)
        model = nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)).double()
    finding = directions(subject(model, torch.zeros(2, 3, 8, 8, dtype=torch.float64)))
    assert any(note.startswith("logits: no direction of the input changes the output") for note in finding.notes)
    assert any("in forward mode" in note for note in finding.notes)
    assert len(values(finding, SPREAD)) == 2  # of the convolution alone
    assert line(finding, "largest singular value of the Jacobian").y[1] is None
    assert values(finding, LARGEST) == values(finding, SMALLEST) == {0: 0.0, 1: 0.0}
    assert distribution(finding, RELATIVE).missing == 2


def test_activations_in_place_change_nothing() -> None:
    plain = two_layers()
    in_place = nn.Sequential(plain[0], nn.ReLU(inplace=True), plain[2])
    a, b = (directions(subject(model, flat())) for model in (plain, in_place))
    assert a.distributions == b.distributions and a.lines == b.lines


def test_a_network_whose_logits_are_not_finite_is_counted_apart() -> None:
    model = nn.Sequential(nn.Linear(5, 4), Custom(lambda h: h / 0), nn.Linear(4, 3)).double()
    finding = directions(subject(model, flat()))
    for name in (LARGEST, SMALLEST, RELATIVE):
        assert distribution(finding, name).missing == 3 and not distribution(finding, name).values
    assert len(values(finding, SPREAD)) == 3  # of the first layer alone


def test_no_tangent_level_is_left_open() -> None:
    broken = nn.Sequential(nn.Linear(5, 4), Custom(Cubed.apply), nn.Linear(4, 3)).double()
    directions(subject(broken, flat()))
    with forward_ad.dual_level():  # raises where another is still open
        pass
