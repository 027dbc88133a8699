"""Adversarial examples by one call, as attack libraries give them."""

import logging
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unperturbed.attacks.gradient import Suite
from unperturbed.checks import COUNT, SEED, checked
from unperturbed.errors import InputError, RunError
from unperturbed.evaluation.batch_size import physical_batch_size
from unperturbed.evaluation.block import attack_block, untouched
from unperturbed.evaluation.checked_model import check_model, measured_split
from unperturbed.evaluation.randomised import draws_of
from unperturbed.evaluation.search import as_searched, precision_of_search
from unperturbed.networks.logits import Output
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.suites.by_name import find_suite
from unperturbed.threat import Threat

log = logging.getLogger("unperturbed")
BLOCK = 2048
"""Number of examples in a block."""


@checked(seed=SEED, batch_size=COUNT)
def attack(
    model: nn.Module,
    x: Any,
    y: Any,
    threat: Threat,
    suite: str | Suite | Callable[..., Any] = "fast",
    *,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    output: Output = None,
) -> Tensor:
    """Return the worst point that a suite finds for each example, inside the threat set.

    Args:
        model: returns logits; it is attacked in eval mode and restored afterwards.
        x: inputs (n, ...), within the bounds of the threat.
        y: their labels (n,).
        threat: the threat set.
        suite: as in `evaluate`: a name, a `Suite`, or a function of (model, x, y) that returns perturbed inputs. Only
            its attacks run: the gate of a suite, such as "fast", checks an accuracy, and none is returned here.
        seed: of random starts.
        batch_size: examples in a batch.
        output: the part of the model's output with the logits.

    Returns:
        Inputs of the shape of x, on the device and in the precision of the weights: the first verified adversarial
        example, or without one the point of the largest margin, which is x if the model misclassifies x.

    Raises:
        InputError: as `evaluate`, and for suites of means over draws.
        RunError: where every attack fails on every example.
    """
    split = measured_split((x, y))
    checked_model = check_model(model, split, threat, seed, output)
    attacks = find_suite(suite).against(threat.norm, checked_model.classes)
    if draws_of(attacks) > 1:
        raise InputError(
            f"The suite {attacks.name} takes means over draws, but single points are required: use standard."
        )
    size = physical_batch_size(batch_size, checked_model, len(split))
    networks = as_searched(checked_model, precision_of_search(checked_model, "auto"), size)
    points = []
    with under_attack(checked_model.classifier), as_reported(checked_model.device):
        for rows in torch.split(torch.arange(len(split)), BLOCK):
            block = untouched(networks.reported, checked_model.batch(split, rows, threat), networks.batch_size, seed)
            attacked = bool(block.standing.any())
            for _ in attacks.attacks:
                attack_block(networks, block, threat, attacks, seed)
            if attacked and block.warnings and not any(tally.forwards for tally in block.tallies):
                raise RunError(f"No point was found: {block.warnings[0]}")
            for text in block.warnings:
                log.warning("%s", text)
            points.append(block.z)
    return torch.cat(points)
