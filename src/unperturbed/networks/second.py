"""The layers of a network that lack a second derivative."""

import re

import torch
from torch import Tensor, nn

from unperturbed.networks.guard import named
from unperturbed.types import Inputs

REMEDY = (
    "Methods by differences do without a second derivative: scorpio, elle, gradient-penalty, or llr with --method.form "
    "differences (in Python, LLR(form='differences'))"
)
"""The remedy."""
INSTEAD = {"Hardsigmoid": "nn.Sigmoid", "Hardswish": "nn.SiLU", "Hardtanh": "nn.Tanh"}
"""Smooth replacements of activations."""


def is_missing(error: BaseException) -> bool:
    """Tell whether an error of torch means an operation without a second derivative; its type varies."""
    text = str(error)
    return bool(re.search(r"derivative for .* is not implemented|double backward|differentiated twice", text))


def lacking(model: nn.Module, x: Inputs, error: BaseException) -> str:
    """Return a message on the layers without a second derivative, with the remedy."""
    layers = layers_without(model, x)
    shown = ", ".join(f"{name!r} ({kind})" for name, kind in list(layers.items())[:4])
    where = f" at the layer{'s' * (len(layers) > 1)} {shown}{', ...' * (len(layers) > 4)}" if layers else ""
    swap = next((f", or {INSTEAD[kind]} in place of nn.{kind}" for kind in layers.values() if kind in INSTEAD), "")
    return f"The network lacks a second derivative{where}, which this method needs ({named(error)}). {REMEDY}{swap}."


def layers_without(model: nn.Module, x: Inputs) -> dict[str, str]:
    """Return the leaf layers that have no second derivative at their inputs for x, by name."""
    inputs: dict[str, tuple[nn.Module, Tensor]] = {}

    def keep(name: str, module: nn.Module) -> None:
        def hook(_: nn.Module, arguments: tuple[object, ...], __: object) -> None:
            if arguments and isinstance(arguments[0], Tensor) and arguments[0].is_floating_point():
                inputs.setdefault(name, (module, arguments[0].detach().clone()))

        hooks.append(module.register_forward_hook(hook))

    hooks: list[torch.utils.hooks.RemovableHandle] = []
    for name, module in model.named_modules():
        if next(module.children(), None) is None:
            keep(name, module)
    try:
        with torch.no_grad():
            model(x.clone())
    finally:
        for handle in hooks:
            handle.remove()
    return {name: type(module).__name__ for name, (module, h) in inputs.items() if not _twice(module, h)}


def _twice(module: nn.Module, h: Tensor) -> bool:
    """Tell whether a layer has a second derivative at h."""
    h = h.requires_grad_()
    with torch.enable_grad():
        try:
            out = module(1 * h)  # not the leaf itself, which a layer may not change in place
            (slope,) = torch.autograd.grad((out * torch.ones_like(out).cumsum(-1)).sum(), h, create_graph=True)
            if slope.requires_grad:
                torch.autograd.grad(slope.sum(), h, allow_unused=True)
        except RuntimeError as error:
            return not is_missing(error)
    return True
