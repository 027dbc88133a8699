"""Context managers that restore a network's state on exit."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from unperturbed.errors import InputError

_eager = ContextVar("eager", default=False)


@contextmanager
def under_attack(model: nn.Module) -> Iterator[None]:
    """Put every module into eval mode and freeze every weight, for attacks and other measurements.

    The training flag of every submodule, the requires_grad of every parameter and every buffer are restored, also after
    an exception.
    """
    flags = [(module, module.training) for module in model.modules()]
    weights = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        with buffers_restored(model):
            for module, _ in flags:
                module.training = False
            for weight, _ in weights:
                weight.requires_grad_(False)
            yield
    finally:
        for module, training in flags:
            module.training = training
        for weight, requires_grad in weights:
            weight.requires_grad_(requires_grad)


@contextmanager
def buffers_restored(model: nn.Module) -> Iterator[None]:
    """Restore every buffer after the block, also after an exception."""
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            changed = _changed([(buffer, before) for *_, buffer, before in buffers])
            for (module, name, buffer, before), other in zip(buffers, changed, strict=True):
                if getattr(module, name) is not buffer:  # a forward may have replaced the tensor
                    setattr(module, name, buffer)
                if other:  # writing would spoil a graph that waits for its backward
                    buffer.copy_(before)


def _changed(pairs: list[tuple[Tensor, Tensor]]) -> list[bool]:
    """Tell of each pair whether the tensors differ; a GPU is waited for once, not once a pair."""
    if all(buffer.device.type == "cpu" for buffer, _ in pairs):
        return [not torch.equal(buffer, before) for buffer, before in pairs]
    flags = torch.stack([buffer.ne(before).any().to(pairs[0][0].device) for buffer, before in pairs])
    return [bool(flag) for flag in flags.tolist()]


@contextmanager
def own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators in this block, and restore them afterwards.

    These are the generators of the CPU and of the device. A network that draws from them then draws the same numbers
    every time. Other sources (NumPy, a separate generator) are not affected.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        # torch.manual_seed would seed every device, and queue the seed for those not yet in use
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif device.type == "mps":
            torch.mps.manual_seed(seed)
        yield


@contextmanager
def eager() -> Iterator[None]:
    """Run training's networks eagerly in this block, also if they are compiled."""
    token = _eager.set(True)
    try:
        yield
    finally:
        _eager.reset(token)


def is_eager() -> bool:
    """Tell whether networks run eagerly in this block."""
    return _eager.get()


Again = Callable[[], AbstractContextManager[None]]


@contextmanager
def clean_batch_stats(model: nn.Module) -> Iterator[Again]:
    """Let the first forward set each batch norm's statistics, and the later ones be normalised with the same.

    The first forward is an ordinary training forward: normalised by its own batch, running averages moved once. In the
    later ones an example's output does not depend on the other examples, so that derivatives with respect to inputs are
    per example; they do not move the averages. The statistics keep their graph to the weights, because a difference of
    two losses would otherwise get the wrong gradient. Tangents of forward-mode derivatives see constant statistics from
    the first forward on. Batch norms in eval mode stay as they are. Networks run eagerly inside. The yielded function
    enters the same mode again with the same statistics, for a recomputation.

    Raises:
        InputError: for a SyncBatchNorm in train mode, which normalises by the inputs of all processes, and, in a
        forward, for a batch norm that does not call torch's batch_norm.
    """
    modules = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and _by_batch(m)]
    if any(isinstance(module, nn.SyncBatchNorm) for module in modules):
        raise InputError("SyncBatchNorm in train mode has no separate statistics to hold: use BatchNorm, or freeze.")
    calls: dict[nn.Module, int] = {}
    together = _Statistics()
    pairs = [(module, _in_its_forward(module, _held_forward(module, calls, together))) for module in modules]
    token = _held_now.set((*_held_now.get(), together))
    try:
        with _forwards_replaced(pairs), _counted_anew(model, calls):
            yield lambda: _nested(_forwards_replaced(pairs), _counted_anew(model, calls))
    finally:
        _held_now.reset(token)


@contextmanager
def running_stats(model: nn.Module) -> Iterator[None]:
    """Normalise with batch norm's running averages, without moving them, while other modules stay in train mode."""
    modules = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    pairs = [(module, _running(module)) for module in modules if module.running_mean is not None]
    with _forwards_replaced(pairs):
        yield


@contextmanager
def each_its_own() -> Iterator[None]:
    """Treat held statistics as constants in this block, so that gradients of losses to inputs are per example.

    For gradients from the forward that set the statistics; their own gradients, taken outside, reach the weights
    through the statistics as well.
    """
    all_statistics = _held_now.get()
    for statistics in all_statistics:
        statistics.constant = True
    try:
        yield
    finally:
        for statistics in all_statistics:
            statistics.constant = False


class _Statistics:
    """The shared state of a network's batch norms; an object, since backwards may run in other threads."""

    constant = False
    """Whether gradients stop at the statistics."""


_held_now: ContextVar[tuple[_Statistics, ...]] = ContextVar("held_now", default=())


Forward = Callable[[Tensor], Tensor]


def _by_batch(module: nn.modules.batchnorm._BatchNorm) -> bool:
    return module.training or module.running_mean is None


def _in_its_forward(module: nn.modules.batchnorm._BatchNorm, normalise: Forward) -> Forward:
    """Return `normalise`, or the forward of a subclass (with an activation, for example) that normalises by it."""
    original = type(module).forward
    if original is nn.modules.batchnorm._BatchNorm.forward:
        return normalise
    tracked = module.num_batches_tracked

    def forward(h: Tensor) -> Tensor:
        before = None if tracked is None else tracked.clone()

        def instead(h: Tensor) -> Tensor:
            if tracked is not None and before is not None:  # counted by `normalise`, which moves the averages
                tracked.copy_(before)
            return normalise(h)

        with _Instead(instead) as normalising:
            out = original(module, h)
        if not normalising.called:
            raise InputError(
                f"{type(module).__name__} is a batch norm that does not normalise by torch's batch_norm, so that its "
                "statistics cannot be replaced: use nn.BatchNorm, or train by another method (at, trades, scorpio)."
            )
        return out

    return forward


class _Instead(TorchFunctionMode):
    """Replace torch's batch_norm by a function of its first argument in this block."""

    def __init__(self, function: Forward) -> None:
        super().__init__()
        self.function, self.called = function, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in (functional.batch_norm, torch.batch_norm):
            return func(*args, **(kwargs or {}))
        self.called = True
        return self.function(args[0] if args else kwargs["input"])


def _held_forward(
    module: nn.modules.batchnorm._BatchNorm, calls: dict[nn.Module, int], together: _Statistics
) -> Forward:
    """Return a forward that normalises with the first batch's statistics, for every call in a forward separately."""
    statistics: list[tuple[Tensor, Tensor]] = []

    def forward(h: Tensor) -> Tensor:
        number = calls.get(module, 0)
        calls[module] = number + 1
        if number == len(statistics):
            if h.numel() == h.shape[1]:
                raise ValueError(f"A batch norm needs more than one value a channel to train on: {tuple(h.shape)}.")
            primal = forward_ad.unpack_dual(h).primal  # type: ignore[no-untyped-call]
            mean, var = _Moments.apply(primal, together)  # type: ignore[no-untyped-call]
            statistics.append((mean, var))
            if module.training and module.track_running_stats:
                _move_averages(module, mean.detach(), var.detach(), h.numel() // h.shape[1])
        return _normalised(module, h, *statistics[number])

    return forward


@contextmanager
def _counted_anew(model: nn.Module, calls: dict[nn.Module, int]) -> Iterator[None]:
    """Reset the count of calls whenever the model is called: a module may be called several times in a forward.

    It uses a global hook, since a hook on the model would look like the user's.
    """
    handle = register_module_forward_pre_hook(lambda module, given: calls.clear() if module is model else None)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _nested(first: AbstractContextManager[None], second: AbstractContextManager[None]) -> Iterator[None]:
    with first, second:
        yield


class _Moments(torch.autograd.Function):
    """Mean and variance of each channel, in float32 at least; the backward keeps the input in its type."""

    @staticmethod
    def forward(context: Any, h: Tensor, together: _Statistics) -> tuple[Tensor, Tensor]:
        wide = h.to(torch.promote_types(h.dtype, torch.float32))
        # the same as var_mean(correction=0), which takes ten times as long where channels come last in memory
        if h.device.type in {"cpu", "cuda"}:
            mean, var = torch.batch_norm_update_stats(wide, None, None, 0.0)
        else:
            var, mean = torch.var_mean(wide, [axis for axis in range(h.dim()) if axis != 1], correction=0)
        context.save_for_backward(h, mean)
        context.together = together
        return mean, var

    @staticmethod
    def backward(context: Any, by_mean: Tensor, by_var: Tensor) -> tuple[Tensor | None, None]:
        return None if context.together.constant else _Moments._to_input(context, by_mean, by_var), None

    @staticmethod
    @once_differentiable
    def _to_input(context: Any, by_mean: Tensor, by_var: Tensor) -> Tensor:
        h, mean = context.saved_tensors
        shape = (-1, *[1] * (h.dim() - 2))
        n = h.numel() / h.shape[1]
        slope = 2 * by_var / n
        result: Tensor = (h * slope.view(shape) + (by_mean / n - slope * mean).view(shape)).to(h.dtype)
        return result


def _running(module: nn.modules.batchnorm._BatchNorm) -> Forward:
    """Return a forward that normalises with the current running averages."""
    assert module.running_mean is not None and module.running_var is not None
    mean, var = module.running_mean.clone(), module.running_var.clone()
    normalise: Forward = lambda h: _normalised(module, h, mean, var)  # noqa: E731
    return normalise if isinstance(module, nn.SyncBatchNorm) else _in_its_forward(module, normalise)


def _normalised(module: nn.modules.batchnorm._BatchNorm, h: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """Return weight * (h - mean) / sqrt(var + eps) + bias, as one scale and one shift a channel."""
    scale = (var + module.eps).rsqrt()
    if module.weight is not None:
        scale = scale * module.weight
    shift = -mean * scale if module.bias is None else module.bias - mean * scale
    value, tangent = forward_ad.unpack_dual(h)  # type: ignore[no-untyped-call]
    # F.batch_norm gives no gradient to mean and var; with both trivial, it gives one to scale and shift.
    normalised = functional.batch_norm(value, torch.zeros_like(mean), torch.ones_like(mean), scale, shift, eps=0.0)
    if tangent is None:
        return normalised
    # torch's own tangent of a batch norm keeps several times as much for the backward
    moved = tangent * scale.view(-1, *[1] * (h.dim() - 2))
    dual: Tensor = forward_ad.make_dual(normalised, moved)  # type: ignore[no-untyped-call]
    return dual


@torch.no_grad()
def _move_averages(module: nn.modules.batchnorm._BatchNorm, mean: Tensor, var: Tensor, n: int) -> None:
    """Move the running averages as a training forward does (with the unbiased variance)."""
    assert module.running_mean is not None and module.running_var is not None
    assert module.num_batches_tracked is not None
    module.num_batches_tracked.add_(1)
    share = 1 / float(module.num_batches_tracked) if module.momentum is None else module.momentum
    module.running_mean.lerp_(mean.to(module.running_mean), share)
    module.running_var.lerp_((var * (n / (n - 1))).to(module.running_var), share)


@contextmanager
def _forwards_replaced(pairs: list[tuple[nn.modules.batchnorm._BatchNorm, Forward]]) -> Iterator[None]:
    """Replace the forwards of single modules and restore them; compiled networks would ignore the replacement."""
    before = [vars(module).get("forward") for module, _ in pairs]
    try:
        for module, forward in pairs:
            module.forward = forward  # type: ignore[assignment]
        with eager():
            yield
    finally:
        for (module, _), original in zip(pairs, before, strict=True):
            if original is None:
                vars(module).pop("forward", None)
            else:
                module.forward = original  # type: ignore[method-assign]
