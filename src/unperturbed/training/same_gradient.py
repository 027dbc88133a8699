"""Checks, before the first step, that a way to save memory keeps the gradient of a method."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from unperturbed.errors import InputError
from unperturbed.methods.base import Method, Wrapper
from unperturbed.networks.modes import buffers_restored, own_randomness
from unperturbed.networks.precision import InPrecision
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training import checkpoint
from unperturbed.training.recompute import recomputed
from unperturbed.training.step import accumulate
from unperturbed.types import Batch, Inputs, Logits

EXACT, ROUNDED = 1e-6, 1e-3
"""The largest difference of gradients, over their size: in float64, and in float32 on other devices."""


def check_accumulation(classifier: nn.Module, method: Method, batch: Batch, threat: Threat, noise: Noise) -> None:
    """Raise InputError unless two halves of the batch give the gradient, and the method the memory, of the whole.

    On a copy in float64 and in eval mode, without the statistics of batch norm and dropout, which differ in the parts.
    """
    twin, batch = _twin(classifier).eval(), _double(batch)
    whole, memory = _gradient(twin, method, batch, threat, noise, 1)
    try:
        halves, memory_of_halves = _gradient(twin, method, batch, threat, noise, 2)
    except RuntimeError as error:
        raise InputError(_refusal(method, "--accumulate", "it fails on parts of a batch")) from error
    difference = max(_difference(halves, whole), _difference(memory_of_halves, memory))
    if not difference <= EXACT:  # also for NaN
        reason = f"its step depends on the batch as a whole: parts change it by {difference:.1e} of its size"
        raise InputError(_refusal(method, "--accumulate", reason))


def check_recomputation(
    classifier: nn.Module, paths: Sequence[str], method: Method, batch: Batch, threat: Threat, noise: Noise
) -> None:
    """Raise InputError unless the gradient is the same with the activations of these modules computed again."""
    twin, batch = _twin(classifier), _double(batch)
    modules = [twin.network.get_submodule(path) for path in paths]
    option = "--checkpoint-activations"
    gradients = []
    for chosen in ([], modules):
        try:
            with own_randomness(0, batch.x.device), recomputed(chosen):
                gradients.append(_gradient(twin, method, batch, threat, noise, 1)[0])
        except RuntimeError as error:
            if not chosen:
                raise
            raise InputError(
                _refusal(method, option, "a second forward in the backward is not the first one")
            ) from error
    difference = _difference(gradients[1], gradients[0])
    if not difference <= EXACT:
        reason = f"a second forward in the backward changes its gradient by {difference:.1e} of its size"
        raise InputError(_refusal(method, option, reason))


def check_sharding(
    whole: nn.Module, sharded: Callable[[], list[Tensor]], method: Method, batch: Batch, threat: Threat, noise: Noise
) -> None:
    """Raise InputError for a method that sharded weights do not support, or whose gradient they change.

    `whole` is the network in one piece, on the CPU; `sharded` returns the gradient of the same step with shards.
    """
    watched = Watched(whole)
    expected, _ = _gradient(watched, method, on_cpu(batch), threat, Noise(noise.keys.cpu()), 1)
    if watched.reason is not None:
        raise InputError(_refusal(method, "--strategy fsdp", watched.reason))
    difference = _difference([part.cpu() for part in sharded()], expected)
    if not difference <= ROUNDED:
        reason = f"sharded weights change its gradient by {difference:.1e} of its size"
        raise InputError(_refusal(method, "--strategy fsdp", reason))


class Watched(nn.Module):
    """A network that records derivatives and weights that a sharded network cannot provide.

    Attributes:
        reason: that it cannot be sharded, in words; None: there was none so far.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.reason: str | None = None
        self._weights = list(network.parameters())

    def forward(self, x: Inputs) -> Logits:
        """Return the logits."""
        if any(weight is not before for weight, before in zip(self.network.parameters(), self._weights, strict=True)):
            self.reason = "it calls the network with other tensors as weights, which need each layer in one piece"
        if forward_ad.unpack_dual(x).tangent is not None:  # type: ignore[no-untyped-call]
            self.reason = SECOND
            return torch.as_tensor(self.network(x))
        logits: Logits = _Watching.apply(self.network(x), self)  # type: ignore[no-untyped-call]
        return logits


SECOND = "it needs a second derivative of the network"


class _Watching(torch.autograd.Function):
    """The identity, which notices a backward that will be differentiated."""

    @staticmethod
    def forward(context: Any, logits: Tensor, watched: Watched) -> Tensor:
        context.watched = watched
        return logits.view_as(logits)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():
            context.watched.reason = SECOND
        return gradient, None


def _refusal(method: Method, option: str, reason: str) -> str:
    name = getattr(method, "name", type(method).__name__)
    inside = [method, *method.inside()] if isinstance(method, Wrapper) else [method]
    settings = next((part.first_order for part in inside if part.first_order), None)
    other = f", or give {settings}" if reason == SECOND and settings else ""
    return f"{name} cannot be trained with {option}: {reason}. Leave the option out{other}."


def _twin(classifier: nn.Module) -> InPrecision:
    """Return a copy in float64."""
    return InPrecision(deepcopy(classifier).double())


def on_cpu(batch: Batch) -> Batch:
    """Return the batch in the memory of the processor."""
    return Batch(*(tensor.cpu() for tensor in (batch.x, batch.y, batch.ids, batch.targets)))


def _double(batch: Batch) -> Batch:
    targets = batch.targets.double() if batch.targets.is_floating_point() else batch.targets
    return Batch(batch.x.double(), batch.y, batch.ids, targets)


def _gradient(
    network: nn.Module, method: Method, batch: Batch, threat: Threat, noise: Noise, parts: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the gradient of a step to the weights, and the memory of a copy of the method after it."""
    method = deepcopy(method)
    if isinstance(method, nn.Module):
        method.to(batch.x)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    for weight in weights:
        weight.grad = None
    with buffers_restored(network):
        terms, inner = accumulate(network, network, method, batch, threat, noise, parts, Tensor.backward)
    gradient = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    method.after_step(batch, inner, terms, threat)
    for weight in weights:
        weight.grad = None
    memory = checkpoint.memory(method).values()
    return gradient, [part.nan_to_num(0.0, 0.0, 0.0) for part in memory]  # some is infinite at first


def _difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the norm of the difference over that of the expected tensors."""
    if [part.shape for part in found] != [part.shape for part in expected]:
        return float("inf")
    if not expected:
        return 0.0
    flat, flat_expected = (torch.cat([part.double().flatten() for part in parts]) for parts in (found, expected))
    size = float(flat_expected.norm())
    return float((flat - flat_expected).norm()) / size if size > 0 else float(flat.norm())
