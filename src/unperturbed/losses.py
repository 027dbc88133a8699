"""Losses on logits, one value per example. Higher means closer to, or further into, a wrong prediction."""

import torch
from torch import Tensor
from torch.nn import functional

from unperturbed.types import Labels, Logits, PerExample


def cross_entropy(logits: Logits, y: Labels | Logits) -> PerExample:
    """Return -log p_y, or -sum_k q_k log p_k where `y` is a distribution q over the classes."""
    return functional.cross_entropy(logits, y, reduction="none")


def unit_cross_entropy(logits: Logits, y: Labels) -> PerExample:
    """Return the cross-entropy of logits scaled to a standard deviation of 3 across the classes, for each example.

    For any scale of the logits it neither saturates nor vanishes; the scale counts as a constant in the gradient
    (compare the attack on scaled logits of
    Carlini & Wagner 2016, https://arxiv.org/abs/1607.04311).
    """
    spread = logits.detach().std(dim=1, keepdim=True).clamp(min=torch.finfo(logits.dtype).tiny)
    return cross_entropy(3 * logits / spread, y)


def margin(logits: Logits, y: Labels) -> PerExample:
    """Return max_{j != y} f_j - f_y: positive where the prediction is wrong, 0 at a tie."""
    return _runner_up(logits, y) - _of_label(logits, y)


def dlr(logits: Logits, y: Labels) -> PerExample:
    """Return the difference-of-logits ratio, -(f_y - max_{j != y} f_j) / (f_(1) - f_(3)), f sorted downwards.

    Invariant to shift and scale of the logits (Croce & Hein 2020, https://arxiv.org/abs/2003.01690, eq. 6). It needs
    at least three classes, and where three logits are equal the ratio is finite but meaningless.
    """
    top = logits.topk(3, dim=1).values
    return margin(logits, y) / (top[:, 0] - top[:, 2]).clamp(min=torch.finfo(logits.dtype).tiny)


def targeted_dlr(logits: Logits, y: Labels, target: Labels) -> PerExample:
    """Return -(f_y - f_t) / (f_(1) - (f_(3) + f_(4)) / 2) (Croce & Hein 2020, eq. 7); at least four classes."""
    top = logits.topk(4, dim=1).values
    scale = top[:, 0] - (top[:, 2] + top[:, 3]) / 2
    return (_of_label(logits, target) - _of_label(logits, y)) / scale.clamp(min=torch.finfo(logits.dtype).tiny)


def targeted_margin(logits: Logits, y: Labels, target: Labels) -> PerExample:
    """Return f_t - f_y: positive where the target beats the label."""
    return _of_label(logits, target) - _of_label(logits, y)


def dlr_or_margin(logits: Logits, y: Labels) -> PerExample:
    """Return the difference-of-logits ratio, or the margin where there are fewer than four classes."""
    return dlr(logits, y) if logits.shape[1] > 3 else margin(logits, y)


def targeted_dlr_or_margin(logits: Logits, y: Labels, target: Labels) -> PerExample:
    """Return the targeted difference-of-logits ratio, or f_t - f_y where there are fewer than four classes."""
    return targeted_dlr(logits, y, target) if logits.shape[1] > 3 else targeted_margin(logits, y, target)


def kl(logits: Logits, clean: Logits) -> PerExample:
    """Return KL(softmax(clean) || softmax(logits)); the gradient reaches both."""
    log_p = clean.log_softmax(dim=1)
    return (log_p.exp() * (log_p - logits.log_softmax(dim=1))).sum(dim=1)


def log_wrong(logits: Logits, y: Labels) -> PerExample:
    """Return log(1 - p_y) as logsumexp_{j != y} f_j - logsumexp_j f_j, finite however confident the network is."""
    return _other_logits(logits, y).logsumexp(dim=1) - logits.logsumexp(dim=1)


def boosted_cross_entropy(logits: Logits, y: Labels, targets: Labels | Logits) -> PerExample:
    """Return -log p_y - log(1 - max_{j != y} p_j) (Wang et al. 2020, MART, eq. 6), finite at saturation."""
    wrong = _other_logits(logits, y).argmax(dim=1)
    return cross_entropy(logits, targets) - log_wrong(logits, wrong)


def _of_label(logits: Logits, y: Labels) -> PerExample:
    return logits.gather(1, y[:, None])[:, 0]


def _other_logits(logits: Logits, y: Labels) -> Tensor:
    """Return the logits with that of the label at minus infinity."""
    return logits.scatter(1, y[:, None], -torch.inf)


def _runner_up(logits: Logits, y: Labels) -> PerExample:
    return _other_logits(logits, y).amax(dim=1)
