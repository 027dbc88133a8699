"""Checks of a network before training on the loss's geometry: derivative modes, smoothness, randomness."""

import copy
import logging
import re

import torch
from torch import Tensor, nn

from unperturbed.curvature.products import (
    Slope,
    cross_entropy_with,
    forward_slope,
    hessian_product,
    input_gradient,
    not_proven,
    reverse_slope,
)
from unperturbed.errors import RunError
from unperturbed.networks.modes import buffers_restored, clean_batch_stats, own_randomness, under_attack
from unperturbed.networks.precision import InPrecision, plainly
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Logits, Model, PerExample

log = logging.getLogger("unperturbed")
_KINKED = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.Hardtanh, nn.Hardsigmoid)
_SMOOTH = (nn.SiLU, nn.GELU, nn.Softplus, nn.Tanh, nn.Sigmoid, nn.ELU, nn.CELU, nn.Mish, nn.SELU, nn.Softmax)


def check_slope(model: Model, batch: Batch, threat: Threat, noise: Noise) -> None:
    """Log how slopes will be taken, and compare forward mode's weight gradient with reverse mode's, in float64.

    Raises:
        RunError: if they differ by more than a millionth of their size.
    """
    reason = not_proven(model)
    if reason is not None:
        log.info("Slopes are taken in reverse mode, with a second derivative: %s.", reason)
        return
    log.info("Slopes are taken in forward mode, without a second derivative.")
    if batch.x.device.type == "mps":  # MPS has no float64, and in float32 saturated networks differ by rounding
        return
    twin = copy.deepcopy(model.network if isinstance(model, InPrecision) else model).double()
    x, v = batch.x.double(), (threat.sample(batch.x, noise) - batch.x).double()
    weights = [weight for weight in twin.parameters() if weight.requires_grad]

    def gradient(form: Slope) -> Tensor:
        with buffers_restored(twin), plainly(), clean_batch_stats(twin):
            _, slope = form(twin, x, v, cross_entropy_with(batch.y))
            if not slope.requires_grad:
                return torch.cat([torch.zeros_like(weight).flatten() for weight in weights])
            parts = torch.autograd.grad(slope.square().sum(), weights, allow_unused=True, materialize_grads=True)
        return torch.cat([part.flatten() for part in parts])

    forward, reverse = gradient(forward_slope), gradient(reverse_slope)
    size = max(float(forward.norm()), float(reverse.norm()), 1e-30)
    difference = float((forward - reverse).norm()) / size
    if not difference <= 1e-6:  # also for NaN
        raise RunError(
            f"Forward mode gives a weight gradient that is {difference:.1%} away from reverse mode's on this network: "
            "a class in it that says forward_mode = True should not. Remove that, and reverse mode will be used."
        )


def piecewise_linear_warning(model: Model, x: Inputs, method: str) -> list[str]:
    """Return a warning if all activations of the network are piecewise linear: it then has no curvature.

    Where no module is a known activation (kinks may be in functions) the derivatives at a few inputs are looked at.
    """
    kinds = [type(module) for module in model.modules()]
    if any(issubclass(kind, _SMOOTH) for kind in kinds):
        return []
    if any(issubclass(kind, nn.Hardswish) for kind in kinds):
        return [
            f"{method} trains on curvature, but that of Hardswish is 1/3 from -3 to 3 and 0 elsewhere, with jumps. Use "
            "a smooth activation (nn.SiLU)."
        ]
    if not any(issubclass(kind, _KINKED) for kind in kinds) and not _bends_at_kinks_alone(model, x):
        return []
    return [
        f"{method} trains on curvature, but this network is piecewise linear: only that of the softmax is seen. Use a "
        "smooth activation (--model.activation silu)."
    ]


def _bends_at_kinks_alone(model: Model, x: Inputs) -> bool:
    """Tell whether the slopes of the logits differ between inputs, but do not change around any of them."""

    def weighted_sum(logits: Logits) -> PerExample:
        weights = torch.linspace(1, 2, logits.shape[1], dtype=logits.dtype, device=logits.device)
        total: PerExample = logits @ weights
        return total

    try:
        with under_attack(model), plainly():
            _, slope = input_gradient(model, x, weighted_sum)
            change = hessian_product(model, x, slope, weighted_sum)
    except RuntimeError:  # some operations have no second derivative
        return False
    return not bool(change.any()) and not torch.allclose(
        slope, slope[:1], rtol=1e-3, atol=1e-3 * float(slope.abs().max())
    )


def dropout_warning(model: Model, x: Inputs, method: str) -> list[str]:
    """Return a warning if the network changes between the forwards whose losses are compared.

    The causes are dropout and other random numbers of train mode (also in functions, such as stochastic depth),
    detected by two forwards from the same buffers; and buffers that a forward in train mode changes and uses, such as
    the power iteration of spectral norm.
    """
    text = f"{method} compares losses at several points, but"
    if any(isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 for module in model.modules()):
        return [f"{text} dropout draws another mask at each: leave dropout out."]
    before = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    with torch.no_grad(), own_randomness(0, x.device), plainly():
        with buffers_restored(model):
            first = model(x)
            changed = [name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])]
            after = model(x)
        if _equal(first, after):
            return []
        with buffers_restored(model):
            second = model(x)  # from the buffers of the first, with other random numbers
    if not _equal(first, second):
        return [
            f"{text} the network draws other random numbers at each in train mode{_random_layers(model)}, as dropout "
            "and stochastic depth do: leave them out."
        ]
    shown = ", ".join(changed[:3]) + ", ..." * (len(changed) > 3)
    return [
        f"{text} each forward in train mode changes the network's buffers ({shown}), as the power iteration of "
        "spectral norm does: the points are seen by slightly different networks. Keep the norm "
        "fixed (those layers in eval mode) or leave it out."
    ]


def _equal(first: Logits, second: Logits) -> bool:
    return torch.allclose(first, second, rtol=1e-3, atol=1e-3 * float(first.abs().max()), equal_nan=True)


def _random_layers(model: Model) -> str:
    """Return the layers that are random, judging by the names of their classes."""
    names = [
        f"{name!r} ({type(module).__name__})"
        for name, module in model.named_modules()
        if re.search("stochastic|drop|noise|random", type(module).__name__, re.IGNORECASE)
    ]
    return f" (in {', '.join(names[:3])}{', ...' * (len(names) > 3)})" if names else ""
