"""What a network returns and what it takes, made into what everything else works with: inputs in, logits out."""

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
"""Which part of what a network returns are the logits: a place, a name, a function of it, or None: the usual one."""
ONE_LOGIT = "torch.cat([0 * z, z], 1)"


def output_logits(output: object, which: Output = None) -> Tensor:
    """Return the logits in what a model returned: a tensor, an object's `.logits`, or the first item of a tuple.

    `which` names another part. Raises `InputError` where there are none.
    """
    if which is not None:
        return _part(output, which)
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
        "a tuple that starts with it, or an object with .logits; or say which part they are by output= (--output)"
    )


def parts_of(output: object) -> dict[int | str, Tensor]:
    """Return the tensors that an output holds, by the place or name that `output=` takes; of a tensor, none."""
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


def _part(output: object, which: int | str | Callable[[Any], Tensor]) -> Tensor:
    if callable(which):
        logits: object = which(output)
    else:
        try:
            if isinstance(output, Tensor):
                raise InputError(f"output is {which!r}, but the model returned one tensor, not several: leave it out")
            if isinstance(which, int):
                logits = list(output.values())[which] if isinstance(output, Mapping) else output[which]  # type: ignore[index]
            else:
                logits = output[which] if isinstance(output, Mapping) else getattr(output, which)
        except (KeyError, IndexError, AttributeError, TypeError) as error:
            raise InputError(
                f"output is {which!r}, but the model returned a {type(output).__name__}{_listed(output)}"
            ) from error
    if not isinstance(logits, Tensor):
        raise InputError(f"output {which!r} of the model is a {type(logits).__name__}, not a tensor{_listed(output)}")
    return logits


def _listed(output: object) -> str:
    parts = parts_of(output)
    shown = ", ".join(f"{name!r} of shape {tuple(part.shape)}" for name, part in list(parts.items())[:8])
    return f" (its tensors: {shown})" if parts else ""


class Wrapper(nn.Module):
    """A network, at `.module`, that is called in another way than it would be; `note` says how, for warnings."""

    def __init__(self, module: nn.Module, note: str = "") -> None:
        super().__init__()
        self.module, self.note = module, note


class LogitsOnly(Wrapper):
    """A model, at `.module`, whose logits lie within what it returns; `which` says where."""

    forward_mode: ClassVar[bool] = True

    def __init__(self, module: nn.Module, which: Output = None, note: str = "") -> None:
        super().__init__(module, note)
        self.which = which

    def forward(self, x: Inputs) -> Logits:
        """Return the logits; a part that was asked for may be in eval or train mode alone."""
        output = self.module(x)
        return output if isinstance(output, Tensor) and not callable(self.which) else output_logits(output, self.which)

    def extra_repr(self) -> str:
        """Return which part is meant."""
        return "" if self.which is None else f"output={getattr(self.which, '__qualname__', self.which)!r}"


class Copied(Wrapper):
    """A network that changes its inputs in place, called on a copy: the caller's inputs stay as they are."""

    forward_mode: ClassVar[bool] = True

    def forward(self, x: Inputs) -> Any:
        """Return what the network does."""
        return self.module(x.clone())


class OneLogit(Wrapper):
    """A binary network with one logit z, for class 1, as one with the two logits (0, z)."""

    forward_mode: ClassVar[bool] = True

    def forward(self, x: Inputs) -> Logits:
        """Return (0, z)."""
        z = self.module(x).reshape(len(x), 1)
        return torch.cat([0 * z, z], 1)


class NotReentrant(Wrapper):
    """A network with activation checkpoints of the reentrant form, which knows no gradients of inputs: in the other."""

    def forward(self, x: Inputs) -> Any:
        """Return what the network does."""
        with _checkpoints_replaced(_NotReentrant()):
            return self.module(x)


class WithGradient(Wrapper):
    """A network that takes gradients of its inputs in its forward, which then needs them also where none are taken."""

    def forward(self, x: Inputs) -> Logits:
        """Return the logits; without a graph where none was asked for."""
        with torch.enable_grad():
            logits: Logits = self.module(x if x.requires_grad else x.detach().requires_grad_())
        return logits if torch.is_grad_enabled() else logits.detach()


class _NotReentrant:
    """Stands where torch has the reentrant form, and runs the other one."""

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
    """What a network did with a few inputs."""

    output: object
    changed_inputs: bool
    reentrant: bool
    with_gradient: bool = False
    """Whether it works only where gradients are on, for its inputs too."""


def try_on(model: nn.Module, x: Inputs) -> Trial:
    """Return what the network does with a copy of `x`, in the mode in which it is; without gradients if it can."""
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


def _trial(model: nn.Module, given: Inputs) -> Trial:
    before, version, instead = given.detach().clone(), given._version, _NotReentrant()
    with _checkpoints_replaced(instead):
        output = model(given)
    changed = given._version != version or not torch.equal(given.detach().nan_to_num(), before.nan_to_num())
    return Trial(output, changed, instead.calls > 0)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside all wrappers: what is trained, saved and loaded."""
    while isinstance(model, Wrapper):
        model = model.module
    return model


def notes_on(model: nn.Module) -> list[str]:
    """Return what the wrappers around a network say of it."""
    notes = []
    while isinstance(model, Wrapper):
        notes += [model.note] if model.note else []
        model = model.module
    return notes[::-1]
