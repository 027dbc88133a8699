"""LLR against its formula, typed again with double backward, and against affine losses."""

import copy
from dataclasses import replace
from typing import Literal

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from support.calculus import GivenLoss, Polynomial, derivative, gradient_error, weight_gradient
from support.examples import NORMS, Counted, make_batch, network, noise_for, smoothed, total, untouched
from unperturbed.curvature.products import not_proven
from unperturbed.errors import InputError, RunError
from unperturbed.maximise.adam import Adam
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.llr import LLR
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import InPrecision
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Inputs, Logits, Norm

BATCH = make_batch(8, torch.float64)
SMOOTHED = smoothed(BATCH)
EPS: dict[Norm, float] = {"Linf": 0.2, "L2": 0.8, "L1": 3.0}
THREAT = Threat("L2", 0.8)
VARIANTS: dict[str, LLR] = {
    "exact": LLR(),
    "differences": LLR(form="differences"),
    "in two parts": LLR(parts=2),
    "in three parts": LLR(parts=3),
    "differences in three parts": LLR(form="differences", parts=3),
    "the gap alone": LLR(nominal=0.0, slope=0.0),
    "the slope alone": LLR(nominal=0.0, gap=0.0),
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def net(norm: bool, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Return a network with SiLU in train mode, on which forward mode is proven, with or without batch norm."""
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        between = nn.BatchNorm2d(4) if norm else nn.Identity()
        return nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            between,
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(64, 8),
            nn.Tanh(),
            nn.Linear(8, 3),
        ).to(dtype)


def somewhere(batch: Batch, threat: Threat = THREAT) -> Inputs:
    return threat.sample(batch.x, noise_for(batch))


def losses_at(model: nn.Sequential, x: Inputs, clean: Inputs, targets: Tensor) -> Tensor:
    """Return the losses at x with batch norm, if there is any, by hand at the clean batch's statistics."""
    h, norm = model[0](x), model[1]
    if isinstance(norm, nn.BatchNorm2d):
        seen = model[0](clean)
        mean = seen.mean((0, 2, 3), keepdim=True)
        var = (seen - mean).square().mean((0, 2, 3), keepdim=True)
        scale, shift = norm.weight.view(mean.shape), norm.bias.view(mean.shape)
        h = scale * (h - mean) / (var + norm.eps).sqrt() + shift
    return functional.cross_entropy(model[2:](h), targets, reduction="none")


def by_double_backward(model: nn.Sequential, batch: Batch, z: Inputs, method: LLR) -> dict[str, Tensor]:
    """Return the three terms as the paper has them."""
    leaf = batch.x.clone().requires_grad_()
    clean = losses_at(model, leaf, batch.x, batch.targets)
    (g,) = torch.autograd.grad(clean.sum(), leaf, create_graph=True)
    slope = (g * (z - batch.x)).flatten(1).sum(1)
    far = losses_at(model, z, batch.x, batch.targets)
    return {
        "clean": method.nominal * clean.mean(),
        "gap": method.gap * (far - clean - slope).abs().mean(),
        "slope": method.slope * slope.abs().mean(),
    }


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loss_and_its_gradient_are_those_of_double_backward(dtype: torch.dtype, norm: bool) -> None:
    """To 1e-5 in float32; the statistics' own graph included, and soft targets."""
    model, method, batch = net(norm, dtype), LLR(1.5, 3.0, 0.7), smoothed(make_batch(8, dtype))
    assert not_proven(model) is None
    z = somewhere(batch)
    mine, theirs = (
        method.loss(model, batch, Inner(z), THREAT, noise_for(batch)),
        by_double_backward(model, batch, z, method),
    )
    assert mine.keys() == theirs.keys()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-11
    size = weight_gradient(total(theirs), model).norm()
    for name, term in theirs.items():
        torch.testing.assert_close(mine[name], term, rtol=tolerance, atol=tolerance)
        gradient = weight_gradient(term, model)
        assert (weight_gradient(mine[name], model) - gradient).norm() <= tolerance * size, name
        assert gradient.norm() > 1e-3 * size


@pytest.mark.parametrize("norm", [False, True])
@every_variant
def test_the_gradient_is_that_of_finite_differences(variant: str, norm: bool) -> None:
    """At frozen points; points that are searched again move with the weights, and give another derivative."""
    method, model = VARIANTS[variant], net(norm)
    with under_attack(model):
        inner = method.perturb(model, SMOOTHED, THREAT, noise_for(BATCH))

    def frozen() -> Tensor:
        return total(method.loss(model, SMOOTHED, inner, THREAT, noise_for(BATCH)))

    def followed() -> Tensor:
        with under_attack(model):
            again = method.perturb(model, SMOOTHED, THREAT, noise_for(BATCH))
        return total(method.loss(model, SMOOTHED, again, THREAT, noise_for(BATCH)))

    assert gradient_error(frozen, model) <= 1e-6
    gradient = weight_gradient(frozen(), model)
    direction = 3 * gradient / gradient.norm()
    with torch.no_grad():
        slopes = [derivative(function, model, direction, 1e-5) for function in (frozen, followed)]
    assert slopes[0] == pytest.approx(3 * float(gradient.norm()), rel=1e-6)
    assert abs(slopes[1] - slopes[0]) > 1e-5


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_on_an_affine_loss_the_gap_is_zero_and_the_slope_is_known(norm: Norm) -> None:
    """The penalty is then mu |<v, b>|, whatever lambda is."""
    b = torch.randn(32, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 5
    model, threat = GivenLoss(Polynomial(b)), Threat(norm, EPS[norm])
    batch, method = Batch(BATCH.x, torch.zeros_like(BATCH.y), BATCH.ids), LLR(gap=100.0, slope=1.3)
    with under_attack(model):
        inner = method.perturb(model, batch, threat, noise_for(batch))
        examined = method.examine(model, batch, threat, noise_for(batch))
    terms = method.loss(model, batch, inner, threat, noise_for(batch))
    assert terms["gap"] < 1e-10 and (examined["gap"] < 1e-12).all()
    along = ((inner.z - batch.x).flatten(1) @ b).abs()
    torch.testing.assert_close(terms["slope"].detach(), 1.3 * along.mean())
    torch.testing.assert_close(terms["clean"].detach(), 2 * (8 + batch.x.flatten(1) @ b).mean())
    assert (along > 1e-3).all()


def test_absolute_values_are_taken_of_each_example() -> None:
    """Not of the mean: slopes of both signs do not cancel."""
    model, z = net(False), somewhere(BATCH)
    leaf = BATCH.x.clone().requires_grad_()
    (g,) = torch.autograd.grad(functional.cross_entropy(model(leaf), BATCH.y, reduction="sum"), leaf)
    slope = (g * (z - BATCH.x)).flatten(1).sum(1)
    assert (slope > 0).any() and (slope < 0).any()
    terms = LLR(slope=1.0).loss(model, BATCH, Inner(z), THREAT, noise_for(BATCH))
    torch.testing.assert_close(terms["slope"].detach(), slope.abs().mean())


@pytest.mark.parametrize("norm", [False, True])
def test_differences_are_within_a_hundredth_on_a_smooth_network(norm: bool) -> None:
    """In float32, loss by loss and in the gradient."""
    model, batch = net(norm, torch.float32), make_batch(16)
    z = somewhere(batch, Threat("Linf", 0.1))
    ends = []
    for form in ("exact", "differences"):
        terms = LLR(form=form).loss(model, batch, Inner(z), THREAT, noise_for(batch))  # type: ignore[arg-type]
        ends.append((terms, weight_gradient(total(terms), model)))
    for name, term in ends[0][0].items():
        torch.testing.assert_close(ends[1][0][name], term, rtol=0.01, atol=1e-4)
    assert (ends[1][1] - ends[0][1]).norm() <= 0.01 * ends[0][1].norm()
    assert (ends[1][1] - ends[0][1]).norm() > 0, "they are not the same form"


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("form", ["exact", "differences"])
@pytest.mark.parametrize("parts", [2, 3, 20])
def test_parts_give_the_same_loss_and_gradient(parts: int, form: Literal["exact", "differences"], norm: bool) -> None:
    """Of equal sizes or not, or more than there are examples. Running averages move once in all of them."""
    z, before = somewhere(BATCH), net(norm)
    whole, pieces = copy.deepcopy(before), copy.deepcopy(before)
    ends = []
    for model, method in ((whole, LLR(form=form)), (pieces, LLR(form=form, parts=parts))):
        loss = total(method.loss(model, SMOOTHED, Inner(z), THREAT, noise_for(BATCH)))
        ends.append((loss, weight_gradient(loss, model)))
    torch.testing.assert_close(ends[1][0], ends[0][0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ends[1][1], ends[0][1], rtol=1e-9, atol=1e-11)
    for a, b, c in zip(pieces.buffers(), whole.buffers(), before.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        assert not torch.equal(a, c)


def test_parts_are_refused_where_the_slope_needs_a_second_derivative() -> None:
    """Which the recomputation does not pass; by differences they are fine."""
    model, inner = network("plain", torch.float64), Inner(somewhere(BATCH))
    with untouched(model), pytest.raises(InputError, match="Ripple.*differences"):
        LLR(parts=2).check(model, BATCH, THREAT, noise_for(BATCH))
    method = LLR(parts=2, form="differences")
    assert gradient_error(lambda: total(method.loss(model, BATCH, inner, THREAT, noise_for(BATCH))), model) <= 1e-6


@every_variant
def test_batch_norms_averages_move_once_a_loss_as_by_one_clean_forward(variant: str) -> None:
    model, alone = net(True), net(True)
    terms = VARIANTS[variant].loss(model, BATCH, Inner(somewhere(BATCH)), THREAT, noise_for(BATCH))
    total(terms).backward()
    alone(BATCH.x)
    assert all("forward" not in vars(module) for module in model.modules())
    for mine, theirs in zip(model.buffers(), alone.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("proven", "norm", "passes"),
    [(True, False, (3, 3, 0)), (True, True, (3, 3, 0)), (False, False, (2, 2, 1)), (False, True, (2, 2, 1))],
)
def test_the_loss_costs_no_more_passes_than_are_needed(proven: bool, norm: bool, passes: tuple[int, int, int]) -> None:
    """Forward, to weights, to inputs; the clean forward gives the slope as well: a tangent, or one more backward."""
    inner = net(norm)
    model = Counted(inner if proven else nn.Sequential(*inner, nn.LayerNorm(3).double()))
    total(LLR().loss(model, BATCH, Inner(somewhere(BATCH)), THREAT, noise_for(BATCH))).backward()
    assert (model.forwards, model.to_weights, model.to_inputs) == tuple(8 * count for count in passes)


@pytest.mark.parametrize("norm", [False, True])
def test_differences_cost_three_passes(norm: bool) -> None:
    """At x, a short way from it, and at z."""
    model = Counted(net(norm))
    total(LLR(form="differences").loss(model, BATCH, Inner(somewhere(BATCH)), THREAT, noise_for(BATCH))).backward()
    assert (model.forwards, model.to_weights, model.to_inputs) == (24, 24, 0)


@pytest.mark.parametrize("norm", NORMS)
def test_examine_bounds_the_change_of_the_loss(norm: Norm) -> None:
    """|l(z) - l(x)| <= gamma + |slope|, of each example."""
    model, threat = net(True).eval(), Threat(norm, EPS[norm])
    with untouched(model, BATCH.x), under_attack(model):
        found = LLR(maximiser=PGD(steps=4)).examine(model, BATCH, threat, noise_for(BATCH))
    assert set(found) == {"gap", "slope", "bound", "change"}
    assert all(value.shape == (8,) and (value >= 0).all() and not value.requires_grad for value in found.values())
    torch.testing.assert_close(found["bound"], found["gap"] + found["slope"])
    assert (found["change"] <= found["bound"] + 1e-12).all() and (found["change"] > 1e-6).any()


def test_the_released_settings() -> None:
    """Weights 2, 4 and 4 * 0.3; ten steps of Adam of 0.1 in input units, whose inner gradient is the loss's alone."""
    eps = 4 / 255
    method = LLR.released(eps)
    assert (method.nominal, method.gap, method.slope) == (2.0, 4.0, pytest.approx(4 * 0.3))
    assert method.maximiser == Adam(steps=10, step_size=0.1 / eps) and not method.exact_inner
    assert LLR.released().maximiser == Adam(steps=10, step_size=0.1 * 255 / 8)
    model = net(False)
    with under_attack(model):
        points = [one.perturb(model, BATCH, Threat("Linf", 0.2), noise_for(BATCH)).z
                  for one in (method, replace(method, exact_inner=True))]  # fmt: skip
    assert not torch.equal(*points), "the true gradient of gamma leads elsewhere"


# Before the first step


class Vouched(nn.LayerNorm):
    forward_mode = True


def test_a_wrong_forward_mode_is_refused_and_differences_do_without(caplog: pytest.LogCaptureFixture) -> None:
    model, batch = nn.Sequential(*net(True), Vouched(3), nn.Linear(3, 3)).float(), make_batch(8)
    with pytest.raises(RunError, match="forward_mode"):
        LLR().check(model, batch, THREAT, noise_for(batch))
    assert LLR(form="differences").check(model, batch, THREAT, noise_for(batch)) == []


def test_check_says_which_mode_and_warns(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "unperturbed")
    batch = make_batch(8)
    kinked = nn.Sequential(nn.Flatten(), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 3))
    cases: list[tuple[nn.Module, str, list[str]]] = [
        (net(True, torch.float32), "forward mode", []),
        (network("plain"), "reverse mode", []),
        (kinked, "forward mode", ["piecewise linear"]),
        (network("dropout"), "reverse mode", ["dropout"]),
    ]
    for model, mode, warned in cases:
        caplog.clear()
        with untouched(model, batch.x):
            texts = LLR().check(InPrecision(model), batch, THREAT, noise_for(batch))
        assert f"taken in {mode}" in caplog.text
        assert len(texts) == len(warned) and all(word in text for word, text in zip(warned, texts, strict=True))
        assert all("llr" in text for text in texts)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"nominal": -1.0}, "nominal"), ({"gap": -0.1}, "gap"), ({"slope": float("nan")}, "slope"),
     ({"parts": 0}, "parts"), ({"form": "forward"}, "forward")],
)  # fmt: skip
def test_wrong_settings_are_refused(wrong: dict[str, float], named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match=named):
        LLR(**wrong)  # type: ignore[arg-type]


def test_stronger_doubles_the_search() -> None:
    assert LLR(gap=3.0, form="differences").stronger() == LLR(gap=3.0, form="differences", maximiser=PGD(steps=4))


class Switched(nn.Module):
    """Counts the forwards by the precision that they run in."""

    forward_mode = True

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.autocast = inner, []

    def forward(self, x: Inputs) -> Logits:
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        logits: Logits = self.inner(x)
        return logits


@every_variant
def test_the_regulariser_is_computed_in_the_weights_own_precision(variant: str) -> None:
    """Also where training is in bfloat16, the recomputed parts included; the clean loss alone may be in that."""
    batch, z = make_batch(8), somewhere(make_batch(8))
    ends = []
    for autocast in (None, torch.bfloat16):
        seen = Switched(net(True, torch.float32))
        terms = VARIANTS[variant].loss(InPrecision(seen, autocast), batch, Inner(z), THREAT, noise_for(batch))
        gradients = [weight_gradient(terms["gap"] + terms["slope"], seen), weight_gradient(total(terms), seen)]
        assert len(seen.autocast) >= 3 - (VARIANTS[variant].form == "exact") and not any(seen.autocast[1:])
        ends.append((terms, gradients))
    for name, term in ends[0][0].items():
        torch.testing.assert_close(ends[1][0][name], term, rtol=0.02, atol=1e-3)
    for mine, theirs in zip(ends[1][1], ends[0][1], strict=True):
        assert (mine - theirs).norm() <= 0.02 * theirs.norm()
