import copy
from collections.abc import Callable

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from support.examples import differentiable_once
from support.toys import Function, blobs, equal, mlp, state
from unperturbed.errors import RunError
from unperturbed.losses import cross_entropy, kl
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method
from unperturbed.methods.erm import ERM
from unperturbed.methods.free import Free
from unperturbed.methods.llr import LLR
from unperturbed.methods.trades import TRADES
from unperturbed.networks.precision import InPrecision
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training.step import optimisation_step
from unperturbed.types import Batch, Inner, Logits, Terms

THREAT = Threat("Linf", 0.1)


def batch_of(n: int = 12) -> Batch:
    x, y = blobs(n)
    return Batch(x, y, torch.arange(100, 100 + n))


def step(model: nn.Module, method: Method, lr: float = 1.0, clip: float | None = None) -> tuple[Terms, Inner]:
    fabric = Fabric(accelerator="cpu", devices=1)
    wrapped, optimiser = fabric.setup(model.train(), torch.optim.SGD(model.parameters(), lr=lr))
    batch = batch_of()
    noise = Noise.of(3, batch.ids)
    return optimisation_step(fabric, InPrecision(model), wrapped, optimiser, method, batch, THREAT, noise, clip)


def at_loss(model: nn.Module, batch: Batch, noise: Noise) -> torch.Tensor:
    z = AT().perturb(model, batch, THREAT, noise).z
    return cross_entropy(model(z), batch.y).mean()


def trades_loss(model: nn.Module, batch: Batch, noise: Noise) -> torch.Tensor:
    z = TRADES().perturb(model, batch, THREAT, noise).z
    clean: Logits = model(batch.x)
    return cross_entropy(clean, batch.y).mean() + 6 * kl(model(z), clean).mean()


@pytest.mark.parametrize(("method", "loss"), [(AT(), at_loss), (TRADES(), trades_loss)])
def test_a_step_follows_the_gradient_of_the_loss(method: Method, loss: Callable[..., torch.Tensor]) -> None:
    model = mlp(6, 3)
    by_hand = copy.deepcopy(model)
    terms, _ = step(model, method)
    batch = batch_of()
    value = loss(by_hand, batch, Noise.of(3, batch.ids))
    gradients = torch.autograd.grad(value, list(by_hand.parameters()))
    torch.testing.assert_close(torch.stack(list(terms.values())).sum(), value.detach())
    for now, before, gradient in zip(model.parameters(), by_hand.parameters(), gradients, strict=True):
        torch.testing.assert_close(now, before - gradient)
    assert not any(term.requires_grad for term in terms.values())


def change(model: nn.Module, clip: float | None) -> float:
    before = state(model)
    step(model, AT(), clip=clip)
    after = model.state_dict()
    return float(sum((after[name] - before[name]).square().sum() for name in before).sqrt())


def test_a_long_gradient_is_cut_to_length_and_a_short_one_left_alone() -> None:
    free = change(mlp(6, 3), None)
    assert free > 0.1
    assert change(mlp(6, 3), free / 3) == pytest.approx(free / 3, rel=1e-4)
    assert change(mlp(6, 3), 10 * free) == pytest.approx(free, rel=1e-6)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change() -> None:
    inner = mlp(6, 3)

    def unsound(x: torch.Tensor) -> Logits:
        logits: Logits = inner(x)
        return torch.where(x[:, :1] > -1, torch.nan, logits)

    model = Function(unsound)
    model.inner = inner
    before = state(model)
    with pytest.raises(RunError, match=r"loss is not finite \(clean nan\) on the examples \[100, 101, .*111\]"):
        step(model, ERM())
    assert equal(before, state(model)) and all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(clip: float | None) -> None:
    """The root of a sum of squares is 0 at these weights, and its slope infinite."""
    model = mlp(6, 3)
    rooted = Function(lambda x: model(x) + (x - x).matmul(model[0].weight.T).square().sum(1, keepdim=True).sqrt())
    rooted.inner = model
    before = state(rooted)
    with pytest.raises(RunError, match=r"gradient is not finite, though the loss is \(clean \d.*\[100, 101, .*111\]"):
        step(rooted, ERM(), clip=clip)
    assert equal(before, state(rooted))


def test_a_second_derivative_that_is_missing_stops_with_a_remedy() -> None:
    """As torch has none of hardsigmoid; which operations lack one depends on its version."""

    class Prototypes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.centres = nn.Parameter(torch.linspace(0, 1, 18).view(3, 6))

        def forward(self, x: torch.Tensor) -> Logits:
            return -torch.cdist(differentiable_once(x), self.centres)

    model = Prototypes()
    before = state(model)
    with pytest.raises(RunError, match="once_backward.*llr with --method.form differences"):
        step(model, LLR())
    assert equal(before, state(model))
    step(model, LLR(form="differences"))


def test_perturbing_sees_eval_mode_and_frozen_weights_and_the_loss_train_mode() -> None:
    seen: list[tuple[bool, bool]] = []
    model = mlp(6, 3, norm=True, dropout=0.2)
    first = model[0]
    model[1].register_forward_hook(lambda module, *_: seen.append((module.training, first.weight.requires_grad)))
    step(model, AT())
    assert seen == [(False, False)] * 7 + [(True, True)]


def test_a_method_with_memory_is_told_once_a_step() -> None:
    method = Free()
    _, inner = step(mlp(6, 3), method)
    assert method.delta.shape == (12, 6) and float(method.delta.abs().max()) == pytest.approx(0.1)
    assert inner.z.grad is not None


def test_attacks_see_the_network_s_precision_and_get_their_own_back() -> None:
    inside: list[torch.dtype] = []
    model = mlp(6, 3)
    model[0].register_forward_hook(lambda module, x, y: inside.append(y.dtype))
    logits = InPrecision(model, torch.bfloat16)(blobs(4)[0])
    assert inside == [torch.bfloat16] and logits.dtype == torch.float32
