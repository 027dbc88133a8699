"""The number of examples in a batch."""

from typing import Literal

import torch
from torch import Tensor

from unperturbed.errors import InputError
from unperturbed.evaluation.checked_model import CheckedModel
from unperturbed.networks.modes import own_randomness, under_attack


def physical_batch_size(requested: int | Literal["auto"], checked_model: CheckedModel, n: int) -> int:
    """Return the batch size for n examples: a power of two, at most the next power above n.

    The size "auto" depends on the network and its inputs, not on timings, so that the same evaluation has the same size
    on the same kind of device. It is the size for which autograd keeps about 2^25 numbers (2^30 on devices other than
    the CPU, whose cache is small), up to 512, and at least 128 small, 64 medium or 32 large inputs.
    """
    size = requested
    if size == "auto":
        numel = checked_model.examples[0].numel()
        least = 128 if numel <= 1024 else 64 if numel <= 3 * 64 * 64 else 32
        saved = kept_for_gradient(checked_model)
        fitting = (
            (2**25 if checked_model.device.type == "cpu" else 2**30) // max(saved, numel)
            if saved is not None
            else least
        )
        size = int(max(least, min(fitting, 512)))
    if not isinstance(size, int) or size < 1:
        raise InputError(f"batch_size is {size!r}, but must be a whole number, at least 1, or 'auto'.")
    return int(1 << (min(size, n) - 1).bit_length())


def kept_for_gradient(checked_model: CheckedModel) -> int | None:
    """Return how many numbers autograd stores for one more example, a measure of the network's size.

    None if it stores none, or if the network cannot be tried.
    """
    classifier, example = checked_model.classifier, checked_model.examples[0]

    def kept(n: int) -> int:
        numbers = 0

        def keep(saved: Tensor) -> Tensor:
            nonlocal numbers
            numbers += saved.numel()
            return saved

        x = example.expand(n, *example.shape).clone().requires_grad_()
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
            classifier(x)
        return numbers

    with under_attack(classifier), own_randomness(0, checked_model.device):
        try:
            difference = kept(2) - kept(1)  # without numbers independent of the batch, such as the weights
        except Exception:  # any error of a network with hooks or two examples: the default is used
            return None
    return difference if difference > 0 else None
