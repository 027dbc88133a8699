"""Learning rate and eps as functions of the finished share of the run, without state."""

import math
from dataclasses import replace

from unperturbed.threat import Threat
from unperturbed.training.recipe import Recipe


def learning_rate(recipe: Recipe, share: float) -> float:
    """Return the factor on the peak learning rate after `share` of the run's steps."""
    if recipe.schedule == "one-cycle":
        return share / 0.3 if share < 0.3 else (1 - share) / 0.7
    if recipe.schedule == "cosine":
        return (1 + math.cos(math.pi * share)) / 2
    if recipe.schedule == "step":
        return math.prod(0.1 for milestone in recipe.milestones if share >= milestone)
    return 1.0


def ramped(threat: Threat, ramp: float, share: float) -> Threat:
    """Return the threat with an eps that grows linearly from 0 over the first `ramp` of the run."""
    return threat if share >= ramp else replace(threat, eps=threat.eps * share / ramp)
