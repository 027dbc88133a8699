"""The device and type of a network's weights, and casts between real floating-point types."""

import torch
from torch import Tensor, nn

REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The types that are cast; complex, integer, boolean, 8-bit float and quantised tensors keep their type."""


def cast(model: nn.Module, dtype: torch.dtype, device: torch.device | None = None) -> nn.Module:
    """Move a network to a device, its real floating-point weights and buffers to `dtype`, and return it.

    `nn.Module.to(dtype)` would also drop the imaginary part of complex tensors, and convert 8-bit floats.
    """

    def moved(tensor: Tensor) -> Tensor:
        return tensor.to(device, dtype if tensor.dtype in REAL else tensor.dtype)

    model._apply(moved)  # type: ignore[no-untyped-call]
    return model


def home(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Return the device of the weights and their real type, which the inputs must have.

    Both are those of the first real floating-point parameter; else of the first complex one; else float32.
    """
    weights = list(model.parameters())
    real = next((weight for weight in weights if weight.dtype in REAL), None)
    if real is not None:
        return real.device, real.dtype
    tensor = next(iter([*weights, *model.buffers()]), torch.zeros(0))
    return tensor.device, tensor.dtype.to_real() if tensor.is_complex() else torch.float32
