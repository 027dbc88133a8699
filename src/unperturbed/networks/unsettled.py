"""Batch norms whose running statistics still hold their initial values, because they saw few training batches."""

from torch import nn

from unperturbed.networks.logits import unwrapped

_SHARE = 0.05
"""The share of the initial values in the running statistics above which they are named."""


def unsettled_statistics(model: nn.Module) -> str | None:
    """Return a sentence if running statistics of batch norms hold over 5% of their initial values, or None.

    After t batches with momentum m, running averages hold the share (1 - m)^t of their initial values, mean 0 and
    variance 1. In eval mode such a network computes something else than in training. Without a count of the batches,
    as in old checkpoints, only statistics that equal the initial values are named.
    """
    norms = [m for m in unwrapped(model).modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    shares = [(_initial_share(norm), norm) for norm in norms if norm.running_mean is not None]
    unsettled = [(share, norm) for share, norm in shares if share > _SHARE]
    if not unsettled:
        return None
    share, norm = max(unsettled, key=lambda pair: pair[0])
    batches = 0 if norm.num_batches_tracked is None else int(norm.num_batches_tracked)
    return (
        f"The running statistics of {len(unsettled)} of {len(norms)} batch norms hold up to {share:.0%} of their "
        f"initial values after {batches} training batches, so that the network in eval mode is not the one that was "
        "trained: train for more steps (smaller batches, more epochs)."
    )


def _initial_share(norm: nn.modules.batchnorm._BatchNorm) -> float:
    """Return the share of the initial values in the running statistics of a batch norm."""
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None and var is not None
    if bool((mean == 0).all()) and bool((var == 1).all()):
        return 1.0
    batches = 0 if norm.num_batches_tracked is None else int(norm.num_batches_tracked)
    if batches == 0 or norm.momentum is None:
        return 0.0
    return float((1 - norm.momentum) ** batches)
