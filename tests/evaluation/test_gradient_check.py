"""A gradient that is not the slope of the function is detected, and a true gradient passes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from support.shares import first
from support.toys import Function, blobs, linear, mlp, uniform
from unperturbed.attacks.straight_through import StraightThrough, reduce_bits
from unperturbed.evaluation.gradient_check import GradientCheck, check_gradient
from unperturbed.networks.modes import under_attack
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Logits, Norm

X, Y = blobs(24)
R = torch.randn(6, 3, generator=torch.Generator().manual_seed(5))
BASE, DEEP = linear(6, 3), mlp(6, 3, seed=1)


class Backward(torch.autograd.Function):
    """The identity, whose gradient is what `change` makes of it."""

    @staticmethod
    def forward(context: object, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        context.change = change  # type: ignore[attr-defined]
        return x.clone()

    @staticmethod
    def backward(context: object, gradient: Tensor) -> tuple[Tensor, None]:
        return context.change(gradient), None  # type: ignore[attr-defined]


def changed(change: Callable[[Tensor], Tensor]) -> Callable[[Inputs], Logits]:
    return lambda x: DEEP(Backward.apply(x, change))  # type: ignore[no-untyped-call,no-any-return]


def detached(x: Inputs) -> Logits:
    slope = 1e-6 * (x @ R)
    logits: Logits = BASE(x).detach() + slope - slope.detach()
    return logits


def hooked(scale: float) -> Callable[[Inputs], Logits]:
    def network(x: Inputs) -> Logits:
        hidden = DEEP[0](x)
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: scale * gradient)
        logits: Logits = DEEP[2](DEEP[1](hidden))
        return logits

    return network


def changed_far_off(change: Callable[[Tensor], Tensor]) -> Callable[[Inputs], Logits]:
    """Return a network whose gradient is changed farther than 0.07 from all the examples."""

    def network(x: Inputs) -> Logits:
        away = (x.detach()[:, None] - X.to(x)).abs().amax(2).amin(1)[:, None]
        return DEEP(Backward.apply(x, lambda slope: torch.where(away > 0.07, change(slope), slope)))  # type: ignore[no-untyped-call,no-any-return]

    return network


def rounded(x: Inputs, levels: int = 20) -> Inputs:
    return (x * levels).round() / levels


def residual(x: Inputs) -> Logits:
    hidden = DEEP[0](x)
    logits: Logits = DEEP[2](DEEP[1](hidden + (0.5 * hidden.tanh()).detach()))
    return logits


PLANTED: dict[str, Callable[[Inputs], Logits]] = {
    "detached path with a tiny random slope": detached,
    "reversed": lambda x: 2 * BASE(x).detach() - BASE(x),
    "rounding with a slope of 1e-5": lambda x: DEEP(rounded(x)) + 1e-5 * (x @ R),
    "rounding with a true slope of 1e-5": lambda x: DEEP(rounded(x) + 1e-5 * x),
    "straight-through": lambda x: DEEP(StraightThrough(reduce_bits(3))(x)),
    "zero gradient": changed(torch.zeros_like),
    "random gradient": changed(torch.randn_like),
    "ripple in the input": lambda x: DEEP(x + 1e-3 * torch.sin(1e5 * x)),
    "ripple in the logits": lambda x: DEEP(x) + 0.1 * torch.sin(1e5 * (x @ R)),
    "detached branch": residual,
    "hook that flips": hooked(-1.0),
    "hook that scales": hooked(0.3),
}


def image_network() -> nn.Module:
    """Return a network with batch norm, maximum pooling and dropout, in eval mode."""
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        body = nn.Sequential(
            *(nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.MaxPool2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8, 3)),
        )
        body.train()(uniform(64, 6))
    return body.eval()


def activated(activation: nn.Module, scale: float = 1.0) -> nn.Module:
    model = mlp(6, 3, seed=2)
    with torch.no_grad():
        for weight in model[0].parameters():
            weight.mul_(scale)
    return nn.Sequential(model[0], activation, model[2])


def tempered(scale: float) -> nn.Module:
    return Function(lambda x: scale * DEEP(x))


HONEST: dict[str, nn.Module] = {
    "linear": BASE,
    "mlp": DEEP,
    "batch norm": mlp(6, 3, norm=True).eval(),
    "images": image_network(),
    "softplus": activated(nn.Softplus()),
    "hardswish": activated(nn.Hardswish()),
    "sigmoid": activated(nn.Sigmoid()),
    "saturated": activated(nn.Sigmoid(), 100.0),
    "large logits": tempered(1e4),
    "small logits": tempered(1e-4),
    "computes in float32": Function(lambda x: DEEP(x.float())),
    "log-softmax": nn.Sequential(DEEP, nn.LogSoftmax(1)),
}


def check(model: nn.Module, threat: Threat, x: Inputs = X, random: bool = False) -> GradientCheck:
    """Check at x and at random corners, as points that a blind search may have found."""
    batch = Batch(x, Y[: len(x)], torch.arange(len(x)))
    z = threat.maximise_linear(x, Noise.of(7, batch.ids).normal(x.shape[1:], x.dtype))
    with under_attack(model):
        return check_gradient(model, batch, z, threat, seed=0, random=random)


THREATS: list[tuple[Norm, float]] = [("Linf", 0.1), ("L2", 0.25), ("L1", 0.5)]


@pytest.mark.parametrize(("norm", "eps"), first(1, THREATS))
@pytest.mark.parametrize("name", PLANTED)
def test_a_gradient_that_is_not_the_slope_never_passes(name: str, norm: Norm, eps: float) -> None:
    found = check(Function(PLANTED[name]), Threat(norm, eps))
    assert found.wrong > 0.5 * found.slopes or found.off > 0.5 * found.segments > 0, found


@pytest.mark.parametrize(("norm", "eps"), THREATS)
@pytest.mark.parametrize("name", HONEST)
def test_an_honest_network_is_not_accused(name: str, norm: Norm, eps: float) -> None:
    found = check(HONEST[name], Threat(norm, eps))
    assert found.wrong + found.lost <= 0.05 * found.slopes and found.off <= 0.1 * found.segments, found
    assert found.slopes == found.segments == len(X)


@pytest.mark.parametrize("eps", [1e-6, 1e-3, 1.0])
def test_an_honest_network_is_not_accused_at_any_radius(eps: float) -> None:
    """Differences at a small radius would drown in float32's rounding."""
    for model in (DEEP, tempered(1e4), Function(lambda x: DEEP(x.float()))):
        found = check(model, Threat("Linf", eps))
        assert found.wrong + found.lost <= 1 and found.off <= 2, found


def test_a_network_in_float64_is_checked_in_float64() -> None:
    assert check(mlp(6, 3, seed=1).double(), Threat("Linf", 0.1), X.double()) == GradientCheck(24, 0, 0, 24, 0)


@pytest.mark.parametrize("change", [torch.neg, torch.zeros_like])
def test_a_gradient_that_is_wrong_far_away_alone_is_seen_where_attacks_have_not_got_there(
    change: Callable[[Tensor], Tensor],
) -> None:
    batch, threat = Batch(X, Y, torch.arange(len(X))), Threat("Linf", 0.1)
    with under_attack(network := Function(changed_far_off(change))):
        found = check_gradient(network, batch, X, threat, seed=0, random=False)
    assert found.wrong > 0.8 * len(X), found


def test_a_backward_that_fails_in_float64_is_checked_in_float32() -> None:
    def in_float32(slope: Tensor) -> Tensor:
        assert slope.dtype == torch.float32
        return -slope

    assert check(Function(changed(in_float32)), Threat("Linf", 0.1)).wrong == 24


def test_ties_at_the_inputs_are_no_fault() -> None:
    """Constant images tie every maximum, where autograd's gradient is one of many."""
    found = check(HONEST["images"], Threat("Linf", 0.1), torch.zeros(24, 6))
    assert found.wrong == 0 and found.off <= 2, found


def test_a_network_that_draws_random_numbers_is_checked_on_one_draw() -> None:
    threat = Threat("Linf", 0.1)
    noisy = Function(lambda x: DEEP(x + 0.1 * torch.randn_like(x)))
    assert check(noisy, threat, random=True).wrong <= 1
    flipped = Function(lambda x: PLANTED["hook that flips"](x + 0.1 * torch.randn_like(x)))
    assert check(flipped, threat, random=True).wrong == 24


def test_a_true_gradient_that_float32_loses_is_told_apart_from_a_wrong_one() -> None:
    """A tanh at 8.3 ends 1.2e-7 below 1, which float32 has in steps of 6e-8."""
    saturated = nn.Sequential(linear(6, 3), nn.Tanh())
    with torch.no_grad():
        saturated[0].weight.mul_(0.05)
        saturated[0].bias.fill_(8.3)
    found = check(saturated, Threat("Linf", 5.0, None))
    assert found.wrong <= 1 and found.lost > 12, found


def test_nothing_is_looked_at_where_nothing_may_move() -> None:
    assert check(DEEP, Threat("Linf", 0.0)) == GradientCheck()
    assert check(DEEP, Threat("Linf", 0.1), X[:0]) == GradientCheck()


def test_the_network_and_the_random_state_are_left_as_they_were() -> None:
    model = mlp(6, 3, norm=True, dropout=0.5).train()
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    check(model, Threat("Linf", 0.1))
    assert torch.equal(torch.get_rng_state(), state) and all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_counts_of_two_blocks_add_up() -> None:
    assert GradientCheck(3, 1, 0, 2, 1) + GradientCheck(1, 1, 1, 1, 0) == GradientCheck(4, 2, 1, 3, 1)
