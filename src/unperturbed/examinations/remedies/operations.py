"""Gradients past operations without one: rounding, detaching, no_grad, hooks, hand-written backwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unperturbed.examinations.remedies.passing import ORIGINAL_APPLY, passed
from unperturbed.types import Inputs, Logits

_ROUNDING = frozenset(
    ("round", "floor", "ceil", "trunc", "fix", "sign", "sgn", "heaviside", "bucketize", "searchsorted")
)
_INTEGER = frozenset(("int", "long", "short", "byte", "char"))


class PastOperations(nn.Module):
    """A network with the same logits, whose gradient passes unchanged through operations with a wrong gradient or none.

    Backward pass differentiable approximation (Athalye et al. 2018, https://arxiv.org/abs/1802.00420, section 4.1) of
    every rounding, conversion to integers, `detach`, `.data`, `no_grad` and hook on a gradient, by the identity;
    gradients that are not finite count as 0 where they arise.

    Args:
        network: returns logits.
        functions: whether shape-preserving `autograd.Function`s are passed as well, with any backward.
    """

    def __init__(self, network: nn.Module, functions: bool = True) -> None:
        super().__init__()
        self.network, self.functions = network, functions

    def forward(self, x: Inputs) -> Logits:
        """Return the logits."""
        if not torch.is_grad_enabled():
            return self.network(x)  # type: ignore[no-any-return]
        with _without_hooks(self.network), _functions_passed(self.functions), _Passing():
            return self.network(x)  # type: ignore[no-any-return]


class _Passing(TorchFunctionMode):
    """Operations without a useful gradient are the identity in the backward in this block."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if func is torch._C._set_grad_enabled and args and args[0] is False:
            return None
        first = args[0] if args else None
        if not (isinstance(first, Tensor) and first.requires_grad and torch.is_grad_enabled()):
            return _finite(func(*args, **kwargs))
        if name == "detach" or (name == "__get__" and func is Tensor.data.__get__):  # type: ignore[attr-defined]
            return first.clone()
        if name == "register_hook":
            return _NoHandle()
        if name == "requires_grad_":
            if not first.is_leaf:
                first.retain_grad()
            return first
        rounded = name.rstrip("_") in _ROUNDING or kwargs.get("rounding_mode") is not None
        if rounded or name in _INTEGER or (name in ("to", "type") and _to_integers((*args[1:], *kwargs.values()))):
            with torch.no_grad():
                value = func(first.detach().clone(), *args[1:], **kwargs)
            if isinstance(value, Tensor) and value.shape == first.shape:
                return passed(_scaled(first, args, kwargs), value.to(first.dtype))
            return value
        return _finite(func(*args, **kwargs))


def _scaled(first: Tensor, args: Any, kwargs: Any) -> Tensor:
    """Return the unrounded quotient of a rounding division."""
    return first / args[1] if kwargs.get("rounding_mode") is not None and len(args) > 1 else first


def _to_integers(arguments: tuple[Any, ...]) -> bool:
    return any(isinstance(argument, torch.dtype) and not argument.is_floating_point for argument in arguments)


def _finite(value: Any) -> Any:
    """Replace the gradient of a result by 0 where it is not finite."""
    if isinstance(value, Tensor) and value.requires_grad and value.grad_fn is not None and value.is_floating_point():
        value.register_hook(lambda gradient: gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0))  # type: ignore[no-untyped-call]
    return value


class _NoHandle:
    """The handle of a hook that was not registered."""

    def remove(self) -> None:
        """Do nothing, since no hook exists."""


@contextmanager
def _functions_passed(active: bool) -> Iterator[None]:
    """Hand-written backwards of functions that keep the shape of their input are the identity in this block."""
    if not active:
        yield
        return

    def apply(kind: Any, *args: Any, **kwargs: Any) -> Any:
        sources = [argument for argument in args if isinstance(argument, Tensor) and argument.requires_grad]
        if len(sources) != 1 or not torch.is_grad_enabled():
            return ORIGINAL_APPLY.__func__(kind, *args, **kwargs)
        plain = [argument.detach() if isinstance(argument, Tensor) else argument for argument in args]
        with torch.no_grad():
            value = ORIGINAL_APPLY.__func__(kind, *plain, **kwargs)
        if isinstance(value, Tensor) and value.shape == sources[0].shape and value.is_floating_point():
            return passed(sources[0], value)
        return ORIGINAL_APPLY.__func__(kind, *args, **kwargs)

    torch.autograd.Function.apply = classmethod(apply)  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        torch.autograd.Function.apply = ORIGINAL_APPLY  # type: ignore[method-assign]


@contextmanager
def _without_hooks(network: nn.Module) -> Iterator[None]:
    """Remove the modules' backward hooks in this block."""
    names = ("_backward_hooks", "_backward_pre_hooks")
    saved = [(module, name, dict(vars(module).get(name) or {})) for module in network.modules() for name in names]
    try:
        for module, name, hooks in saved:
            if hooks:
                vars(module)[name].clear()
        yield
    finally:
        for module, name, hooks in saved:
            if hooks:
                vars(module)[name].update(hooks)
