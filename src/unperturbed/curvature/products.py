"""First and second derivatives of a per-example loss with respect to the input, in the forms that training needs.

`loss` maps logits to one value an example. Slopes keep their graph to the weights; with batch norm in train mode they
belong inside `clean_batch_stats`, where the first forward, at x, sets the statistics.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from unperturbed.networks.modes import each_its_own, eager
from unperturbed.types import Inputs, Logits, Model, PerExample, Targets

LossOnLogits = Callable[[Logits], PerExample]
ValueAndGradient = tuple[PerExample, Inputs]
ValueAndSlope = tuple[PerExample, PerExample]
Slope = Callable[[Model, Inputs, Inputs, LossOnLogits], ValueAndSlope]
DIFFERENCE = 0.03
"""The step of a central difference, in units of v: a compromise between curvature and float32 rounding."""

_PROVEN: tuple[type[nn.Module], ...] = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Identity, nn.Flatten, nn.Unflatten, nn.Sequential),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm),
    *(nn.ReLU, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Softplus, nn.Tanh, nn.Sigmoid, nn.ELU),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
)
"""Modules whose forward-mode derivative has the right gradient to the weights; tests verify every one."""
_WRAPPERS = {"_FabricModule", "DistributedDataParallel"}
"""Modules that pass their inputs to the module inside."""


def dot(u: Inputs, v: Inputs) -> PerExample:
    """Return <u, v> of each example."""
    return (u * v).flatten(1).sum(dim=1)


def root(squares: PerExample) -> PerExample:
    """Return the square roots; where a square is 0, so is its gradient."""
    above = squares > 0
    return torch.where(above, squares, 1.0).sqrt() * above


def cross_entropy_with(targets: Targets) -> LossOnLogits:
    """Return the cross-entropy with these targets, as a function of the logits that tangents pass through."""

    def loss(logits: Logits) -> PerExample:
        # torch's own cross_entropy and logsumexp raise where reverse mode meets forward mode
        peak = forward_ad.unpack_dual(logits).primal.detach().amax(dim=1, keepdim=True)  # type: ignore[no-untyped-call]
        shifted = logits - peak
        indices = not targets.is_floating_point()
        chosen = shifted.gather(1, targets[:, None])[:, 0] if indices else (shifted * targets).sum(dim=1)
        value: PerExample = shifted.exp().sum(dim=1).log() - chosen
        return value

    return loss


def input_gradient(model: Model, x: Inputs, loss: LossOnLogits) -> ValueAndGradient:
    """Return the loss and its gradient at x per example, detached."""
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        value = loss(model(leaf))
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


def gradient_with_graph(model: Model, x: Inputs, loss: LossOnLogits) -> ValueAndGradient:
    """Return the loss and its gradient at x, both with their graphs to the weights."""
    leaf = x.detach().requires_grad_()
    # neither compiled networks nor the fused attention kernels have a second derivative
    with eager(), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        value = loss(model(leaf))
        with each_its_own():
            (gradient,) = torch.autograd.grad(value.sum(), leaf, create_graph=True)
    return value, gradient


@contextmanager
def tangents() -> Iterator[None]:
    """Enter a level of forward mode, without the warning of torch about its own code, which may count as an error."""
    _load_tangent_rules()
    with forward_ad.dual_level():
        yield


@cache
def _load_tangent_rules() -> None:
    """Load torch's rules for tangents, without the deprecation warning that torch gives about its own code."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.filterwarnings("ignore", message=r".torch\.jit\.script")
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))  # type: ignore[no-untyped-call]


def forward_slope(model: Model, x: Inputs, v: Inputs, loss: LossOnLogits) -> ValueAndSlope:
    """Return the loss at x and <gradient, v>, by one forward pass that carries v along as a tangent.

    Costs two forwards, and two backwards to the weights, but no second derivative. Right only on networks for which
    `not_proven` finds nothing, and for losses that tangents pass through, such as `cross_entropy_with`.
    """
    with tangents():
        out = loss(model(forward_ad.make_dual(x.detach(), v.detach())))  # type: ignore[no-untyped-call]
        value, tangent = forward_ad.unpack_dual(out)  # type: ignore[no-untyped-call]
    return value, torch.zeros_like(value) if tangent is None else tangent  # None: nothing depends on the input


def reverse_slope(model: Model, x: Inputs, v: Inputs, loss: LossOnLogits) -> ValueAndSlope:
    """Return the loss at x and <gradient, v>, by a gradient that keeps its graph: right on every network."""
    value, gradient = gradient_with_graph(model, x, loss)
    return value, dot(gradient, v)


def central_slope(model: Model, x: Inputs, v: Inputs, loss: LossOnLogits, h: float = DIFFERENCE) -> ValueAndSlope:
    """Return (l(x + h v) + l(x - h v)) / 2 and (l(x + h v) - l(x - h v)) / 2h: l(x) and <gradient, v> up to order h^2.

    No forward at x itself, so it is not the one that sets statistics. For smooth networks: on piecewise-linear ones the
    finite step sees kinks that the derivative does not.
    """
    ahead, behind = loss(model(x + h * v)), loss(model(x - h * v))
    return (ahead + behind) / 2, (ahead - behind) / (2 * h)


def three_point_slope(clean: PerExample, near: PerExample, far: PerExample, h: float) -> PerExample:
    """Return <gradient, v> at x from the losses at x, x + h v and x + v: the slope of the parabola through them.

    Exact where the loss is quadratic along v; elsewhere off by -h/6 times its third derivative there. If both ends are
    known, it takes one forward less than `central_slope`. For smooth networks, like `central_slope`.
    """
    return ((near - clean) / h - h * (far - clean)) / (1 - h)


def slope(model: Model, x: Inputs, v: Inputs, loss: LossOnLogits) -> ValueAndSlope:
    """Return the loss at x and <gradient, v>: in forward mode where it is proven for the network, else in reverse."""
    return (reverse_slope if not_proven(model) else forward_slope)(model, x, v, loss)


def not_proven(model: Model) -> str | None:
    """Return why forward mode is not used on this network, or None if every module of it is proven.

    A class may declare its `forward` safe by a class attribute `forward_mode = True`; its parts are checked all the
    same.
    """
    for name, module in model.named_modules():
        kind = type(module)
        if module._forward_hooks or module._forward_pre_hooks:
            return f"{name or 'the network'} has forward hooks"
        if kind is nn.Dropout and (module.p == 0 or not module.training):
            continue
        if kind not in _PROVEN and not vars(kind).get("forward_mode", False) and kind.__name__ not in _WRAPPERS:
            return f"{name or 'the network'} is a {kind.__name__}"
    return None


def hessian_product(model: Model, x: Inputs, v: Inputs, loss: LossOnLogits) -> Inputs:
    """Return H v, H the Hessian of the loss at x, by double backward; detached."""
    leaf = x.detach().requires_grad_()
    with eager(), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # compiled networks have no second derivative
        value = loss(model(leaf))
        (gradient,) = torch.autograd.grad(value.sum(), leaf, create_graph=True)
        if not gradient.requires_grad:
            return torch.zeros_like(x)  # a piecewise-linear loss on a piecewise-linear network
        (product,) = torch.autograd.grad(dot(gradient, v.detach()).sum(), leaf, allow_unused=True)
    return torch.zeros_like(x) if product is None else product


def forward_difference(gradient: Callable[[Inputs], Inputs], x: Inputs, at_x: Inputs, v: Inputs, h: float) -> Inputs:
    """Return (gradient(x + h v) - gradient(x)) / h for a known gradient(x): one new gradient, an error of order h."""
    return (gradient(x + h * v) - at_x) / h


def central_difference(gradient: Callable[[Inputs], Inputs], x: Inputs, v: Inputs, h: float) -> Inputs:
    """Return (gradient(x + h v) - gradient(x - h v)) / 2h: two new gradients, an error of order h^2."""
    return (gradient(x + h * v) - gradient(x - h * v)) / (2 * h)
