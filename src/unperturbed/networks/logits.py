"""Wrappers that turn any network into a function from inputs to logits."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils import checkpoint as torch_checkpoint

from unperturbed.errors import InputError
from unperturbed.types import Inputs, Logits

Output = int | str | Callable[[Any], Tensor] | None
"""The logits' part of a network's output: a position, a name, a function of the output; None: the default."""
ONE_LOGIT = "torch.cat([0 * z, z], 1)"


def output_logits(output: object, chosen: Output = None) -> Tensor:
    """Return the logits of a model's output: a tensor, an object's `.logits`, or the first item of a tuple.

    `which` names another part. Raises `InputError` where there are none.
    """
    if chosen is not None:
        return _part(output, chosen)
    if isinstance(output, Tensor):
        return output
    if hasattr(output, "logits"):
        return output_logits(output.logits)
    if isinstance(output, Mapping) and "logits" in output:
        return output_logits(output["logits"])
    if isinstance(output, tuple | list) and output:
        return output_logits(output[0])
    raise InputError(
        f"the model returned a {type(output).__name__} without logits{_listed(output)}: return a tensor (n, classes), "
        "a tuple that starts with it, or an object with .logits; or select the logits by output= (--output)"
    )


def parts_of(output: object) -> dict[int | str, Tensor]:
    """Return the tensors in an output by the position or name for `output=`; empty for a tensor."""
    items: dict[Any, Any] = {}
    if isinstance(output, Mapping):
        items = dict(output)
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        items = dict(zip(output._fields, output, strict=True))
    elif isinstance(output, tuple | list):
        items = dict(enumerate(output))
    elif not isinstance(output, Tensor) and hasattr(output, "__dict__"):
        items = vars(output)
    return {name: value for name, value in items.items() if isinstance(value, Tensor) and isinstance(name, int | str)}


def _part(output: object, chosen: int | str | Callable[[Any], Tensor]) -> Tensor:
    if callable(chosen):
        logits: object = chosen(output)
    else:
        try:
            if isinstance(output, Tensor):
                raise InputError(f"output is {chosen!r}, but the model returned one tensor, not several: leave it out")
            if isinstance(chosen, int):
                logits = list(output.values())[chosen] if isinstance(output, Mapping) else output[chosen]  # type: ignore[index]
            else:
                logits = output[chosen] if isinstance(output, Mapping) else getattr(output, chosen)
        except (KeyError, IndexError, AttributeError, TypeError) as error:
            raise InputError(
                f"output is {chosen!r}, but the model returned a {type(output).__name__}{_listed(output)}"
            ) from error
    if not isinstance(logits, Tensor):
        raise InputError(f"output {chosen!r} of the model is a {type(logits).__name__}, not a tensor{_listed(output)}")
    return logits


def _listed(output: object) -> str:
    parts = parts_of(output)
    shown = ", ".join(f"{name!r} of shape {tuple(part.shape)}" for name, part in list(parts.items())[:8])
    return f" (its tensors: {shown})" if parts else ""


class Wrapper(nn.Module):
    """A network, at `.module`, with a changed call; `note` describes the change, for warnings."""

    def __init__(self, module: nn.Module, note: str = "") -> None:
        super().__init__()
        self.module, self.note = module, note


class LogitsOnly(Wrapper):
    """A model, at `.module`, whose logits are a part of its output; `which` selects them."""

    forward_mode: ClassVar[bool] = True

    def __init__(self, module: nn.Module, which: Output = None, note: str = "") -> None:
        super().__init__(module, note)
        self.which = which

    def forward(self, x: Inputs) -> Logits:
        """Return the logits; the selected part may exist in eval or train mode only."""
        output = self.module(x)
        return output if isinstance(output, Tensor) and not callable(self.which) else output_logits(output, self.which)

    def extra_repr(self) -> str:
        """Return the selected part, for printing."""
        return "" if self.which is None else f"output={getattr(self.which, '__qualname__', self.which)!r}"


class Copied(Wrapper):
    """A network that changes its inputs in place; it gets a copy, so that the caller's inputs do not change."""

    forward_mode: ClassVar[bool] = True

    def forward(self, x: Inputs) -> Any:
        """Return the logits of the network."""
        return self.module(x.clone())


class OneLogit(Wrapper):
    """A binary network with one logit z, for class 1, as one with the two logits (0, z)."""

    forward_mode: ClassVar[bool] = True

    def forward(self, x: Inputs) -> Logits:
        """Return (0, z)."""
        z = self.module(x).reshape(len(x), 1)
        return torch.cat([0 * z, z], 1)


class NotReentrant(Wrapper):
    """A network with reentrant activation checkpoints, which give no gradients of inputs, run in the other form."""

    def forward(self, x: Inputs) -> Any:
        """Return the logits of the network."""
        with _checkpoints_replaced(_NotReentrant()):
            return self.module(x)


class WithGradient(Wrapper):
    """A network whose forward differentiates with respect to its inputs: gradients are enabled at all times."""

    def forward(self, x: Inputs) -> Logits:
        """Return the logits; without a graph if gradients are disabled."""
        with torch.enable_grad():
            logits: Logits = self.module(x if x.requires_grad else x.detach().requires_grad_())
        return logits if torch.is_grad_enabled() else logits.detach()


class _NotReentrant:
    """Replaces torch's reentrant checkpoint function, and runs the other form."""

    def __init__(self) -> None:
        self.calls = 0

    def apply(self, function: Callable[..., Any], preserve: bool, *arguments: Any) -> Any:
        self.calls += 1
        return torch_checkpoint.checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=preserve)


@contextmanager
def _checkpoints_replaced(instead: _NotReentrant) -> Iterator[None]:
    before = torch_checkpoint.CheckpointFunction
    torch_checkpoint.CheckpointFunction = instead  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        torch_checkpoint.CheckpointFunction = before  # type: ignore[misc]


@dataclass(frozen=True, eq=False)
class Trial:
    """The result of a trial call of a network."""

    output: object
    changed_inputs: bool
    reentrant: bool
    with_gradient: bool = False
    """Whether it works only with gradients enabled, also for its inputs."""


def try_on(model: nn.Module, x: Inputs) -> Trial:
    """Call the network on a copy of `x`, in its current mode; without gradients if possible."""
    try:
        with torch.no_grad():
            return _trial(model, x.clone())
    except Exception as error:
        if "grad" not in str(error):
            raise
        try:
            with torch.enable_grad():
                return replace(_trial(model, x.clone().requires_grad_()), with_gradient=True)
        except Exception:
            raise error from None


def _trial(model: nn.Module, x: Inputs) -> Trial:
    before, version, instead = x.detach().clone(), x._version, _NotReentrant()
    with _checkpoints_replaced(instead):
        output = model(x)
    changed = x._version != version or not torch.equal(x.detach().nan_to_num(), before.nan_to_num())
    return Trial(output, changed, instead.calls > 0)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside all wrappers, which is trained, saved and loaded."""
    while isinstance(model, Wrapper):
        model = model.module
    return model


def notes_on(model: nn.Module) -> list[str]:
    """Return the notes of the wrappers around a network."""
    notes = []
    while isinstance(model, Wrapper):
        notes += [model.note] if model.note else []
        model = model.module
    return notes[::-1]
