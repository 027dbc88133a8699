"""Every linear map of any network."""

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from unperturbed.anatomy.folding import BATCH_NORMS, MAPS, AnyBatchNorm, batch_norm_factors, folded
from unperturbed.anatomy.linear_maps import LinearMap, float64, is_plain, map_of
from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.types import Inputs

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.instancenorm._InstanceNorm, nn.LocalResponseNorm)


@dataclass(frozen=True, eq=False)
class Maps:
    """The linear maps of a network in the order of their first calls.

    Attributes:
        maps: a batch norm that follows a map is a part of it; other batch norms are separate maps, one factor per
            channel.
        folded: the number of batch norms that are a part of the map before them.
        notes: on other modules with weights.
    """

    maps: tuple[LinearMap, ...]
    folded: int
    notes: tuple[str, ...]


def linear_maps(model: nn.Module, example: Inputs) -> Maps:
    """Return the maps of all linear layers, convolutions, attention projections and batch norms that `example` runs.

    Modules are found by walking; each counts once, with the shape of its first input. nn.MultiheadAttention is taken
    apart into the projections of queries, keys, values and outputs. Other modules that have weights or normalise by the
    example get a note.
    """
    result = folded(model, example)
    maps, notes = [], list(result.notes)
    shapes = _shapes(result.model, example)
    names = {module: name for name, module in result.model.named_modules()}
    projections = {module.out_proj for module in names if isinstance(module, nn.MultiheadAttention)}
    for module, input_shapes in shapes.items():
        name = names[module] or "network"
        with under_attack(module):  # a parametrised weight may differ, and change, in train mode
            module_maps = _maps_of(module, name, input_shapes[0])
        broken = [linear.name for linear in module_maps if not linear.weight.isfinite().all()]
        notes += [f"{path} has weights that are not finite: it is left out" for path in broken]
        maps += [linear for linear in module_maps if linear.name not in broken]
        if not module_maps and (note := _note(module, name)):
            notes.append(note)
        if module_maps and len(set(input_shapes)) > 1 and not isinstance(module, nn.Linear | nn.MultiheadAttention):
            notes.append(f"{name} ({type(module).__name__}) gets inputs of several shapes: the first counts")
    for module, name in names.items():
        if module not in shapes and module not in projections and _has_weights(module):
            notes.append(
                f"{name} ({type(module).__name__}) is never called, or not as a module: its weights are left out"
            )
    return Maps(tuple(maps), len(result.into), tuple(notes))


def _shapes(model: nn.Module, x: Inputs) -> dict[nn.Module, list[tuple[int, ...]]]:
    """Return the shapes of the first arguments of every called module, in the order of the first calls."""
    shapes: dict[nn.Module, list[tuple[int, ...]]] = {}

    def see(module: nn.Module, positional: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        first = next((value for value in (*positional, *keywords.values()) if isinstance(value, Tensor)), None)
        shapes.setdefault(module, []).append(() if first is None else tuple(first.shape))

    hooks = [module.register_forward_pre_hook(see, with_kwargs=True) for module in model.modules()]
    try:
        with under_attack(model), torch.no_grad(), own_randomness(0, x.device):
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def _maps_of(module: nn.Module, name: str, shape: tuple[int, ...]) -> list[LinearMap]:
    if is_plain(module, *MAPS):
        linear = isinstance(module, nn.Linear)
        space = () if linear else shape[-(cast(nn.Conv2d, module).weight.dim() - 2) :]
        return [cast(LinearMap, map_of(module, name, space))]
    if is_plain(module, nn.MultiheadAttention):
        return _projections(cast(nn.MultiheadAttention, module), name)
    if is_plain(module, *BATCH_NORMS) and cast(AnyBatchNorm, module).running_var is not None:
        scale, _ = batch_norm_factors(cast(AnyBatchNorm, module))
        weight = scale.view(-1, 1, 1)  # a convolution of one tap on one position, with one group per channel
        return [LinearMap(name, type(module).__name__, weight, (1,), (1,), (1,), ((0, 0),), groups=len(weight))]
    return []


def _projections(attention: nn.MultiheadAttention, name: str) -> list[LinearMap]:
    if attention.in_proj_weight is not None:
        weights = list(attention.in_proj_weight.chunk(3))
    else:
        weights = [attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight]
    projections = zip(("q", "k", "v", "out_proj"), (*weights, attention.out_proj.weight), strict=True)
    return [LinearMap(f"{name}.{part}", "projection", float64(weight)) for part, weight in projections]


def _note(module: nn.Module, name: str) -> str | None:
    """Return the reason why a called module is not among the maps, if a reader may expect it there."""
    kind = type(module).__name__
    if isinstance(module, _NORMS):
        return f"{name} ({kind}) normalises each example by itself: it is no linear map, and is left out"
    if isinstance(module, AnyBatchNorm) and module.running_var is None:
        return f"{name} ({kind}) normalises by the batch, also in eval mode: it is left out"
    if isinstance(module, (*MAPS, *BATCH_NORMS, nn.MultiheadAttention)):
        return f"{name} is a kind of {_plain_name(module)} with its own forward or hooks: it is left out"
    if _has_weights(module):
        count = sum(math.prod(weight.shape) for weight in module.parameters(recurse=False))
        return f"{name} ({kind}) has {count:,} weights that are no linear map known here: they are left out"
    return None


def _plain_name(module: nn.Module) -> str:
    kinds = (*MAPS, *BATCH_NORMS, nn.MultiheadAttention)
    return next(kind.__name__ for kind in kinds if isinstance(module, kind))


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None
