"""What a training method is: a perturb and a loss."""

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
    """Return the sum over the processes of what each has on its device, the same on all."""
    if not several_processes():
        return tensor
    total = tensor.detach().clone()
    torch.distributed.all_reduce(total)
    return total


def mean_over_processes(tensor: Tensor) -> Tensor:
    """Return the mean over the processes of what each has on its device, the same on all: what memory is made of."""
    return sum_over_processes(tensor) / torch.distributed.get_world_size() if several_processes() else tensor


def several_processes() -> bool:
    """Tell whether this is one of several processes that train together."""
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return there and torch.distributed.get_world_size() > 1


@dataclass(frozen=True)
class EpochEnd:
    """The arguments of a method's `after_epoch`.

    Attributes:
        clean_accuracy: of the weights that count, on the examples that the probe looks at, as they are.
        examples: how many those are.
        done: share of the run.
        averaged: whether those weights are a running average, which the losses of the steps are not of.
    """

    clean_accuracy: float
    examples: int
    done: float
    averaged: bool = False


class Method(ABC):
    """What training minimises.

    `perturb` runs on the bare network in eval mode with frozen weights; `loss` runs on the network as training wraps
    it, in train mode. A method with memory is an `nn.Module` whose memory is in buffers; the others are frozen
    dataclasses. The threat comes with the call, so that a ramp of eps is a smaller threat.
    """

    name: ClassVar[str]
    repeats: ClassVar[int] = 1
    """Optimisation steps that a batch is used for."""
    ramp: ClassVar[float] = 0.0
    """Share of the run over which eps grows from 0, unless the recipe says otherwise."""

    def __post_init__(self) -> None:
        """Check the settings of a method that is a dataclass; raises InputError."""
        if is_dataclass(self):
            check_fields(self)

    @abstractmethod
    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Return the perturbed inputs, and what else has been paid for."""

    @abstractmethod
    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the named, weighted terms whose sum is minimised; may be called twice a step, so no side effects."""

    def after_step(self, batch: Batch, inner: Inner, terms: Terms, threat: Threat) -> None:  # noqa: B027
        """Update the method's own memory, once an optimisation step."""

    def after_epoch(self, end: EpochEnd) -> None:  # noqa: B027
        """Update the method's own memory, once an epoch."""

    def feasible(self) -> bool | None:
        """Tell whether the last epoch's weights that count met the method's limit; None: it has none, or cannot know.

        Weights of such epochs are kept before others, and early stopping waits for one.
        """
        return None

    def conclude(self) -> list[str]:
        """Return, in sentences, what the user should know at the end of a run."""
        return []

    def check(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> list[str]:
        """Return what the user should know before the first step of a run, seen on a few examples in train mode.

        Raises:
            RunError: where training this network by this method would go wrong without a sign.
        """
        return []

    def examine(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> dict[str, PerExample]:
        """Return the method's own quantities on held-out examples under attack, for the log of an epoch."""
        return {}

    def stronger(self) -> "Method | None":
        """Return the method with twice the steps of its inner maximisation, or None if it has none to add to."""
        method: Any = self
        names: list[str] = [field.name for field in fields(method)] if is_dataclass(self) else []
        for name in names:
            longer = _longer(getattr(method, name))
            if longer is not None:
                stronger: Method = replace(method, **{name: longer})
                return stronger
        return None


def _longer(maximiser: Any) -> Any:
    """Return the maximiser with twice the steps, its own or those of the one that it runs; None if there are none."""
    if hasattr(maximiser, "steps"):
        return replace(maximiser, steps=2 * maximiser.steps)
    inner = _longer(maximiser.maximiser) if hasattr(maximiser, "maximiser") else None
    return None if inner is None else replace(maximiser, maximiser=inner)


class Wrapper(Method):
    """A method around another one, which it leaves as it is wherever it does not say otherwise."""

    method: Method

    def adopt(self) -> None:
        """Take over the inner method's repeats and ramp, once it is there.

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
        """Tell what the inner method says."""
        return self.method.feasible()

    def conclude(self) -> list[str]:
        """Return what the inner method has to say."""
        return self.method.conclude()

    def check(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> list[str]:
        """Return what the inner method has to say."""
        return self.method.check(model, batch, threat, noise)

    def examine(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> dict[str, PerExample]:
        """Return what the inner method measures."""
        return self.method.examine(model, batch, threat, noise)

    def stronger(self) -> Method | None:
        """Return the wrapper around the stronger inner method, if there is one."""
        inner = self.method.stronger()
        return None if inner is None else self.around(inner)
