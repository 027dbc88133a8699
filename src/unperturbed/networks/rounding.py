"""Whether a network rounds an example in the same way at every position in a batch."""

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.processor import SETTING
from unperturbed.types import Inputs, Model

_EXAMPLES = 2


def rounding(networks: Sequence[Model], examples: Inputs, batch_size: int) -> dict[str, bool | str | None]:
    """Return what a result depends on in its last bits: `rows_rounded_alike` by all the networks, and MKL_CBWR."""
    answers = [rows_rounded_alike(network, examples, batch_size) for network in dict.fromkeys(networks)]
    alike = None if None in answers else all(answers)
    return {"rows_rounded_alike": alike, SETTING: os.environ.get(SETTING, "")}


def rows_rounded_alike(model: Model, examples: Inputs, batch_size: int) -> bool | None:
    """Tell whether logits and input gradients have the same bits at all positions in a batch.

    The batch holds copies of one example; two examples are tried, at the price of two gradients of a full batch. None
    where this cannot be seen: the network fails on such a batch, memory runs out, or it draws random numbers.
    """
    device = examples.device
    with under_attack(model), as_reported(device), own_randomness(0, device):
        try:
            for example in examples[:_EXAMPLES]:
                batch = example.expand(batch_size, *example.shape).contiguous()
                first = _logits_and_gradients(model, batch)
                if all(_same_rows(values) for values in first):
                    continue
                again = _logits_and_gradients(model, batch)
                return False if all(map(_same, first, again)) else None
        except Exception:  # anything that the user's code may raise: this check decides nothing
            return None
    return True


def _logits_and_gradients(model: Model, batch: Inputs) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = batch.clone().requires_grad_()
        logits = model(x)
        (gradient,) = torch.autograd.grad(logits.logsumexp(1).sum(), x)
    return logits.detach(), gradient


def _same_rows(values: Tensor) -> bool:
    return _same(values, values[:1].expand_as(values))


def _same(values: Tensor, others: Tensor) -> bool:
    return torch.equal(values.nan_to_num(), others.nan_to_num())
