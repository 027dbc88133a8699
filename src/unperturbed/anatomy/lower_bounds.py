"""Lower bounds on the distance to the nearest misclassified input, proved by the layers of a chain."""

import math

import torch
from torch import Tensor

from unperturbed.anatomy.chain import Chain
from unperturbed.statistics.per_example import sound
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Norm, PerExample


def log_lower_bound(of: Chain, logits: Tensor, y: Tensor, norm: Norm, example: Inputs) -> PerExample:
    """Return the log of the largest lower bound on the margin by the chain; -inf if it is 0.

    (f_y - f_j) / (‖w_y - w_j‖ L_p), least over j, holds in norm p: w are the rows of the head, in the dual norm, and
    L_p bounds the Lipschitz constant of the layers before. If ‖d‖_a <= c ‖d‖_b for all d, a bound in norm a, divided by
    c, is one in norm b. NaN if a logit is not finite.
    """
    bounds = [
        _log_lower_bound(of, logits, y, norm_of_bound) - math.log(stretch(norm_of_bound, norm, example))
        for norm_of_bound in of.log_lipschitz
    ]
    return torch.stack(bounds).amax(dim=0)


def _log_lower_bound(of: Chain, logits: Tensor, y: Tensor, norm: Norm) -> PerExample:
    logits, head = sound(logits), of.head.detach().to(logits.device).double()
    lengths = torch.stack([Threat(norm, 1.0).dual_norm(row - head) for row in head])[y]
    leads = (logits.gather(1, y[:, None]) - logits).clamp(min=0)
    rates = leads / lengths  # infinite for equal rows: the order of these two classes never changes
    rates = torch.where((lengths == 0) & (leads == 0), 0.0, rates)
    rates = torch.where(leads.isnan(), leads, rates).scatter(1, y[:, None], torch.inf)
    return rates.amin(dim=1).log() - of.log_lipschitz[norm]


def stretch(first: Norm, second: Norm, example: Inputs) -> float:
    """Return the smallest c such that the first norm of any displacement is at most c times the second."""
    shares = [Threat(norm, 1.0).even_share(example) for norm in (second, first)]
    return max(1.0, shares[0] / shares[1])
