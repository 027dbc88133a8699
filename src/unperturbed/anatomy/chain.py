"""A Lipschitz bound of a network that is a plain chain of layers."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from unperturbed.anatomy.bounds import norm_bound
from unperturbed.anatomy.folding import BATCH_NORMS, AnyBatchNorm, batch_norm_factors
from unperturbed.anatomy.linear_maps import LinearMap, float64, is_plain, map_of
from unperturbed.architectures.normalise import Normalise
from unperturbed.networks.modes import under_attack
from unperturbed.types import Inputs, Norm
from unperturbed.weights.files import output_logits

NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
_MAPS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
_MAXIMA = (nn.MaxPool1d, nn.MaxPool2d)
_AS_THEY_ARE = (nn.Identity, nn.Flatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)

SLOPES: dict[type[nn.Module], Callable[..., float]] = {
    nn.ReLU: lambda _: 1.0,
    nn.ReLU6: lambda _: 1.0,
    nn.LeakyReLU: lambda module: max(1.0, abs(module.negative_slope)),
    nn.PReLU: lambda module: max(1.0, float(module.weight.detach().abs().max())),
    nn.ELU: lambda module: max(1.0, abs(module.alpha)),
    nn.CELU: lambda _: 1.0,
    # for smaller values it jumps where it becomes linear
    nn.Softplus: lambda module: 1.0 if module.threshold >= 20 else math.nan,
    nn.Tanh: lambda _: 1.0,
    nn.Sigmoid: lambda _: 0.25,
    nn.SiLU: lambda _: 1.0998393202,  # at x = 2.39936
    nn.GELU: lambda module: 1.1289041452 if module.approximate == "none" else 1.1289930687,  # at sqrt(2); 1.41850
}
"""Upper bounds on the largest absolute slope of activations; NaN: no bound exists."""


@dataclass(frozen=True, eq=False)
class Chain:
    """A network that is one layer after another, so that the product of the layers' norms bounds its logits' change.

    Attributes:
        head: weights of the last linear layer, (classes, features).
        log_lipschitz: for each norm p, the logarithm of a bound on |h(a) - h(b)|_p / |a - b|_p for all inputs a, b of
            the examined shape, where h(x) is the input of the head, after normalisation, batch norms, activations and
            pools. 0 where nothing comes before the head, and -inf where h is constant.
    """

    head: Tensor
    log_lipschitz: Mapping[Norm, float]


@dataclass(frozen=True, eq=False)
class _Call:
    name: str
    module: nn.Module
    x: object
    versions: tuple[int, int]
    """Versions of the input before the call and of the output after it: changes in place raise them."""
    output: object


def chain(model: nn.Module, example: Inputs) -> Chain | str:
    """Return the bounds of a network that is a chain of known layers, or a sentence with the reason why it is not.

    The network runs in eval mode on the first two of `example`: each layer must get the unchanged output tensor of the
    layer before, and the last, a linear layer, must return the logits. A network whose graph depends on its inputs is
    not detected. Norms include strides and padding, with normalisation and batch norm multiplied into the weights next
    to them; they are upper bounds (`norm_bound`) in exact arithmetic, without the rounding of the network's float32.
    """
    with under_attack(model), torch.no_grad():
        x, replayed = example[:2].clone(), example[:2].clone()  # the first layer may write into its input
        calls, logits = _calls(model, x)
        reason = _break(calls, x, logits) if calls else "it has no layers that are modules"
        if reason is not None:
            return reason
        for call in calls:
            replayed = call.module(replayed)
        if not torch.allclose(
            replayed, logits, rtol=0, atol=0, equal_nan=True
        ):  # only this comparison detects changes through `.data`, past autograd
            return "its layers, one after another, give other logits than the network"
        factors: list[Tensor | LinearMap | Mapping[Norm, float]] = []
        for call in calls[:-1]:
            factor = _factor(call)
            if isinstance(factor, str):
                return factor
            _append(factors, factor)
        head = calls[-1]
        if not is_plain(head.module, nn.Linear) or cast(Tensor, head.x).dim() != 2:
            return f"its last layer, {_called(head)}, is not a linear layer on one vector an example"
        weight = cast(nn.Linear, head.module).weight.detach().clone()
        if not all(factor.weight.isfinite().all() for factor in factors if isinstance(factor, LinearMap)):
            return "it has weights that are not finite"
        logs = {norm: sum(_log(_norm(factor, norm)) for factor in factors) for norm in NORMS}
    return Chain(weight, logs)


def _calls(model: nn.Module, x: Inputs) -> tuple[list[_Call], Tensor]:
    """Return the calls of layers in one forward, in order, and the logits."""
    calls: list[_Call] = []
    before: list[int] = []

    def enter(module: nn.Module, arguments: tuple[object, ...]) -> None:
        before.append(arguments[0]._version if arguments and isinstance(arguments[0], Tensor) else -1)

    def leave(name: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def hook(module: nn.Module, arguments: tuple[object, ...], output: object) -> None:
            after = output._version if isinstance(output, Tensor) else -1
            alone = arguments[0] if len(arguments) == 1 else None
            calls.append(_Call(name, module, alone, (before.pop(), after), output))

        return hook

    hooks = []
    try:
        for name, module in _leaves(model, "", set()):
            hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave(name))]
        output = model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return calls, output_logits(output)


def _leaves(module: nn.Module, name: str, seen: set[int]) -> Iterator[tuple[str, nn.Module]]:
    """Yield modules without parts, and those whose parts (parametrisations) are not layers, each once."""
    if id(module) in seen:
        return
    seen.add(id(module))
    children = list(module.named_children())
    if not children or is_plain(module, *_MAPS):
        yield name, module
        return
    for part, child in children:
        yield from _leaves(child, f"{name}.{part}" if name else part, seen)


def _break(calls: list[_Call], x: Tensor, logits: Tensor) -> str | None:
    """Return the reason why the calls are not a chain from x to the logits, or None."""
    at: object = x
    version, previous = calls[0].versions[0], "the input"
    for call in calls:
        if call.x is not at or call.versions[0] != version:
            return f"{_called(call)} does not get {previous} as it is"
        if not isinstance(call.output, Tensor):
            return f"{_called(call)} returns more than a tensor"
        if len(call.output) != len(x):
            return f"{_called(call)} does not keep examples apart"
        at, version, previous = call.output, call.versions[1], f"what {_called(call)} returns"
    if logits is not at or logits._version != version:
        return f"the logits are not {previous} as it is"
    return None


def _factor(call: _Call) -> Tensor | LinearMap | Mapping[Norm, float] | None | str:
    """Return the effect of a call on distances.

    A factor per channel, a map, or a bound for each norm; None if it has no effect; a sentence if the effect is
    unknown.
    """
    module, x, output = call.module, cast(Tensor, call.x), cast(Tensor, call.output)
    if is_plain(module, *_AS_THEY_ARE):
        return None if x.shape == output.shape else dict.fromkeys(NORMS, 1.0)
    if is_plain(module, *_MAPS):
        if x.dim() == 2 or not isinstance(module, nn.Linear):
            return map_of(module, call.name, tuple(x.shape[2:]))
        matrix = cast(LinearMap, map_of(module, call.name, ()))
        return {norm: norm_bound(matrix, norm) for norm in NORMS}  # on tokens, whose dimension 1 is not the features
    if is_plain(module, Normalise):
        return float64(cast(Normalise, module).std).reciprocal()
    if is_plain(module, *BATCH_NORMS):
        norm = cast(AnyBatchNorm, module)
        if norm.running_var is None:
            return f"{_called(call)} normalises by the batch, also in eval mode"
        return batch_norm_factors(norm)[0]
    if is_plain(module, *SLOPES):
        slope = SLOPES[next(kind for kind in SLOPES if is_plain(module, kind))](module)
        if not math.isnan(slope):
            return dict.fromkeys(NORMS, slope)
    if is_plain(module, *_AVERAGES):
        return _average(module, x)
    if is_plain(module, *_MAXIMA):
        sizes = (_per_dimension(size, x.dim() - 2) for size in (module.kernel_size, module.stride, module.dilation))
        times = math.prod(map(_overlap, *sizes))
        return {"Linf": 1.0, "L2": math.sqrt(times), "L1": float(times)}
    return f"the effect of {_called(call)} on distances is unknown"


def _average(module: nn.Module, x: Tensor) -> dict[Norm, float]:
    """Return the norms of an average pool: row and column sums, and for L2 the root of their product.

    That root bounds the norm (Golub & Van Loan, corollary 2.3.2) and equals it where all windows are equal and
    disjoint.
    """
    with torch.enable_grad():
        ones = torch.ones((1, 1, *x.shape[2:]), dtype=torch.float64, requires_grad=True)
        means = module(ones)
        columns = torch.autograd.grad(means.sum(), ones)[0]
    rows, column_sum = float(means.detach().max()), float(columns.max())
    return {"Linf": rows, "L2": math.sqrt(rows * column_sum), "L1": column_sum}


def _overlap(kernel: int, stride: int, dilation: int) -> int:
    """Return the largest number of windows that contain one position, along one dimension."""
    return -(-kernel * math.gcd(stride, dilation) // stride)


def _per_dimension(value: object, dimensions: int) -> tuple[int, ...]:
    return cast(tuple[int, ...], value) if isinstance(value, tuple) else (cast(int, value),) * dimensions


def _append(
    factors: list[Tensor | LinearMap | Mapping[Norm, float]], factor: Tensor | LinearMap | Mapping[Norm, float] | None
) -> None:
    """Add a factor; factors per channel are multiplied into a neighbouring map, since the product's norm is smaller."""
    last = factors[-1] if factors else None
    if factor is None:
        return
    if isinstance(factor, Tensor) and isinstance(last, LinearMap):
        factors[-1] = last.then(factor)
    elif isinstance(factor, LinearMap) and isinstance(last, Tensor):
        factors[-1] = factor.after(last)
    else:
        factors.append(factor)


def _norm(factor: Tensor | LinearMap | Mapping[Norm, float], norm: Norm) -> float:
    if isinstance(factor, Tensor):
        return float(factor.abs().max())
    return norm_bound(factor, norm) if isinstance(factor, LinearMap) else factor[norm]


def _log(number: float) -> float:
    return math.log(number) if number > 0 else -math.inf


def _called(call: _Call) -> str:
    kind = type(call.module).__name__
    return f"{call.name} ({kind})" if call.name else f"the {kind}"
