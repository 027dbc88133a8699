"""A network as a function of one example: with the same state in every call, and for single examples."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unperturbed.types import Inputs, Logits

_TORCH = frozenset(vars(nn.Module()))
"""Attributes that every module has."""


class Reset(nn.Module):
    """A network whose calls all begin in the state at construction, whatever other calls did to it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.state = State(network)

    def forward(self, x: Inputs) -> Logits:
        """Return the logits of a first call, and leave the network as before it."""
        self.state.restore()
        try:
            logits: Logits = self.network(x)
            return logits
        finally:
            self.state.restore()


class OneByOne(nn.Module):
    """A network that is called with single examples."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Inputs) -> Logits:
        """Return the logits of each example in a separate batch."""
        if len(x) == 0:
            return self.network(x)  # type: ignore[no-any-return]
        return torch.cat([self.network(x[row : row + 1]) for row in range(len(x))])


class Reachable(nn.Module):
    """A network without input gradients, with a gradient of 0 instead: attacks run, and find nothing."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Inputs) -> Logits:
        """Return the logits, joined to the inputs."""
        logits: Logits = self.network(x)
        return logits if logits.requires_grad or not x.requires_grad else _Joined.apply(x, logits)  # type: ignore[no-untyped-call]


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, logits: Tensor) -> Tensor:
        context.like = x
        return logits.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return torch.zeros_like(context.like), None


class State:
    """Buffers and plain attributes of all modules of a network: tensors, numbers, text, and lists of those.

    State elsewhere (closures, other objects) is not part of it.
    """

    def __init__(self, model: nn.Module) -> None:
        self.buffers = [(module, dict(module._buffers), _copies(module._buffers)) for module in model.modules()]
        self.attributes = [(module, _plain(module)) for module in model.modules()]

    def restore(self) -> None:
        """Give the network the state that it had at construction; it can be restored again."""
        for module, originals, copies in self.buffers:
            for name, original in originals.items():
                current, before = module._buffers.get(name), copies[name]
                if current is original and (before is None or _equal(original, before)):
                    continue
                module._buffers[name] = _copy(before)
        for module, before in self.attributes:
            for name in [name for name in vars(module) if name not in _TORCH and name not in before]:
                if _is_plain(vars(module)[name]):
                    del vars(module)[name]
            for name, value in before.items():
                if name not in vars(module) or not _equal(vars(module)[name], value):
                    vars(module)[name] = _copy(value)


@contextmanager
def state_restored(model: nn.Module) -> Iterator[None]:
    """Restore the state of a network after the block."""
    state = State(model)
    try:
        yield
    finally:
        state.restore()


def _copies(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _copy(value) for name, value in values.items()}


def _plain(module: nn.Module) -> dict[str, Any]:
    return {name: _copy(value) for name, value in vars(module).items() if name not in _TORCH and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple | deque | set):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, Tensor | int | float | complex | str | bytes)


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone() if not isinstance(value, nn.Parameter) else value
    if isinstance(value, deque):
        return deque(map(_copy, value), value.maxlen)
    if type(value) in (list, tuple, set):
        return type(value)(map(_copy, value))
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, dict) else value


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a is b or (a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num()))
    if isinstance(a, list | tuple | deque) and isinstance(b, list | tuple | deque):
        return type(a) is type(b) and len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    return type(a) is type(b) and bool(a == b)
