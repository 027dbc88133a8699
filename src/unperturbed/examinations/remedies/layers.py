"""The layers where the gradient vanishes or is wrong: every layer's backward against its differences."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unperturbed.examinations.remedies.deployed import state_restored
from unperturbed.networks.logits import Wrapper
from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.types import Batch

STEP = 0.02
"""The step of the differences, as a share of the standard deviation of the layer's input."""
PAIRS = 4
"""Number of random directions, each with random weights of the outputs."""
WRONG = 0.6
"""Relative error above which a layer's gradient is wrong; ReLU and max pooling stay below 0.3."""


@dataclass(frozen=True, eq=False)
class LayerCall:
    """The last call of a layer in a forward."""

    path: str
    layer: nn.Module
    given: Tensor
    value: Tensor
    calls: int


@dataclass(frozen=True, eq=False)
class LayerCheck:
    """The check of a layer's gradient.

    Attributes:
        call: of the layer.
        error: relative error of the changes that the gradient predicts; NaN if the output does not change.
        dead: whether the gradient is 0 although the output changes.
        finite: whether the gradient is finite.
        guilty: whether it is wrong here, and right in all layers inside.
    """

    call: LayerCall
    error: float
    dead: bool
    finite: bool
    guilty: bool = False

    @property
    def wrong(self) -> bool:
        """Whether the gradient is not the slope."""
        return not self.finite or self.dead or self.error > WRONG

    def __str__(self) -> str:
        """Return the name of the layer for a reader."""
        kind = type(self.call.layer).__name__
        return f"layer `{self.call.path}` ({kind})" if self.call.path else f"the forward of the network itself ({kind})"


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[LayerCall]]:
    """Record the calls of layers from one tensor to one tensor in this block."""
    calls, handles = list[LayerCall](), []

    def note(path: str) -> Any:
        def hook(layer: nn.Module, inputs: Any, value: Any) -> None:
            if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or not isinstance(value, Tensor):
                return
            if inputs[0].is_floating_point() and value.is_floating_point():
                number = 1 + sum(call.path == path for call in calls)
                calls.append(LayerCall(path, layer, inputs[0].detach(), value.detach(), number))

        return hook

    try:
        for path, layer in model.named_modules():
            handles.append(layer.register_forward_hook(note(path)))
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def last_calls(model: nn.Module, batch: Batch) -> list[LayerCall]:
    """Return the last call of every layer from one tensor to one tensor, in the order of a forward."""
    model = bare(model)
    with _recorded(model) as calls, under_attack(model), torch.no_grad(), state_restored(model):
        model(batch.x.clone())
    last = {call.path: call for call in calls}
    return list(last.values())


def bare(model: nn.Module) -> nn.Module:
    """Return the user's network inside the library's wrappers."""
    while True:
        inner = getattr(model, "network", None)
        if isinstance(model, Wrapper):
            model = model.module
        elif type(model).__module__.startswith("unperturbed.examinations") and isinstance(inner, nn.Module):
            model = inner
        else:
            return model


def check_layers(model: nn.Module, batch: Batch, seed: int) -> tuple[LayerCheck, ...]:
    """Return a check of every layer; guilty layers are wrong while all layers inside are right."""
    model = bare(model)
    checks = []
    with under_attack(model):
        for call in last_calls(model, batch):
            if len(call.given) != len(batch.x) or len(call.value) != len(batch.x):
                continue
            try:
                checks.append(_checked(call, seed))
            except Exception:  # some layers cannot be called alone: they are skipped
                continue
    wrong = {check.call.path for check in checks if check.wrong}
    guilty = {path for path in wrong if not any(_inside(inner, path) for inner in wrong)}
    return tuple(
        LayerCheck(check.call, check.error, check.dead, check.finite, check.call.path in guilty) for check in checks
    )


def _inside(inner: str, outer: str) -> bool:
    return inner != outer and (outer == "" or inner.startswith(f"{outer}."))


def _checked(call: LayerCall, seed: int) -> LayerCheck:
    x, changes, predicted, finite = call.given, [], [], True
    step = STEP * max(float(x.std()), torch.finfo(x.dtype).tiny)
    draw = torch.Generator(x.device).manual_seed(seed)
    for _ in range(PAIRS):
        direction = torch.randn(x.shape, generator=draw, device=x.device, dtype=x.dtype)
        leaf = x.clone().requires_grad_()
        with torch.enable_grad(), own_randomness(seed, x.device), state_restored(call.layer):
            value = call.layer(leaf * 1)
        weights = torch.randn(value.shape, generator=draw, device=value.device, dtype=value.dtype)
        slope = torch.zeros_like(x)
        if value.requires_grad:
            (gradient,) = torch.autograd.grad((value * weights).sum(), leaf, allow_unused=True)
            slope = slope if gradient is None else gradient
        finite = finite and bool(slope.isfinite().all())
        ends = []
        for sign in (1, -1):
            with torch.no_grad(), own_randomness(seed, x.device), state_restored(call.layer):
                ends.append(call.layer(x + sign * step * direction).double())
        changes.append(((ends[0] - ends[1]) * weights).flatten(1).sum(1))
        predicted.append((slope.double() * 2 * step * direction).flatten(1).sum(1))
    size = (torch.cat(changes).square().mean().sqrt(), torch.cat(predicted).square().mean().sqrt())
    error = (torch.cat(changes) - torch.cat(predicted)).square().mean().sqrt()
    largest = max(map(float, size))
    floor = 1e3 * torch.finfo(x.dtype).eps * float(call.value.abs().max())
    clear = float(size[0]) > floor
    return LayerCheck(
        call, float(error) / largest if clear and finite else float("nan"), clear and float(size[1]) == 0, finite
    )
