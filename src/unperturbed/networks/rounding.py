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
    """Return the facts behind a result's last bits: `rows_rounded_alike` for all networks, and MKL_CBWR."""
    answers = [rows_rounded_alike(network, examples, batch_size) for network in dict.fromkeys(networks)]
    equal = None if None in answers else all(answers)
    return {"rows_rounded_alike": equal, SETTING: os.environ.get(SETTING, "")}


def rows_rounded_alike(model: Model, examples: Inputs, batch_size: int) -> bool | None:
    """Tell whether logits and input gradients have the same bits at all positions in a batch.

    The batch holds copies of one example; two examples are tried, at the cost of two gradients of a full batch. None if
    unknown: the network fails on such a batch, memory runs out, or it draws random numbers.
    """
    device = examples.device
    with under_attack(model), as_reported(device), own_randomness(0, device):
        try:
            for example in examples[:_EXAMPLES]:
                batch = example.expand(batch_size, *example.shape).contiguous()
                first = _logits_and_gradients(model, batch)
                if all(_same_rows(values) for values in first):
                    continue
                second = _logits_and_gradients(model, batch)
                return False if all(map(_equal, first, second)) else None
        except Exception:  # any error of the user's code: it is reported elsewhere
            return None
    return True


def _logits_and_gradients(model: Model, batch: Inputs) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = batch.clone().requires_grad_()
        logits = model(x)
        (gradient,) = torch.autograd.grad(logits.logsumexp(1).sum(), x)
    return logits.detach(), gradient


def _same_rows(values: Tensor) -> bool:
    return _equal(values, values[:1].expand_as(values))


def _equal(values: Tensor, other_values: Tensor) -> bool:
    return torch.equal(values.nan_to_num(), other_values.nan_to_num())
