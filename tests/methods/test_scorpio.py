"""SCORPIO against Frank-Wolfe typed again, closed forms, exact Hessians, and quadratics whose maximum is known."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from support.calculus import (
    GivenLoss,
    Polynomial,
    derivative,
    gradient_error,
    hessians,
    random_matrix,
    times,
    weight_gradient,
)
from support.examples import (
    NORMS,
    differentiable_once,
    inputs_within,
    make_batch,
    network,
    noise_for,
    smoothed,
    total,
    untouched,
)
from unperturbed.curvature.products import cross_entropy_with, dot, hessian_product
from unperturbed.errors import InputError
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.fgsm import FGSM
from unperturbed.methods.scorpio import SCORPIO
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import InPrecision
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Inputs, Norm

BATCH = make_batch(6, torch.float64)
SMOOTHED = smoothed(BATCH)
EPS: dict[Norm, float] = {"Linf": 0.2, "L2": 0.8, "L1": 3.0}
PRODUCTS = ("forward", "central", "exact")
every_norm = pytest.mark.parametrize("norm", NORMS)
every_box = pytest.mark.parametrize("bounds", [(0.0, 1.0), None], ids=["box", "no box"])
every_product = pytest.mark.parametrize("product", PRODUCTS)


def tanh_net() -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(32, 12), nn.Tanh(), nn.Linear(12, 3)).double()
        for weight in model.parameters():
            weight.data *= 2.5
    return model


def perturbed(method: SCORPIO, model: nn.Module, batch: Batch, threat: Threat) -> Inputs:
    with under_attack(model):
        return method.perturb(model, batch, threat, noise_for(batch)).z


def slope_at(model: nn.Module, batch: Batch, z: Inputs) -> Inputs:
    leaf = z.detach().clone().requires_grad_()
    return torch.autograd.grad(functional.cross_entropy(model(leaf), batch.y, reduction="sum"), leaf)[0]


def best_of(norm: Norm, bounds: Any, x: Inputs, u: Inputs) -> Inputs:
    """Return argmax <u, s> over S(x), from its closed form where it has one."""
    flat, eps = u.flatten(1), EPS[norm]
    if norm == "Linf":
        s = x + eps * u.sign()
        return s if bounds is None else s.clamp(*bounds)
    if bounds is not None:
        return Threat(norm, eps, bounds).maximise_linear(x, u)
    if norm == "L2":
        return x + eps * u / flat.norm(dim=1).view(-1, 1, 1, 1)
    peak = flat.abs().argmax(1, keepdim=True)
    s = torch.zeros_like(flat).scatter_(1, peak, eps * flat.gather(1, peak).sign())
    return x + s.view_as(x)


def frank_wolfe(
    uphill: Callable[[Inputs], Inputs], g: Inputs, x: Inputs, norm: Norm, bounds: Any, steps: int
) -> Inputs:
    """Return where Frank-Wolfe ends that begins at eps g / |g|_p, cut to the box, in the steps 2 / (k + 2)."""
    order = {"Linf": torch.inf, "L2": 2, "L1": 1}[norm]
    z = x + EPS[norm] * g / g.flatten(1).norm(order, dim=1).view(-1, 1, 1, 1)
    z = z if bounds is None else Threat(norm, EPS[norm], bounds).project(x, z)
    for k in range(steps):
        z = z + 2 / (k + 2) * (best_of(norm, bounds, x, uphill(z)) - z)
    return z


# The maximiser


@every_box
@every_norm
def test_with_a_whole_step_it_is_frank_wolfe_on_the_loss_itself(norm: Norm, bounds: Any) -> None:
    model, x, threat = network("plain", torch.float64), BATCH.x, Threat(norm, EPS[norm], bounds)
    for steps in (1, 4):
        expected = frank_wolfe(lambda z: slope_at(model, BATCH, z), slope_at(model, BATCH, x), x, norm, bounds, steps)
        found = perturbed(SCORPIO(steps=steps, step=1.0), model, BATCH, threat)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert (found - x).abs().max() > 0.1


@every_box
@every_norm
def test_with_exact_products_it_is_frank_wolfe_on_the_quadratic_model(norm: Norm, bounds: Any) -> None:
    """With the full Hessian of each example, by forward mode over reverse."""
    model, x, threat = tanh_net(), BATCH.x, Threat(norm, EPS[norm], bounds)
    matrices, g = hessians(model, x, cross_entropy_with(BATCH.y)), slope_at(model, BATCH, x)
    expected = frank_wolfe(lambda z: g + times(matrices, z - x), g, x, norm, bounds, 3)
    torch.testing.assert_close(perturbed(SCORPIO(product="exact"), model, BATCH, threat), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("product", "order"), [("forward", 1), ("central", 2)])
def test_differences_approach_the_exact_iteration_by_their_order(
    product: Literal["forward", "central"], order: int
) -> None:
    """On a tanh network; the L2 ball has no corners to jump between."""
    model, threat = tanh_net(), Threat("L2", 0.8)
    exact = perturbed(SCORPIO(product="exact"), model, BATCH, threat)
    errors = [
        (perturbed(SCORPIO(step=step, product=product), model, BATCH, threat) - exact).norm()
        for step in (4e-2, 2e-2, 1e-3)
    ]
    assert float(errors[0] / errors[1]) == pytest.approx(2.0**order, rel=0.1)
    assert errors[2] < 3e-3 * exact.sub(BATCH.x).norm()


@every_norm
def test_a_thousandth_of_a_step_gives_the_exact_iteration(norm: Norm) -> None:
    model, threat = tanh_net(), Threat(norm, EPS[norm])
    exact, near, far = (
        perturbed(SCORPIO(step=step, product=product), model, BATCH, threat)  # type: ignore[arg-type]
        for step, product in ((0.5, "exact"), (1e-3, "forward"), (1.0, "forward"))
    )
    torch.testing.assert_close(near, exact, rtol=0, atol=2e-3)
    assert (far - exact).abs().max() > 0.02, "the model's steps are not the loss's"


def test_one_step_under_linf_is_a_closed_form() -> None:
    """eps sign(g + H eps g / |g|_inf)."""
    model, x, eps = tanh_net(), BATCH.x, 0.2
    g = slope_at(model, BATCH, x)
    v = eps * g / g.flatten(1).norm(torch.inf, dim=1).view(-1, 1, 1, 1)
    turned = g + times(hessians(model, x, cross_entropy_with(BATCH.y)), v)
    found = perturbed(SCORPIO(steps=1, product="exact"), model, BATCH, Threat("Linf", eps, None))
    torch.testing.assert_close(found, x + eps * turned.sign(), rtol=0, atol=1e-12)
    assert (turned.sign() != g.sign()).any(), "curvature matters here"


ZERO = Batch(BATCH.x, torch.zeros_like(BATCH.y), BATCH.ids)
B = torch.randn(32, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 5


@every_product
@every_norm
def test_without_curvature_it_is_fgsm(norm: Norm, product: Literal["forward", "central", "exact"]) -> None:
    model, threat = GivenLoss(Polynomial(B)), Threat(norm, EPS[norm])
    with under_attack(model):
        expected = FGSM().perturb(model, ZERO, threat, noise_for(ZERO)).z
    for steps in (1, 3):
        found = perturbed(SCORPIO(steps=steps, product=product), model, ZERO, threat)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@every_product
@pytest.mark.parametrize("sign", ["negative", "any"])
@every_norm
def test_on_a_quadratic_loss_every_product_is_exact(
    norm: Norm, sign: str, product: Literal["forward", "central", "exact"]
) -> None:
    """And the modelled change is the change, whatever the step."""
    function = Polynomial(B, random_matrix(32, 3, sign) / 8, offset=15.0)
    model, threat, method = GivenLoss(function), Threat(norm, EPS[norm]), SCORPIO(step=0.3, product=product)
    g, h = function.gradient(ZERO.x), function.hessian.detach()
    expected = frank_wolfe(lambda z: g + ((z - ZERO.x).flatten(1) @ h).view_as(g), g, ZERO.x, norm, (0.0, 1.0), 3)
    torch.testing.assert_close(perturbed(method, model, ZERO, threat), expected, rtol=0, atol=1e-7)
    with under_attack(model):
        found = method.examine(model, ZERO, threat, noise_for(ZERO))
    torch.testing.assert_close(found["modelled"], found["change"], rtol=1e-7, atol=1e-9)
    assert (found["beyond_bound"] < 1e-6).all()
    if sign == "negative":
        assert (found["beyond"] <= found["fw_gap"] + 1e-9).all(), "on a concave loss the gap bounds what is missing"


def test_many_steps_reach_the_maximum_of_a_concave_loss() -> None:
    function = Polynomial(B, random_matrix(32, 3, "negative") / 8, offset=15.0)
    model, threat, missing = GivenLoss(function), Threat("L2", 0.8), []
    for steps in (1, 100):
        with under_attack(model):
            found = SCORPIO(steps=steps).examine(model, ZERO, threat, noise_for(ZERO))
        assert (found["fw_gap"] >= 0).all()
        missing.append(found["fw_gap"])
    assert (missing[1] < 0.02).all() and (missing[0] > missing[1]).all()


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**31),
    norm=st.sampled_from(NORMS),
    box=st.booleans(),
    size=st.sampled_from([0.0, 0.1, 1.0, 4.0]),
    steps=st.integers(1, 5),
    product=st.sampled_from(PRODUCTS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=15, deadline=None)
def test_every_iterate_lies_inside_and_no_gap_is_negative(
    seed: int, norm: Norm, box: bool, size: float, steps: int, product: Any, dtype: torch.dtype
) -> None:
    """The iterates are the results of fewer steps. The gap is <s - z, gradient> at the best s, so 0 or more."""
    threat = Threat(norm, size * EPS[norm], (0.0, 1.0) if box else None)
    x = inputs_within(threat, 4, (2, 4, 4), dtype, seed)
    batch = Batch(x, torch.randint(3, (4,), generator=torch.Generator().manual_seed(seed)), torch.arange(4) + seed % 99)
    model, method = network("plain", dtype), SCORPIO(steps=steps, product=product, step=0.5 + 0.5 * (seed % 2))
    with under_attack(model):
        z = method.perturb(model, batch, threat, noise_for(batch)).z
        found = method.examine(model, batch, threat, noise_for(batch))
    assert z.dtype == dtype and threat.contains(x, z).all()
    rounding = 1e-12 if dtype == torch.float64 else 1e-5
    assert (found["fw_gap"] >= -rounding * (1 + found["change"].abs()) * (1 + size)).all()
    assert (found["distortion"] >= 0).all() and (found["distortion"] <= 1 + 1e-6).all()
    assert all(value.isfinite().all() and value.shape == (4,) for value in found.values())


@every_product
@every_norm
def test_where_the_gradient_is_zero_it_starts_anywhere(norm: Norm, product: Any) -> None:
    """At a saddle: no NaN, inside, and the curvature is found all the same; the neighbours do not notice."""
    function = Polynomial(torch.zeros(32, dtype=torch.float64), random_matrix(32, 3), offset=20.0)
    model, threat, x = GivenLoss(function), Threat(norm, EPS[norm], None), BATCH.x.clone()
    alone = perturbed(SCORPIO(product=product), model, Batch(x[1:], ZERO.y[1:], ZERO.ids[1:]), threat)
    x[0] = 0
    batch = Batch(x, ZERO.y, ZERO.ids)
    z = perturbed(SCORPIO(product=product), model, batch, threat)
    assert z.isfinite().all() and threat.contains(x, z).all()
    torch.testing.assert_close(z[1:], alone, rtol=0, atol=1e-7)
    change = function(z)[0] - function(x)[0]
    assert change > 0.05 * EPS[norm] ** 2, "uphill from the saddle"


@pytest.mark.parametrize("size", [1e-10, 1e-25, 1e-32])
@every_norm
def test_small_gradients_lead_as_far_as_large_ones_s17(norm: Norm, size: float) -> None:
    """A saturated network's, in float32, whose squares would be 0: the start is along g, not a random point."""
    draw = torch.Generator().manual_seed(0)
    g, x = torch.randn((4, 6), generator=draw).mul(8).round() / 8, torch.rand((4, 6), generator=draw)
    matrix, noise, method = 3 * random_matrix(6).float(), Noise.of(0, torch.arange(4)), SCORPIO()
    ends = []
    for scale in (1e-6, size):

        class Loss(nn.Module):
            """Its gradient is scale * (g + H (z - x)), up to the softmax's curvature of the order of scale^2."""

            def forward(self, z: Inputs, scale: float = scale) -> Tensor:
                v = z - x
                return scale * (v * g + v * (v @ matrix) / 2).sum(1, keepdim=True) * torch.tensor([[-1.0, 1.0]])

        batch = Batch(x, torch.zeros(4, dtype=torch.int64), torch.arange(4))
        with under_attack(Loss()):
            ends.append(method.perturb(Loss(), batch, Threat(norm, 0.5, None), noise).z)
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=1e-3)


# The loss


@pytest.mark.parametrize("net", ["plain", "norm"])
def test_with_weight_one_it_learns_as_adversarial_training_does_at_the_same_points(net: str) -> None:
    mine, theirs = network(net, torch.float64), network(net, torch.float64)
    threat, noise = Threat("L2", 0.8), noise_for(BATCH)
    inner = Inner(perturbed(SCORPIO(), mine, BATCH, threat))
    gradients = [
        weight_gradient(total(method.loss(model, SMOOTHED, inner, threat, noise)), model)
        for method, model in ((SCORPIO(), mine), (AT(), theirs))
    ]
    assert torch.equal(*gradients) and gradients[0].any()
    assert all(torch.equal(a, b) for a, b in zip(mine.buffers(), theirs.buffers(), strict=True))


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.5])
@pytest.mark.parametrize("net", ["plain", "norm"])
def test_other_weights_mix_both_losses(weight: float, net: str) -> None:
    """(1 - r) l(x) + r l(z), above 1 against the clean one; two ordinary training forwards."""
    model, z = network(net, torch.float64), perturbed(SCORPIO(), tanh_net(), BATCH, Threat("L2", 0.8))
    terms = SCORPIO(weight=weight).loss(model, SMOOTHED, Inner(z), Threat("L2", 0.8), noise_for(BATCH))
    clean, worst = (functional.cross_entropy(model(point), SMOOTHED.targets) for point in (BATCH.x, z))
    expected = (1 - weight) * clean + weight * worst
    torch.testing.assert_close(total(terms), expected)
    torch.testing.assert_close(terms["clean"], clean)
    torch.testing.assert_close(weight_gradient(total(terms), model), weight_gradient(expected, model))


def test_the_quadratic_value_is_the_models_with_its_gradient() -> None:
    """<g, v> + <v, H v> / 2, to the weights through both, by double backward of the exact model as h goes to 0."""
    model, x = tanh_net(), BATCH.x
    z = perturbed(SCORPIO(), model, BATCH, Threat("L2", 0.8))
    leaf, v = x.clone().requires_grad_(), z - x
    clean = functional.cross_entropy(model(leaf), SMOOTHED.targets, reduction="none")
    (g,) = torch.autograd.grad(clean.sum(), leaf, create_graph=True)
    (curved,) = torch.autograd.grad(dot(g, v).sum(), leaf, create_graph=True)
    expected = clean.mean() + 1.3 * (dot(g, v) + dot(curved, v) / 2).mean()
    errors = []
    for step in (2e-3, 1e-3):
        method = SCORPIO(value="quadratic", weight=1.3, step=step)
        found = total(method.loss(model, SMOOTHED, Inner(z), Threat("L2", 0.8), noise_for(BATCH)))
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=0)
        errors.append((weight_gradient(found, model) - weight_gradient(expected, model)).norm())
    assert errors[1] < 1e-2 * weight_gradient(expected, model).norm()
    assert float(errors[0] / errors[1]) == pytest.approx(2.0, rel=0.05)


def test_the_quadratic_value_is_taken_at_the_clean_batchs_statistics() -> None:
    """By hand; batch norm's averages move once, and the difference's own gradient passes the statistics, too."""
    model, z, h, y = network("norm", torch.float64), BATCH.x * 0.7 + 0.1, 0.4, BATCH.y
    conv, norm, rest = model[0], model[1], model[2:]  # type: ignore[index]
    v = z - BATCH.x

    def slope(point: Inputs) -> tuple[Tensor, Tensor]:
        leaf, seen = point.clone().requires_grad_(), conv(BATCH.x)
        mean = seen.mean((0, 2, 3), keepdim=True)
        var = (seen - mean).square().mean((0, 2, 3), keepdim=True)
        scaled = (conv(leaf) - mean) / (var + norm.eps).sqrt() * norm.weight.view(mean.shape) + norm.bias.view(
            mean.shape
        )
        loss = functional.cross_entropy(rest(scaled), y, reduction="none")
        return loss, torch.autograd.grad(loss.sum(), leaf, create_graph=True)[0]

    (clean, g), (_, ahead) = slope(BATCH.x), slope(BATCH.x + h * v)
    expected = clean.mean() + (dot(g, v) + dot(ahead - g, v) / (2 * h)).mean()
    found = total(SCORPIO(value="quadratic", step=h).loss(model, BATCH, Inner(z), Threat("L2", 1.0), noise_for(BATCH)))
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=0)
    torch.testing.assert_close(weight_gradient(found, model), weight_gradient(expected, model), rtol=1e-9, atol=1e-10)
    assert int(norm.num_batches_tracked) == 1


@pytest.mark.parametrize("net", ["plain", "norm"])
@pytest.mark.parametrize(
    "method", [SCORPIO(value="quadratic"), SCORPIO(value="quadratic", step=0.1, weight=1.5), SCORPIO(product="exact"),
               SCORPIO(product="central", weight=0.5)],
    ids=["quadratic", "quadratic of a short step", "exact", "central"],
)  # fmt: skip
def test_the_gradient_is_that_of_finite_differences_at_frozen_points(method: SCORPIO, net: str) -> None:
    """Points that are searched again move with the weights, and give another derivative."""
    model, threat, noise = network(net, torch.float64, scale=0.5), Threat("L2", 0.8), noise_for(BATCH)
    inner = Inner(perturbed(method, model, SMOOTHED, threat))

    def frozen() -> Tensor:
        return total(method.loss(model, SMOOTHED, inner, threat, noise))

    def followed() -> Tensor:
        return total(method.loss(model, SMOOTHED, Inner(perturbed(method, model, SMOOTHED, threat)), threat, noise))

    assert gradient_error(frozen, model) <= 1e-6
    direction = torch.randn(weight_gradient(frozen(), model).shape, dtype=torch.float64,
                            generator=torch.Generator().manual_seed(1)) / 8  # fmt: skip
    slopes = [derivative(function, model, direction, 1e-5) for function in (frozen, followed)]
    assert abs(slopes[1] - slopes[0]) > 1e-5


def test_where_the_quadratic_value_has_no_gradient_in_the_inputs_nothing_is_nan() -> None:
    model, threat = network("plain"), Threat("L2", 0.8)
    with torch.no_grad():
        model.get_parameter("3.weight").zero_()
    batch, method = make_batch(), SCORPIO(value="quadratic")
    with under_attack(model):
        inner = method.perturb(model, batch, threat, noise_for(batch))
        found = method.examine(model, batch, threat, noise_for(batch))
    terms = method.loss(model, batch, inner, threat, noise_for(batch))
    assert threat.contains(batch.x, inner.z).all()
    assert weight_gradient(total(terms), model).isfinite().all()
    assert all(value.isfinite().all() for value in found.values())


# What it says of itself


@every_norm
def test_examine_against_full_hessians(norm: Norm) -> None:
    model, x, threat = tanh_net(), BATCH.x, Threat(norm, EPS[norm])
    method, noise, loss = SCORPIO(product="exact"), noise_for(BATCH), cross_entropy_with(BATCH.y)
    with untouched(model, x), under_attack(model):
        found = method.examine(model, BATCH, threat, noise)
        z = method.perturb(model, BATCH, threat, noise).z
        worst = PGD(steps=20)(lambda p, rows: functional.cross_entropy(model(p), BATCH.y[rows], reduction="none"),
                              x, threat, noise, z)  # fmt: skip
    v, g, here, there = z - x, slope_at(model, BATCH, x), hessians(model, x, loss), hessians(model, z, loss)
    losses = [functional.cross_entropy(model(point), BATCH.y, reduction="none") for point in (x, z, worst)]
    uphill = g + times(here, v)
    best = best_of(norm, (0.0, 1.0), x, uphill)
    length = v.flatten(1).norm(dim=1)
    lipschitz = times(there - here, v).flatten(1).norm(dim=1) / length**2
    expected = {
        "modelled": dot(g, v) + dot(times(here, v), v) / 2,
        "change": losses[1] - losses[0],
        "ratio": ((losses[1] - losses[0]).sum() / (dot(g, v) + dot(times(here, v), v) / 2).sum()).expand(len(x)),
        "fw_gap": dot(best - z, uphill),
        "distortion": length / (EPS[norm] * (32**0.5 if norm == "Linf" else 1)),
        "beyond": losses[2] - losses[1],
        "beyond_bound": lipschitz * length**3 / 3,
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert not found[name].requires_grad
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-6, atol=1e-8)
    assert (found["fw_gap"] > 1e-5).any() and (found["beyond"] > 0).any()


class Prototypes(nn.Module):
    """Logits are distances, without a second derivative."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.centres = nn.Parameter(torch.rand(3, 32, dtype=torch.float64))

    def forward(self, x: Inputs) -> Tensor:
        return -torch.cdist(differentiable_once(x.flatten(1)), self.centres)


def test_a_network_without_second_derivatives_is_examined_by_differences() -> None:
    """Training by differences of gradients asks for none; nor may the log."""
    model, threat, x = Prototypes(), Threat("L2", 0.3), BATCH.x
    with under_attack(model):
        with pytest.raises(RuntimeError, match="not implemented"):
            hessian_product(model, x, x, cross_entropy_with(BATCH.y))
        found = SCORPIO().examine(model, BATCH, threat, noise_for(BATCH))
        z = perturbed(SCORPIO(), model, BATCH, threat)

    class Written(nn.Module):
        def forward(self, x: Inputs) -> Tensor:
            return -(x.flatten(1)[:, None] - model.centres).square().sum(2).sqrt()

    matrices = hessians(Written(), x, cross_entropy_with(BATCH.y))
    modelled = dot(slope_at(model, BATCH, x) + times(matrices, z - x) / 2, z - x)
    torch.testing.assert_close(found["modelled"], modelled.detach(), rtol=1e-3, atol=1e-5)
    assert all(value.isfinite().all() for value in found.values())


def test_without_a_ball_the_model_is_right() -> None:
    """0 over 0, as at the start of a ramp."""
    model, threat = tanh_net(), Threat("Linf", 0.0)
    with under_attack(model):
        found = SCORPIO().examine(model, BATCH, threat, noise_for(BATCH))
    assert (found["ratio"] == 1).all() and not found["modelled"].any()


@pytest.mark.parametrize("product", ["forward", "central"])
@pytest.mark.parametrize("step", [0.1, 1e-3])
def test_short_differences_are_not_lost_in_bfloat16(product: Any, step: float) -> None:
    """Nor do they ask for the compiled network; long ones are in the precision of training."""
    model, batch, threat = network("norm"), make_batch(8), Threat("L2", 0.8)
    plain, rough = InPrecision(model), InPrecision(model, torch.bfloat16)
    short, long = SCORPIO(step=step, product=product), SCORPIO(product=product)
    assert torch.equal(perturbed(short, rough, batch, threat), perturbed(short, plain, batch, threat))
    assert not torch.equal(perturbed(long, rough, batch, threat), perturbed(long, plain, batch, threat))


def test_the_models_error_is_within_the_theorems_on_a_cubic_loss() -> None:
    """The Hessian changes by c diag(v): |l(z) - l(x) - Q(z)| = |c sum v^3| / 6, within half of M |v|^3 / 3."""
    function = Polynomial(B, random_matrix(32, 3) / 8, cubic=1.5, offset=15.0)
    model, threat, method = GivenLoss(function), Threat("L2", 0.8), SCORPIO(product="exact")
    with under_attack(model):
        found = method.examine(model, ZERO, threat, noise_for(ZERO))
    v = (perturbed(method, model, ZERO, threat) - ZERO.x).flatten(1)
    torch.testing.assert_close(found["change"] - found["modelled"], 1.5 * v.pow(3).sum(1) / 6, rtol=1e-6, atol=1e-9)
    expected = 1.5 * v.square().norm(dim=1) * v.norm(dim=1) / 3
    torch.testing.assert_close(found["beyond_bound"], expected, rtol=1e-5, atol=1e-8)
    assert ((found["change"] - found["modelled"]).abs() <= found["beyond_bound"] / 2 + 1e-9).all()


def test_kinks_are_warned_of_where_only_the_softmaxs_curvature_is_seen() -> None:
    """Where the Hessian is exact or nearly so; differences over long steps see the kinks between."""
    kinked = nn.Sequential(nn.Flatten(), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 3))
    batch, threat = make_batch(), Threat("Linf", 0.1)
    for method, warned in ((SCORPIO(), False), (SCORPIO(product="exact"), True), (SCORPIO(step=0.05), True)):
        texts = method.check(kinked, batch, threat, noise_for(batch))
        assert bool(texts) == warned and all("scorpio" in text for text in texts)
        assert not method.check(tanh_net(), batch, threat, noise_for(batch))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"steps": 0}, "0"), ({"weight": -0.5}, "weight"), ({"step": 0.0}, "step"), ({"step": float("nan")}, "step"),
     ({"product": "backward"}, "product"), ({"value": "cubic"}, "value")],
)  # fmt: skip
def test_wrong_settings_are_refused(wrong: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match=named):
        SCORPIO(**wrong)


def test_stronger_doubles_the_steps_and_keeps_the_rest() -> None:
    method = SCORPIO(steps=2, weight=0.7, step=0.3, product="central", value="quadratic")
    assert method.stronger() == replace(method, steps=4)
