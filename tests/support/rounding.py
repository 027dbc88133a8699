"""Rows that are rounded by their place: whether a network here does so, and how to have every network do so."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unperturbed.networks.rounding import rows_rounded_alike
from unperturbed.types import Inputs


def round_alike(model: nn.Module, x: Inputs, batch_size: int, limit: int = 37) -> bool:
    """Establish that rows are rounded in the same way at this batch size, for all of the first examples.

    What is asserted in every bit holds only then.
    """
    return all(rows_rounded_alike(model, x[[row]], batch_size) is True for row in range(min(len(x), limit)))


def by_place(linear: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a linear layer that rounds odd rows of a batch otherwise than even ones, forward and backward."""

    def rounded(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y = linear(x, weight, bias)
        if y.dim() < 2 or not y.is_floating_point():
            return y
        odd = (torch.arange(len(y), device=y.device) % 2).to(y.dtype).view(-1, *[1] * (y.dim() - 1))
        return y * (1 + torch.finfo(y.dtype).eps * odd)

    return rounded


def round_by_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every linear layer round rows by their place, as MKL does on processors with AVX-512 by default."""
    monkeypatch.setattr(nn.functional, "linear", by_place(nn.functional.linear))
