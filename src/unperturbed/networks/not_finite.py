"""The part of a network where a finite gradient becomes infinite or NaN, as a square root does at zero pixels."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.hooks import RemovableHandle

from unperturbed.networks.logits import unwrapped
from unperturbed.networks.precision import InPrecision
from unperturbed.types import Inputs


@dataclass
class _Call:
    """One forward of a module, and whether the gradients of its outputs and inputs were not finite."""

    path: str
    module: nn.Module
    above: bool = False
    below: bool = False


def where_not_finite(model: nn.Module, x: Inputs, value: Callable[[Tensor], Tensor]) -> str | None:
    """Return the innermost module where the gradient of `value(model(x))` stops being finite, in words.

    None if it is finite, if the loss is the cause, or if the network does not allow hooks.
    """
    leaf = x.detach().clone().requires_grad_()
    try:
        with torch.enable_grad(), _watched(model) as calls:
            torch.autograd.grad(value(model(leaf)).sum(), leaf, allow_unused=True)
    except Exception:  # hooks can fail on any network: the cause is then not named
        return None
    guilty = [call for call in calls if call.below and not call.above]
    if not guilty:
        return None
    call = max(guilty, key=lambda module: module.path.count(".") + bool(module.path))
    kind = type(call.module).__name__
    return f"`{call.path}` ({kind})" if call.path else f"the forward of the network itself ({kind})"


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[_Call]]:
    """Record every call of a module in this block, and whether its gradients are finite."""
    calls, open_calls, handles = list[_Call](), list[_Call](), list[RemovableHandle]()

    def noting(call: _Call, side: str) -> Callable[[Any], Any]:
        def note(gradient: Tensor) -> None:
            if not bool(gradient.isfinite().all()):
                setattr(call, side, True)

        def hook(value: Any) -> Any:
            if isinstance(value, Tensor) and value.requires_grad:
                value.register_hook(note)  # type: ignore[no-untyped-call]
            return value

        return hook

    def enter(path: str) -> Callable[..., Any]:
        def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
            call = _Call(path, module)
            calls.append(call)
            open_calls.append(call)
            # separate views: another user of the same tensor has a separate gradient
            alone = tree_map(lambda value: value.view_as(value) if isinstance(value, Tensor) else value, (args, kwargs))
            return tree_map(noting(call, "below"), alone)

        return before

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        call = open_calls.pop()
        for value in tree_leaves(output):
            noting(call, "above")(value)

    network = unwrapped(model.network if isinstance(model, InPrecision) else model)  # the user's, whose paths are known
    try:
        for path, module in network.named_modules():
            handles.append(module.register_forward_pre_hook(enter(path), with_kwargs=True))
            handles.append(module.register_forward_hook(leave))
        yield calls
    finally:
        for handle in handles:
            handle.remove()
