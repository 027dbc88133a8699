"""Gradients through functions without one: the exact forward, and the backward of a differentiable surrogate.

Backward pass differentiable approximation, BPDA (Athalye et al. 2018, https://arxiv.org/abs/1802.00420, section 4.1).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unperturbed.errors import InputError
from unperturbed.types import Inputs

Piece = Callable[[Tensor], Tensor]


def identity(x: Tensor) -> Tensor:
    """Return x: the surrogate of a piece that hardly changes its input."""
    return x


class StraightThrough(nn.Module):
    """The value of `forward_fn`, bit for bit, with the gradient of `backward_fn`; for any place of a network.

    Backward pass differentiable approximation (Athalye et al. 2018, https://arxiv.org/abs/1802.00420, section 4.1).
    Use it before a network (`nn.Sequential(StraightThrough(reduce_bits(3)), network)`) or within it. The function gets
    a copy of its input and may change it in place; its weights, if it is a module, get no gradient. A second derivative
    is the surrogate's; forward-mode derivatives raise torch's error.

    Args:
        forward_fn: the exact function; it need not be differentiable, nor use torch, but returns a floating-point
            tensor.
        backward_fn: the surrogate: differentiable, from the same inputs to the same shape.

    Raises:
        InputError: if `forward_fn` returns no floating-point tensor, and in the backward, if the surrogate's shape
        differs or its result does not depend on its input.
    """

    def __init__(self, forward_fn: Piece, backward_fn: Piece = identity) -> None:
        super().__init__()
        self.forward_fn, self.backward_fn = forward_fn, backward_fn

    def forward(self, x: Tensor) -> Tensor:
        """Return forward_fn(x)."""
        value: Tensor = _StraightThrough.apply(x, self.forward_fn, self.backward_fn)  # type: ignore[no-untyped-call]
        return value


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, forward_fn: Piece, backward_fn: Piece) -> Tensor:
        context.save_for_backward(x)
        context.backward_fn = backward_fn
        value = forward_fn(x.clone())
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"forward_fn returned {kind}, but must return a floating-point tensor: convert it there.")
        return value

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (x,) = context.saved_tensors
        second_order = torch.is_grad_enabled()  # for a second derivative, with the graph that leads to x
        with torch.enable_grad():
            leaf = x if second_order else x.detach().requires_grad_()
            surrogate = context.backward_fn(leaf)
        if surrogate.shape != gradient.shape:
            raise InputError(
                f"backward_fn returns the shape {tuple(surrogate.shape)} where forward_fn returns "
                f"{tuple(gradient.shape)}: give a surrogate with the same shapes."
            )
        weights = gradient.to(surrogate)
        slope = None
        if surrogate.requires_grad:
            (slope,) = torch.autograd.grad(surrogate, leaf, weights, create_graph=second_order, allow_unused=True)
        if slope is None:
            raise InputError("backward_fn's result does not depend on its input: no gradient would reach it.")
        return slope, None, None


def reduce_bits(bits: int) -> Piece:
    """Return the rounding of inputs in [0, 1] to 2^bits levels (Xu et al. 2018, https://arxiv.org/abs/1704.01155)."""
    if bits < 1:
        raise InputError(f"bits is {bits}, but must be at least 1.")
    top = 2**bits - 1
    return lambda x: (x * top).round() / top


def jpeg_like(step: float) -> Piece:
    """Return the rounding of images' 8 x 8 block cosine coefficients to multiples of `step`, as JPEG does.

    JPEG's colour spaces and its step per frequency are left out. Images are (n, channels, h, w) in
    [0, 1], padded at the right and bottom to whole blocks, and the result is cut to [0, 1].
    """
    if not step > 0:
        raise InputError(f"step is {step}, but must be positive.")

    def piece(x: Inputs) -> Inputs:
        if x.dim() != 4:
            raise InputError(f"jpeg_like takes images (n, channels, h, w), not inputs of shape {tuple(x.shape)}.")
        height, width = x.shape[2:]
        k = torch.arange(8, dtype=x.dtype, device=x.device)
        scale = torch.where(k == 0, 1 / 8, 1 / 4).to(x).sqrt()[:, None]
        basis = torch.cos(torch.pi / 8 * (k + 0.5) * k[:, None]) * scale
        padded = functional.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate")
        rows, columns = padded.shape[2] // 8, padded.shape[3] // 8
        blocks = padded.reshape(*x.shape[:2], rows, 8, columns, 8).transpose(3, 4)
        rounded = (basis @ blocks @ basis.T / step).round() * step
        pixels = (basis.T @ rounded @ basis).transpose(3, 4).reshape(padded.shape)
        return pixels[:, :, :height, :width].clamp(0, 1)

    return piece
