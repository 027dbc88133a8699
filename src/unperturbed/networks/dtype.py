"""Where the weights of a network lie, and casts of them that change no kind of number."""

import torch
from torch import Tensor, nn

REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The types that are cast into one another; complex, integer, boolean, 8-bit float and quantised tensors stay."""


def cast(model: nn.Module, dtype: torch.dtype, device: torch.device | None = None) -> nn.Module:
    """Move a network to a device, its real floating-point weights and buffers to `dtype`, and return it.

    `nn.Module.to(dtype)` would also take the imaginary part from complex tensors, and the type from 8-bit floats.
    """

    def moved(tensor: Tensor) -> Tensor:
        return tensor.to(device, dtype if tensor.dtype in REAL else tensor.dtype)

    model._apply(moved)  # type: ignore[no-untyped-call]
    return model


def home(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Return the device of the weights, and their real type: that of the inputs that the network expects.

    The first real floating-point parameter says both; else the first complex one; else it is float32.
    """
    weights = list(model.parameters())
    real = next((weight for weight in weights if weight.dtype in REAL), None)
    if real is not None:
        return real.device, real.dtype
    other = next(iter([*weights, *model.buffers()]), torch.zeros(0))
    return other.device, other.dtype.to_real() if other.is_complex() else torch.float32
