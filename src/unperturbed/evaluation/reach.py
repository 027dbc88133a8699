"""Warnings from comparing the radius of a threat set with the range of the data."""

import torch

from unperturbed.data.check import uneven_features
from unperturbed.data.split import Split
from unperturbed.threat import Threat
from unperturbed.threat.geometry import length
from unperturbed.types import Inputs


def reach_warnings(threat: Threat, split: Split) -> list[str]:
    """Return warnings where eps spans the whole box, or cannot suit all features of vectors."""
    (example,) = split.inputs(torch.zeros(1, dtype=torch.int64))
    return _wider_than_the_box(threat, example) + _unequal(threat, split)


def _wider_than_the_box(threat: Threat, example: Inputs) -> list[str]:
    """Return a warning if eps spans the whole box, so that every input may become any other."""
    low, high = threat.limits(example[None])
    sides = (high - low).expand(1, *example.shape).double()
    width = float(length(threat.norm, threat.in_shares(sides)))
    if threat.eps < width:
        return []
    suggestion = f" Is eps meant as {threat.eps:g}/255?" if 1 <= threat.eps <= 255 and float(sides.max()) == 1 else ""
    return [
        f"eps is {threat.eps:g} and the box only {width:g} wide in {threat.norm}: every input may become any "
        f"other.{suggestion}"
    ]


def _unequal(threat: Threat, split: Split) -> list[str]:
    """Return a warning if one eps is a large share of one feature's range and a tiny one of another's."""
    uneven = uneven_features(split) if threat.shares is None else None
    if uneven is None or threat.eps == 0:
        return []
    shares = " and ".join(
        f"{100 * threat.eps / feature.width:.3g}% of the range of feature {feature.index} "
        f"({feature.low:.4g} to {feature.high:.4g})"
        for feature in uneven
    )
    return [
        f"eps is {threat.eps:g}, which is {shares}: one eps means little for features of very different ranges. "
        "Scale every feature to [0, 1] first (a table: ?scale=unit), or give each its eps (--feature-eps)."
    ]
