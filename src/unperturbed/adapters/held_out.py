"""A quick robust accuracy on held-out examples, for callbacks of training loops."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unperturbed.data.check import check
from unperturbed.data.convert import as_split
from unperturbed.data.selection import Selection, choose
from unperturbed.errors import InputError
from unperturbed.methods.base import EpochEnd, Method
from unperturbed.networks.classifier import Classes, as_classifier
from unperturbed.networks.dtype import home
from unperturbed.networks.logits import Output
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training.alarm import Probe, probe
from unperturbed.types import Batch


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out examples, and the threat set that a network is probed under.

    Attributes:
        batch: the examples.
        threat: the threat set.
        seed: of the random starts.
    """

    batch: Batch
    threat: Threat
    seed: int

    @classmethod
    def of(cls, data: Any, threat: Threat, examples: int, seed: int) -> "HeldOut":
        """Return the first examples of the data or, if they do not represent the others, as many from every class.

        Args:
            data: a `Split`, a pair (x, y) of arrays or tensors, or a map-style dataset of such pairs.
            threat: the threat set; the inputs must lie within its bounds.
            examples: how many, at most.
            seed: of the random starts.

        Raises:
            InputError: on data of another form, outside the bounds or not finite, and without examples.
        """
        split = as_split(data)
        if examples < 1 or len(split) == 0:
            raise InputError(f"{examples} of {len(split)} examples are to be probed: at least one is needed.")
        chosen, _ = choose(split, Selection("auto", examples))
        ids, x, y = chosen.names(), chosen.inputs(torch.arange(len(chosen))), chosen.labels
        check(as_split((x, y)), threat.bounds, int(y.max()) + 1)
        return cls(Batch(threat.boxed(x), y, ids), threat, seed)

    def probe(self, model: nn.Module, output: Output = None) -> Probe:
        """Return clean accuracy and accuracy under ten steps of PGD, in eval mode; the model is left as it was.

        Works inside `torch.no_grad()` and `torch.inference_mode()`, which training loops use for validation.
        """
        device, dtype = home(model)
        with torch.inference_mode(False), torch.enable_grad():
            x = self.batch.x.to(device, dtype, copy=True)
            batch = Batch(x, self.batch.y.to(device), self.batch.ids.to(device))
            classifier = as_classifier(model, x[:1], output, Classes.seen_in(self.batch.y))
            return probe(classifier, batch, self.threat, Noise.of(self.seed, batch.ids).fold(-2))


def end_epoch(method: Method | None, result: Probe, share: float) -> None:
    """Give a method with memory the clean accuracy at the end of an epoch; `share` of the run is done."""
    if method is not None:
        method.after_epoch(EpochEnd(result.clean, result.n, share))
