"""The interface of training methods: `perturb` and `loss`."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from unperturbed.checks import check_fields
from unperturbed.errors import InputError
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Model, PerExample, Terms


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes, the same on all."""
    if not several_processes():
        return tensor
    total = tensor.detach().clone()
    torch.distributed.all_reduce(total)
    return total


def mean_over_processes(tensor: Tensor) -> Tensor:
    """Return the mean of a tensor over the processes, the same on all; a method's memory is made of such means."""
    return sum_over_processes(tensor) / torch.distributed.get_world_size() if several_processes() else tensor


def several_processes() -> bool:
    """Tell whether this is one of several processes that train together."""
    initialised = torch.distributed.is_available() and torch.distributed.is_initialized()
    return initialised and torch.distributed.get_world_size() > 1


@dataclass(frozen=True)
class EpochEnd:
    """The arguments of a method's `after_epoch`.

    Attributes:
        clean_accuracy: of the selected weights, on the clean examples of the probe.
        examples: number of these examples.
        done: share of the run.
        averaged: whether these weights are a running average, to which the losses of the steps do not belong.
    """

    clean_accuracy: float
    examples: int
    done: float
    averaged: bool = False


class Method(ABC):
    """The objective that training minimises.

    `perturb` runs on the bare network in eval mode with frozen weights; `loss` runs on the network as training wraps
    it, in train mode. A method with memory is an `nn.Module` whose memory is in buffers; the others are frozen
    dataclasses. The threat comes with the call, so that a ramp of eps is a smaller threat.
    """

    name: ClassVar[str]
    repeats: ClassVar[int] = 1
    """Optimisation steps per batch."""
    ramp: ClassVar[float] = 0.0
    """Share of the run over which eps grows from 0, unless the recipe says otherwise."""
    first_order: ClassVar[str] = ""
    """The options with which the method needs no second derivative of the network, if others do, for messages."""

    def __post_init__(self) -> None:
        """Check the settings of a method that is a dataclass; raises InputError."""
        if is_dataclass(self):
            check_fields(self)

    @abstractmethod
    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Return the perturbed inputs, and other results that `loss` can reuse."""

    @abstractmethod
    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the named, weighted terms whose sum is minimised; may be called twice a step, so no side effects."""

    def after_step(self, batch: Batch, inner: Inner, terms: Terms, threat: Threat) -> None:  # noqa: B027
        """Update the method's memory, once per optimisation step."""

    def after_epoch(self, end: EpochEnd) -> None:  # noqa: B027
        """Update the method's memory, once per epoch."""

    def feasible(self) -> bool | None:
        """Tell whether the last epoch's selected weights met the method's limit; None: no limit, or unknown.

        Weights of epochs that met it are preferred, and early stopping waits for one.
        """
        return None

    def conclude(self) -> list[str]:
        """Return sentences for the user at the end of a run."""
        return []

    def check(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> list[str]:
        """Return warnings before the first step of a run, from a check on a few examples in train mode.

        Raises:
            RunError: if training this network by this method would go wrong silently.
        """
        return []

    def examine(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> dict[str, PerExample]:
        """Return quantities of the method on held-out examples under attack, for the log of an epoch."""
        return {}

    def stronger(self) -> "Method | None":
        """Return the method with twice the steps of its inner maximisation, or None if it has no steps."""
        method: Any = self
        names: list[str] = [field.name for field in fields(method)] if is_dataclass(self) else []
        for name in names:
            longer = _longer(getattr(method, name))
            if longer is not None:
                stronger: Method = replace(method, **{name: longer})
                return stronger
        return None


def _longer(maximiser: Any) -> Any:
    """Return the maximiser with twice the steps, also inside `Restarts`; None if it has no steps."""
    if hasattr(maximiser, "steps"):
        return replace(maximiser, steps=2 * maximiser.steps)
    inner = _longer(maximiser.maximiser) if hasattr(maximiser, "maximiser") else None
    return None if inner is None else replace(maximiser, maximiser=inner)


class Wrapper(Method):
    """A method around another one; by default every call goes to the inner method."""

    method: Method

    def adopt(self) -> None:
        """Copy the inner method's repeats and ramp.

        Raises:
            InputError: if it is no method.
        """
        if not isinstance(self.method, Method):
            raise InputError(f"The wrapped method is {self.method!r:.80}: give a method, such as AT().")
        object.__setattr__(self, "repeats", self.method.repeats)
        object.__setattr__(self, "ramp", self.method.ramp)

    @abstractmethod
    def around(self, method: Method) -> "Wrapper":
        """Return the same wrapper, memory included, around another method."""

    def inside(self) -> Iterator[Method]:
        """Yield the wrapped methods from the outermost to the innermost."""
        yield self.method
        if isinstance(self.method, Wrapper):
            yield from self.method.inside()

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Return the inner method's points."""
        return self.method.perturb(model, batch, threat, noise)

    def after_step(self, batch: Batch, inner: Inner, terms: Terms, threat: Threat) -> None:
        """Update the inner method's memory."""
        self.method.after_step(batch, inner, terms, threat)

    def after_epoch(self, end: EpochEnd) -> None:
        """Update the inner method's memory."""
        self.method.after_epoch(end)

    def feasible(self) -> bool | None:
        """Return the inner method's answer."""
        return self.method.feasible()

    def conclude(self) -> list[str]:
        """Return what the inner method has to say."""
        return self.method.conclude()

    def check(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> list[str]:
        """Return what the inner method has to say."""
        return self.method.check(model, batch, threat, noise)

    def examine(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> dict[str, PerExample]:
        """Return the inner method's quantities."""
        return self.method.examine(model, batch, threat, noise)

    def stronger(self) -> Method | None:
        """Return the wrapper around the stronger inner method, if it exists."""
        inner = self.method.stronger()
        return None if inner is None else self.around(inner)
