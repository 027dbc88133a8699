"""How many examples a network sees at a time."""

from typing import Literal

import torch
from torch import Tensor

from unperturbed.errors import InputError
from unperturbed.evaluation.checked_model import CheckedModel
from unperturbed.networks.modes import own_randomness, under_attack


def physical_batch_size(asked: int | Literal["auto"], checked_model: CheckedModel, n: int) -> int:
    """Return how many of n examples the network sees at a time: a power of two, the next one if there are fewer.

    "auto" follows from the network and its inputs alone, and times nothing: the same evaluation takes the same size
    everywhere on the same kind of device. About as many as autograd keeps 2^25 numbers for (a processor's cache is soon
    left behind; on other devices 2^30), up to 512, and no fewer than 128 small, 64 middling or 32 large inputs.
    """
    size = asked
    if size == "auto":
        numel = checked_model.examples[0].numel()
        least = 128 if numel <= 1024 else 64 if numel <= 3 * 64 * 64 else 32
        kept = kept_for_gradient(checked_model)
        fitting = (
            (2**25 if checked_model.device.type == "cpu" else 2**30) // max(kept, numel) if kept is not None else least
        )
        size = int(max(least, min(fitting, 512)))
    if not isinstance(size, int) or size < 1:
        raise InputError(f"batch_size is {size!r}, but must be a whole number, at least 1, or 'auto'.")
    return int(1 << (min(size, n) - 1).bit_length())


def kept_for_gradient(checked_model: CheckedModel) -> int | None:
    """Return how many numbers autograd keeps for the gradient at one more example: a measure of the network's size.

    None where it keeps nothing, or where the network cannot be asked.
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
            more = kept(2) - kept(1)  # without what does not depend on the batch, such as the weights
        except Exception:  # any error of a network with hooks or two examples: the default is used
            return None
    return more if more > 0 else None
