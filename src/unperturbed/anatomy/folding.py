"""Folding of batch norms in eval mode into the linear layers before them."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from unperturbed.anatomy.linear_maps import float64, is_plain
from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.types import Inputs
from unperturbed.weights.files import output_logits

MAPS = (
    nn.Linear,
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
AnyBatchNorm = nn.modules.batchnorm._BatchNorm
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
AGREEMENT = 1e-5
"""Largest difference between logits before and after, relative to the largest logit if that is above 1."""

_Pair = tuple[str, nn.Module, str, nn.Module]
"""A layer and the batch norm behind it, with their paths."""


@dataclass(frozen=True, eq=False)
class Folded:
    """A copy of a network with batch norms multiplied into the layers before them.

    Attributes:
        model: the copy, or the network if no batch norm is folded; in eval mode the outputs are the same.
        into: for each folded batch norm, the layer that contains it now, both by their paths.
        notes: on batch norms that follow a layer but could not be folded.
    """

    model: nn.Module
    into: dict[str, str]
    notes: tuple[str, ...]


def fold_batch_norms(model: nn.Module, example: Inputs) -> nn.Module:
    """Return an equal network in eval mode, without batch norms that directly follow a linear layer.

    The layer's weight becomes diag(gamma / sqrt(var + eps)) W and its bias (b - mean) gamma / sqrt(var + eps) + beta
    (`folded` has the conditions).
    """
    return folded(model, example).model


def folded(model: nn.Module, example: Inputs) -> Folded:
    """Return a copy of the network with batch norms folded where possible, and notes on the others.

    A batch norm is folded if, in a forward of `example` in eval mode, its input is the output tensor of a linear layer
    or convolution, both are called once, and the copy's logits agree to 1e-5. They do not if another module uses the
    layer's output. An untrained batch norm is the identity and would hide that, so the logits must also agree when the
    batch norms are changed before they are folded.
    """
    pairs = _pairs(model, example)
    if not pairs:
        return Folded(model, {}, ())
    together = _fold(model, pairs, example)
    if together is not None:
        return Folded(together, {norm: layer for layer, _, norm, _ in pairs}, ())
    notes: list[str] = []
    accepted: list[_Pair] = []
    for pair in pairs:
        if _fold(model, [pair], example) is None:
            notes.append(f"{pair[2]} is not folded into {pair[0]}: the network would then be another one")
        else:
            accepted.append(pair)
    best = _fold(model, accepted, example)
    if best is None:
        note = f"no batch norms are folded: a copy of the network, a {type(model).__name__}, is another one"
        return Folded(model, {}, (note,))
    return Folded(best, {norm: layer for layer, _, norm, _ in accepted}, tuple(notes))


def _fold(model: nn.Module, pairs: list[_Pair], example: Inputs) -> nn.Module | None:
    """Return the copy with these pairs folded, if it has the same outputs."""
    try:
        changed: dict[nn.Module, nn.Module] = {norm: _changed(cast(AnyBatchNorm, norm)) for *_, norm in pairs}
        folded_changed = _copy(model, _merged_all([(layer, norm, changed[norm]) for _, layer, _, norm in pairs]))
        result = _copy(model, _merged_all([(layer, norm, norm) for _, layer, _, norm in pairs]))
        equal = _agree(model, result, example) and _agree(_copy(model, changed), folded_changed, example)
    except Exception:  # any error of a network that uses its layers without calling them, or cannot be copied
        return None
    return result if equal else None


def _pairs(model: nn.Module, x: Inputs) -> list[_Pair]:
    layers = {module: name for name, module in model.named_modules() if is_plain(module, *MAPS)}
    norms = {module: name for name, module in model.named_modules() if is_plain(module, *BATCH_NORMS)}
    received: dict[nn.Module, list[tuple[Tensor, int]]] = {module: [] for module in (*layers, *norms)}

    def take(norm: nn.Module, arguments: tuple[Any, ...]) -> None:
        received[norm].append((arguments[0], arguments[0]._version))

    def give(layer: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        received[layer].append((output, output._version))

    hooks = [norm.register_forward_pre_hook(take) for norm in norms]
    hooks += [layer.register_forward_hook(give) for layer in layers]
    try:
        _logits(model, x)
    finally:
        for hook in hooks:
            hook.remove()
    single = [(module, *tensors[0]) for module, tensors in received.items() if len(tensors) == 1]
    return [
        (layers[layer], layer, norms[norm], norm)
        for norm, came, at in single
        if norm in norms and cast(AnyBatchNorm, norm).running_var is not None
        for layer, went, then in single
        if layer in layers and went is came and at == then and _outputs(layer) == cast(AnyBatchNorm, norm).num_features
    ]


def _copy(model: nn.Module, instead: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Return a copy in which some modules are replaced, at all of their paths."""
    return copy.deepcopy(model, {id(module): replacement for module, replacement in instead.items()})


def _changed(norm: AnyBatchNorm) -> nn.Module:
    """Return a batch norm with other averages, so that it changes every channel."""
    copied = copy.deepcopy(norm)
    assert copied.running_var is not None and copied.running_mean is not None
    copied.running_var *= torch.linspace(1.2, 1.6, len(copied.running_var)).to(copied.running_var)
    copied.running_mean += 0.1
    return copied


def _merged_all(triples: list[tuple[nn.Module, nn.Module, nn.Module]]) -> dict[nn.Module, nn.Module]:
    """Return, for (layer, batch norm, batch norm to fold), the replacements of the first two."""
    instead: dict[nn.Module, nn.Module] = {}
    for layer, norm, changed in triples:
        instead[layer] = _merged(layer, cast(AnyBatchNorm, changed))
        instead[norm] = nn.Identity().train(norm.training)
    return instead


def _merged(layer: nn.Module, norm: AnyBatchNorm) -> nn.Module:
    """Return a layer that computes both in eval mode."""
    scale, shift = batch_norm_factors(norm)
    with under_attack(layer):  # a parametrised weight may differ, and change, in train mode
        weight = float64(cast(nn.Conv2d, layer).weight)
        merged = cast(nn.Conv2d, _empty(next(kind for kind in MAPS if is_plain(layer, kind)), layer))
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        inputs = len(weight) // layer.groups
        of_groups = scale.view(layer.groups, 1, -1).expand(-1, inputs, -1).flatten(0, 1)
        weight = weight * of_groups.view(*of_groups.shape, *[1] * (weight.dim() - 2))
    else:
        weight = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    bias = cast(nn.Conv2d, layer).bias
    with torch.no_grad():
        merged.weight.copy_(weight)
        cast(Tensor, merged.bias).copy_(shift if bias is None else float64(bias) * scale + shift)
    return merged.train(layer.training)


def _empty(kind: Callable[..., nn.Module], layer: Any) -> nn.Module:
    """Return a layer of the same settings with an uninitialised weight and bias; no random numbers are drawn."""
    if kind is nn.Linear:
        settings: dict[str, Any] = {"in_features": layer.in_features, "out_features": layer.out_features}
    else:
        names = [
            "in_channels",
            "out_channels",
            "kernel_size",
            "stride",
            "padding",
            "dilation",
            "groups",
            "padding_mode",
        ]
        if layer.transposed:
            names.append("output_padding")
        settings = {name: getattr(layer, name) for name in names}
    factory = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    layer_like: nn.Module = nn.utils.skip_init(kind, **settings, **factory)  # type: ignore[no-untyped-call]
    return layer_like


def batch_norm_factors(norm: AnyBatchNorm) -> tuple[Tensor, Tensor]:
    """Return the factor and the summand per channel of a batch norm with running averages in eval mode."""
    scale = (float64(cast(Tensor, norm.running_var)) + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * float64(norm.weight)
    shift = -float64(cast(Tensor, norm.running_mean)) * scale
    return scale, shift if norm.bias is None else shift + float64(norm.bias)


def _outputs(layer: nn.Module) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else cast(nn.Conv2d, layer).out_channels


def _logits(model: nn.Module, x: Inputs) -> Tensor:
    with under_attack(model), torch.no_grad(), own_randomness(0, x.device):
        return output_logits(model(x))


def _agree(model: nn.Module, copied: nn.Module, x: Inputs) -> bool:
    before, after = _logits(model, x), _logits(copied, x)
    size = max(1.0, float(before.abs().max()))
    return after.shape == before.shape and bool(((after - before).abs() <= AGREEMENT * size).all())
