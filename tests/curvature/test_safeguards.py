"""The look at the network before the first step: what is said, what is refused, and that nothing is changed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from support.examples import differentiable_once, make_batch, network, noise_for, untouched
from unperturbed.architectures.small_cnn import SmallCNN
from unperturbed.curvature import safeguards
from unperturbed.curvature.products import forward_slope
from unperturbed.curvature.safeguards import check_slope, dropout_warning, piecewise_linear_warning
from unperturbed.errors import RunError
from unperturbed.networks.precision import InPrecision
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Logits, Model, PerExample

BATCH, THREAT = make_batch(8), Threat("Linf", 0.2)


def look(model: nn.Module, double: bool = False) -> None:
    batch = make_batch(8, torch.float64) if double else BATCH
    check_slope(model.double() if double else model, batch, THREAT, noise_for(batch))


def said(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records if record.name == "unperturbed")


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "unperturbed")


@pytest.mark.parametrize("net", ["norm", "frozen", "wrapped"])
def test_proven_networks_pass_and_the_log_says_forward_mode(net: str, caplog: pytest.LogCaptureFixture) -> None:
    """Also inside training's bfloat16, which slopes do without; nothing of the network's is changed."""
    model: nn.Module = network("norm")
    if net == "frozen":
        model[1].eval().requires_grad_(False)  # type: ignore[index]
    if net == "wrapped":
        model = InPrecision(SmallCNN((2, 4, 4), 3, width=2, activation="relu"), torch.bfloat16)
    with untouched(model, BATCH.x, BATCH.y):
        look(model)
    assert "forward mode" in said(caplog)


@pytest.mark.parametrize("net", ["plain", "dropout"])
def test_other_networks_are_left_to_reverse_mode_and_the_log_says_why(
    net: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = network(net)
    with untouched(model, BATCH.x):
        look(model)
    assert "reverse mode" in said(caplog)
    assert {"plain": "2 is a Ripple", "dropout": "5 is a Dropout"}[net] in said(caplog)


class Vouched(nn.LayerNorm):
    """Torch's forward mode has a wrong weight gradient on it."""

    forward_mode = True


class Detached(torch.autograd.Function):
    """tanh, whose tangent keeps no graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = x.tanh()
        ctx.save_for_backward(out)
        ctx.save_for_forward(out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (out,) = ctx.saved_tensors
        return gradient * (1 - out**2)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:  # type: ignore[override]
        (out,) = ctx.saved_tensors
        return (tangent * (1 - out**2)).detach()


class DetachedTanh(nn.Module):
    forward_mode = True

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = Detached.apply(x)
        return out


def between(module: nn.Module) -> nn.Module:
    """Return a network with this module behind its first layer, so that the last layer hides no mistake."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(32, 6), module, nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("module", [Vouched(6), DetachedTanh()], ids=["layer norm", "a tangent without graph"])
def test_a_class_that_wrongly_vouches_for_itself_is_refused(module: nn.Module, double: bool) -> None:
    model = between(module)
    with untouched(model.double() if double else model), pytest.raises(RunError, match="forward_mode = True"):
        look(model, double)


@pytest.mark.parametrize("wrong", ["nan", "zero in reverse", "no graph at all"])
def test_forward_modes_that_differ_in_any_way_are_refused(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient that is not a number; one where there should be none; none where there should be one."""

    def broken(model: Model, x: Inputs, v: Inputs, loss: Any) -> tuple[PerExample, PerExample]:
        value, slope = forward_slope(model, x, v, loss)
        return value, {"nan": slope * torch.nan, "zero in reverse": slope, "no graph at all": slope.detach()}[wrong]

    def none(model: Model, x: Inputs, v: Inputs, loss: Any) -> tuple[PerExample, PerExample]:
        value, slope = forward_slope(model, x, v, loss)
        return value, 0 * slope

    monkeypatch.setattr(safeguards, "forward_slope", broken)
    if wrong == "zero in reverse":
        monkeypatch.setattr(safeguards, "reverse_slope", none)
    with pytest.raises(RunError, match="forward_mode"):
        look(network("norm"))


def test_weights_that_nothing_depends_on_are_no_difference() -> None:
    class Idle(nn.Module):
        forward_mode = True

        def __init__(self) -> None:
            super().__init__()
            self.idle, self.inner = nn.Parameter(torch.ones(3)), network("norm")

        def forward(self, x: Inputs) -> Logits:
            logits: Logits = self.inner(x)
            return logits

    look(Idle())


def test_a_ball_of_radius_zero_is_no_reason_to_refuse() -> None:
    check_slope(network("norm"), BATCH, Threat("Linf", 0.0), noise_for(BATCH))


@pytest.mark.parametrize(
    ("modules", "warned"),
    [
        ((nn.ReLU(),), True),
        ((nn.LeakyReLU(), nn.PReLU()), True),
        ((nn.ReLU6(inplace=True),), True),
        ((nn.ReLU(), nn.SiLU()), False),
        ((nn.Softplus(),), False),
        ((), False),
    ],
)
def test_piecewise_linear_networks_are_warned_of(modules: tuple[nn.Module, ...], warned: bool) -> None:
    """Where all activations have kinks and no curvature; a linear network has none to replace."""
    texts = piecewise_linear_warning(nn.Sequential(nn.Linear(3, 3), nn.Sequential(*modules)), torch.rand(8, 3), "llr")
    assert bool(texts) == warned
    if warned:
        assert "llr" in texts[0] and "--model.activation silu" in texts[0]


class Functional(nn.Module):
    """Its activation is not a module."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.act = activation
        self.conv, self.norm, self.last = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: Inputs) -> Logits:
        h = functional.max_pool2d(self.act(self.norm(self.conv(x))), 2)
        logits: Logits = self.last(h.flatten(1))
        return logits


def without_second_derivative(h: Tensor) -> Tensor:
    return differentiable_once(h.relu())


@pytest.mark.parametrize(
    ("activation", "warned"),
    [
        (functional.relu, True),
        (lambda h: torch.maximum(h, h / 10), True),
        (functional.silu, False),
        (torch.sin, False),
        (without_second_derivative, False),
    ],
)
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_kinks_in_functions_are_seen_by_their_derivatives(
    activation: Callable[[Tensor], Tensor], warned: bool, autocast: torch.dtype | None
) -> None:
    torch.manual_seed(0)
    model = InPrecision(Functional(activation), autocast)
    with untouched(model, BATCH.x):
        assert bool(piecewise_linear_warning(model, BATCH.x, "llr")) == warned


@pytest.mark.parametrize(
    ("module", "warned"),
    [(nn.Dropout(0.1), True), (nn.Dropout2d(0.1), True), (nn.AlphaDropout(0.1), True), (nn.Dropout(0.0), False)],
)
def test_dropout_is_warned_of_where_it_drops(module: nn.Module, warned: bool) -> None:
    assert bool(dropout_warning(nn.Sequential(nn.Linear(3, 3), module), torch.rand(8, 3), "llr")) == warned
    assert not dropout_warning(network("norm"), BATCH.x, "llr")


@pytest.mark.parametrize("training", [True, False])
def test_randomness_that_is_no_dropout_module_is_warned_of(training: bool) -> None:
    """Where there is any: not in eval mode. The random state and batch norm's averages are as before."""

    class Shallow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.BatchNorm2d(2)

        def forward(self, x: Tensor) -> Tensor:
            kept = torch.rand(len(x), 1, 1, 1) > 0.5 if self.training else 0.5
            return x + kept * self.block(x)

    model = nn.Sequential(Shallow(), nn.Flatten(), nn.Linear(32, 3)).train(training)
    with untouched(model, BATCH.x):
        assert bool(dropout_warning(model, BATCH.x, "llr")) == training


@pytest.mark.parametrize("scale", [10, 20, 40, 80])
def test_a_network_that_fits_well_is_not_refused(scale: float) -> None:
    """Where all probabilities are nearly 1 float32 rounds the two forms differently: the comparison is in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.SiLU(), nn.Flatten(), nn.Linear(64, 3))
    batch = make_batch(8)
    with torch.no_grad():
        model[4].weight.mul_(scale)
    batch = Batch(batch.x, model(batch.x).argmax(1), batch.ids)
    check_slope(model, batch, Threat("Linf", 0.01), noise_for(batch))
