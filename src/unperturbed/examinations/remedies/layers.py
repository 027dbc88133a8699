"""Where in a network the gradient dies or lies: every layer's own backward against its own differences."""

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
"""Of the differences, as a share of the standard deviation of the layer's input."""
PAIRS = 4
"""Random directions, each with random weights of the outputs."""
WRONG = 0.6
"""Relative error from which a layer's gradient is not its slope; ReLU and max pooling stay below 0.3."""


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
    """How a layer's gradient behaves.

    Attributes:
        call: of the layer.
        error: relative error of the changes that the gradient predicts; NaN where nothing changes.
        dead: whether the gradient is 0 although the output changes.
        finite: whether the gradient is finite.
        guilty: whether it is wrong here, and right in all the layers inside.
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
        """Return what a reader finds the layer by."""
        kind = type(self.call.layer).__name__
        return f"layer `{self.call.path}` ({kind})" if self.call.path else f"the forward of the network itself ({kind})"


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[LayerCall]]:
    """Within: enter the calls of layers that turn one tensor into one tensor."""
    calls, handles = list[LayerCall](), []

    def note(path: str) -> Any:
        def hook(layer: nn.Module, given: Any, value: Any) -> None:
            if len(given) != 1 or not isinstance(given[0], Tensor) or not isinstance(value, Tensor):
                return
            if given[0].is_floating_point() and value.is_floating_point():
                number = 1 + sum(call.path == path for call in calls)
                calls.append(LayerCall(path, layer, given[0].detach(), value.detach(), number))

        return hook

    try:
        for path, layer in model.named_modules():
            handles.append(layer.register_forward_hook(note(path)))
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def last_calls(model: nn.Module, batch: Batch) -> list[LayerCall]:
    """Return the last call of every layer that turns one tensor into one, in the order of a forward."""
    model = bare(model)
    with _recorded(model) as calls, under_attack(model), torch.no_grad(), state_restored(model):
        model(batch.x.clone())
    last = {call.path: call for call in calls}
    return list(last.values())


def bare(model: nn.Module) -> nn.Module:
    """Return the network inside what the library puts around it, whose paths the user knows."""
    while True:
        inner = getattr(model, "network", None)
        if isinstance(model, Wrapper):
            model = model.module
        elif type(model).__module__.startswith("unperturbed.examinations") and isinstance(inner, nn.Module):
            model = inner
        else:
            return model


def check_layers(model: nn.Module, batch: Batch, seed: int) -> tuple[LayerCheck, ...]:
    """Return a check of every layer, with the guilty ones marked: wrong, and everything inside them right."""
    model = bare(model)
    checks = []
    with under_attack(model):
        for call in last_calls(model, batch):
            if len(call.given) != len(batch.x) or len(call.value) != len(batch.x):
                continue
            try:
                checks.append(_checked(call, seed))
            except Exception:  # a layer may refuse to be called alone: it is then not judged
                continue
    wrong = {check.call.path for check in checks if check.wrong}
    guilty = {path for path in wrong if not any(_inside(other, path) for other in wrong)}
    return tuple(
        LayerCheck(check.call, check.error, check.dead, check.finite, check.call.path in guilty) for check in checks
    )


def _inside(inner: str, outer: str) -> bool:
    return inner != outer and (outer == "" or inner.startswith(f"{outer}."))


def _checked(call: LayerCall, seed: int) -> LayerCheck:
    given, seen, predicted, finite = call.given, [], [], True
    step = STEP * max(float(given.std()), torch.finfo(given.dtype).tiny)
    draw = torch.Generator(given.device).manual_seed(seed)
    for _ in range(PAIRS):
        direction = torch.randn(given.shape, generator=draw, device=given.device, dtype=given.dtype)
        leaf = given.clone().requires_grad_()
        with torch.enable_grad(), own_randomness(seed, given.device), state_restored(call.layer):
            value = call.layer(leaf * 1)
        weights = torch.randn(value.shape, generator=draw, device=value.device, dtype=value.dtype)
        slope = torch.zeros_like(given)
        if value.requires_grad:
            (found,) = torch.autograd.grad((value * weights).sum(), leaf, allow_unused=True)
            slope = slope if found is None else found
        finite = finite and bool(slope.isfinite().all())
        ends = []
        for sign in (1, -1):
            with torch.no_grad(), own_randomness(seed, given.device), state_restored(call.layer):
                ends.append(call.layer(given + sign * step * direction).double())
        seen.append(((ends[0] - ends[1]) * weights).flatten(1).sum(1))
        predicted.append((slope.double() * 2 * step * direction).flatten(1).sum(1))
    size = (torch.cat(seen).square().mean().sqrt(), torch.cat(predicted).square().mean().sqrt())
    apart = (torch.cat(seen) - torch.cat(predicted)).square().mean().sqrt()
    largest = max(map(float, size))
    floor = 1e3 * torch.finfo(given.dtype).eps * float(call.value.abs().max())
    clear = float(size[0]) > floor
    return LayerCheck(
        call, float(apart) / largest if clear and finite else float("nan"), clear and float(size[1]) == 0, finite
    )
