"""Warnings of a clean accuracy at chance level, with the first layer that the network probably lacks."""

import torch
from torch import nn

from unperturbed.architectures.libraries.base import LibraryModel
from unperturbed.data.split import Split
from unperturbed.evaluation.checked_model import CheckedModel
from unperturbed.findings import Interval
from unperturbed.networks.inputs import missing_layer
from unperturbed.networks.logits import unwrapped
from unperturbed.networks.modes import own_randomness
from unperturbed.networks.unsettled import unsettled_statistics
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Labels

FEWEST = 20
"""The smallest number of examples for a warning."""
TRIED = 256
"""Examples on which first layers are tried."""


def chance_warnings(checked_model: CheckedModel, split: Split, threat: Threat, clean: Interval, seed: int) -> list[str]:
    """Return a warning if the clean accuracy on the split is not above chance, and one with the remedy.

    The remedy is more training if batch norms have not settled, or the first layer with which the network is far better
    on examples spread over the split.
    """
    if clean.n < FEWEST or clean.low > 1 / checked_model.classes:
        return []
    text = (
        f"The clean accuracy is not above chance ({1 / checked_model.classes:.0%}): are these weights trained, and do "
        "labels and inputs suit them?"
    )
    order, tried = split.names().argsort(stable=True), min(len(split), TRIED)
    batch = checked_model.batch(split, order[torch.arange(tried) * len(order) // tried], threat)
    with own_randomness(seed, checked_model.device):
        layer = expected_layer(checked_model.classifier, batch.x, batch.y)
    remedy = unsettled_statistics(checked_model.classifier) or layer
    return [text] if remedy is None else [text, remedy]


def expected_layer(classifier: nn.Module, x: Inputs, y: Labels) -> str | None:
    """Return a message on the first layer that a network probably expects, or None.

    A model of another library has its own normalisation, and `--normalise` is refused for it.
    """
    return None if isinstance(unwrapped(classifier), LibraryModel) else missing_layer(classifier, x, y)
