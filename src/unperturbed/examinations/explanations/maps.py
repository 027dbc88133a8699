"""Saliency maps by Captum: the contribution of every input feature to the margin of a class."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from unperturbed.errors import InputError
from unperturbed.examinations.subject import Subject
from unperturbed.losses import margin
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.noise import Noise
from unperturbed.types import Inputs, Labels, Logits, Model, PerExample

Quantity = Callable[[Logits, Labels], PerExample]
STEPS = 32
"""Number of points of integrated gradients."""
DRAWS = 16
"""Number of noisy inputs of SmoothGrad."""
SPREAD = 0.1
"""The standard deviation of SmoothGrad's noise, as a share of the range of an example's values."""


def class_margin(logits: Logits, y: Labels) -> PerExample:
    """Return f_y - max_{j != y} f_j, which is invariant to a shift of all logits."""
    return -margin(logits, y)


def captum() -> Any:
    """Return `captum.attr`; raises InputError if Captum is not installed."""
    try:
        from captum import attr
    except ImportError as error:
        raise InputError("Explanations need Captum: pip install 'unperturbed[explain]'.") from error
    return attr


def input_gradient(model: Model, x: Inputs, y: Labels, quantity: Quantity = class_margin) -> Inputs:
    """Return the gradient of the quantity at x (Simonyan et al. 2014, https://arxiv.org/abs/1312.6034)."""
    with under_attack(model), as_reported(x.device), torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        attribution: Inputs = (
            captum().Saliency(_of(model, quantity)).attribute(leaf, abs=False, additional_forward_args=(y,))
        )
    return attribution.detach()


def gradient_times_input(model: Model, x: Inputs, y: Labels, quantity: Quantity = class_margin) -> Inputs:
    """Return gradient x input (Shrikumar et al. 2016, https://arxiv.org/abs/1605.01713)."""
    return input_gradient(model, x, y, quantity) * x


def integrated_gradients(model: Model, x: Inputs, y: Labels, quantity: Quantity = class_margin) -> Inputs:
    """Return integrated gradients from the baseline 0 (Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365).

    x times the mean gradient on the way from 0 to x, by Gauss-Legendre quadrature with 32 points.
    """
    with under_attack(model), as_reported(x.device), torch.enable_grad():
        method = captum().IntegratedGradients(_of(model, quantity))
        attribution: Inputs = method.attribute(
            x.detach().contiguous(), n_steps=STEPS, additional_forward_args=(y,), internal_batch_size=max(len(x), 128)
        )
    return attribution.detach().to(x.dtype)


def smooth_grad(model: Model, x: Inputs, y: Labels, noise: Noise, quantity: Quantity = class_margin) -> Inputs:
    """Return the mean gradient at 16 noisy inputs (Smilkov et al. 2017, https://arxiv.org/abs/1706.03825)."""
    flat = x.flatten(1)
    spread = (SPREAD * (flat.amax(dim=1) - flat.amin(dim=1))).view(-1, *[1] * (x.dim() - 1))
    total = torch.zeros_like(x)
    for draw in range(DRAWS):
        noisy = x + spread * noise.fold(draw).normal(x.shape[1:], x.dtype)
        total += input_gradient(model, noisy, y, quantity)
    return total / DRAWS


def occlusion(model: Model, x: Inputs, y: Labels, quantity: Quantity = class_margin) -> Inputs:
    """Return the decrease of the quantity when a window is set to 0 (Zeiler & Fergus 2014), without gradients.

    https://arxiv.org/abs/1311.2901. A feature gets the mean over the windows that contain it; for images, windows span
    all channels and a sixth of each side, in steps of half a window.
    """
    sides = [max(side // 6, 1) for side in x.shape[2:]]
    window, stride = (x.shape[1], *sides) if sides else (1,), (x.shape[1], *(max(k // 2, 1) for k in sides))
    with under_attack(model), as_reported(x.device), torch.no_grad():
        attribution: Inputs = (
            captum()
            .Occlusion(_of(model, quantity))
            .attribute(x.detach(), window, strides=stride if sides else (1,), additional_forward_args=(y,))
        )
    return attribution.detach().to(x.dtype)


def maps_of(model: Model, x: Inputs, y: Labels, noise: Noise, batch_size: int = 128) -> dict[str, Inputs]:
    """Return the saliency map of each method by its name."""
    methods: dict[str, Callable[[Inputs, Labels, Noise], Inputs]] = {
        "gradient": lambda x, y, _: input_gradient(model, x, y),
        "gradient x input": lambda x, y, _: gradient_times_input(model, x, y),
        "integrated gradients": lambda x, y, _: integrated_gradients(model, x, y),
        "SmoothGrad": lambda x, y, noise: smooth_grad(model, x, y, noise),
        "occlusion": lambda x, y, _: occlusion(model, x, y),
    }
    parts = torch.split(torch.arange(len(x), device=x.device), batch_size)
    return {
        name: torch.cat([method(x[rows], y[rows], noise.rows(rows)) for rows in parts])
        for name, method in methods.items()
    }


@lru_cache(maxsize=2)  # the explanations of one network use the same maps
def natural_maps(subject: Subject) -> dict[str, Inputs]:
    """Return the maps of the test examples."""
    test = subject.test
    return maps_of(subject.classifier, test.x, test.y, Noise.of(subject.seed, test.ids), subject.batch_size)


def _of(model: Model, quantity: Quantity) -> Callable[[Inputs, Labels], PerExample]:
    return lambda x, y: quantity(model(x), y)
