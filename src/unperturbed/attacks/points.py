"""The points of a descent, with their margin, their loss and the gradient of the loss."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unperturbed.losses import margin
from unperturbed.maximise.slopes import tells_nothing, usable
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Labels, Loss, Model, PerExample


@dataclass(frozen=True, eq=False)
class Look:
    """The network at points z."""

    z: Inputs
    margin: PerExample
    """Positive where the prediction is wrong."""
    value: PerExample
    """The loss of the rule."""
    slope: Inputs
    """The gradient of the loss, without NaN or infinity."""
    informative: Tensor
    """Bool: whether the gradient had a value that is not NaN."""


def evaluated(model: Model, z: Inputs, y: Labels, loss: Loss) -> Look:
    """Return the network at points z; the gradient is that of the loss."""
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(z)
        value = loss(logits, y)
        (slope,) = torch.autograd.grad(value.sum(), z)
    return Look(z.detach(), margin(logits.detach(), y), value.detach(), usable(slope), ~tells_nothing(slope))


def wide(values: PerExample, like: Inputs) -> Tensor:
    """Return one value for each example, in a shape that multiplies inputs."""
    return values.view(-1, *[1] * (like.dim() - 1))


def widths(threat: Threat, x: Inputs) -> Tensor:
    """Return the width of the box for each feature; 1 where it is infinite, and 0 for features that are fixed."""
    low, high = threat.limits(x)
    width: Tensor = (high - low).expand(x.shape[1:])
    return torch.where(width.isfinite(), width, 1.0)
