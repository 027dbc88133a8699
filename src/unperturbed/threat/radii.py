"""Projections on balls with a radius for each example."""

import torch

from unperturbed.threat.geometry import at_least_something, length, shrink, soft_threshold
from unperturbed.threat.shares import share_of
from unperturbed.threat.threat import Threat
from unperturbed.types import Inputs, PerExample


@torch.no_grad()
def project_within(threat: Threat, x: Inputs, z: Inputs, radius: PerExample) -> Inputs:
    """Return the nearest point to z, in the Euclidean norm, of the box and the ball of its example's radius around x.

    Exact up to rounding, which may lead out of the ball by a few units of the last place. The radius of the threat does
    not matter; a radius may be 0 or infinite. Raises InputError in L0 and Patch.
    """
    threat.refuse_sparse("A projection on balls of several radii")
    z, wide = threat.fixed(x, z), radius.view(-1, *[1] * (x.dim() - 1)).clamp(max=torch.finfo(x.dtype).max)
    if threat.norm == "Linf":
        reach = wide if threat.shares is None else wide * share_of(threat.shares, x)
        return threat.boxed(torch.minimum(torch.maximum(z, x - reach), x + reach))
    boxed, delta = threat.boxed(z), z - x
    low, high = threat.limits(x)
    room = torch.where(delta > 0, high - x, x - low)
    unit = at_least_something(wide)  # lengths in units of the radius, for one radius of 1
    outside = length(threat.norm, boxed - x) > wide
    shorten = shrink if threat.norm == "L2" else soft_threshold
    shortened = shorten(delta / unit, room / unit, 1.0) * unit * wide.sign()
    return torch.where(outside, threat.boxed(x + shortened), boxed)
