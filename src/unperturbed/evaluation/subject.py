"""What every measurement of a model begins with: looks at model and data that refuse what would mislead."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unperturbed.data.check import check
from unperturbed.data.convert import as_split
from unperturbed.data.split import Data, Split
from unperturbed.errors import InputError
from unperturbed.evaluation.evidence import Doubt
from unperturbed.evaluation.hashes import network_hash
from unperturbed.evaluation.optimising import calls_autograd
from unperturbed.evaluation.outputs import (
    COUPLED,
    FLAT,
    PROBABILITIES,
    check_outputs,
    check_type,
    flat_gradients,
    misfit,
    not_finite,
)
from unperturbed.evaluation.reach import reach_warnings
from unperturbed.networks.classifier import Classes, as_classifier
from unperturbed.networks.dtype import home as home_of
from unperturbed.networks.guard import trying
from unperturbed.networks.logits import Output, notes_on
from unperturbed.networks.modes import own_randomness
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs

OPTIMISING = (
    "The network calls autograd in its forward: it optimises while it answers, and attacks that follow the gradient of "
    "a single forward need not see through that. Attack it adaptively."
)
_DOUBTED = {
    COUPLED: "logits depend on the rest of the batch",
    PROBABILITIES: "the outputs are probabilities",
    OPTIMISING: "the network optimises at test time",
}


@dataclass(frozen=True, eq=False)
class Subject:
    """A model that was found fit to be measured on a split."""

    classifier: nn.Module
    """The model, returning logits alone."""
    device: torch.device
    dtype: torch.dtype
    """Of the weights, in which results are computed."""
    some: Inputs
    """The first examples."""
    classes: int
    network: str
    """A hash of everything that the network's answers can depend on, and of its answers to the first examples."""
    undescribed: tuple[str, ...]
    """What in the network cannot be described: another network may have the same hash."""
    warnings: list[str]

    def doubts(self, places: int) -> list[Doubt]:
        """Return which of the warnings speak against a robust accuracy, the network seeing `places` at a time."""
        shorts = dict(_DOUBTED) if places > 1 else {text: short for text, short in _DOUBTED.items() if text != COUPLED}
        flat = [Doubt("the gradient is 0", text) for text in self.warnings if text.startswith(FLAT)]
        return [Doubt(shorts[text], text) for text in self.warnings if text in shorts] + flat

    def batch(self, split: Split, rows: Tensor, threat: Threat) -> Batch:
        """Return examples where the model is and in its precision, inside the box: `check` lets a rounding pass."""
        x, y, ids = split.inputs(rows), split.labels[rows], split.names()[rows]
        return Batch(threat.boxed(x.to(self.device, self.dtype)), y.to(self.device), ids.to(self.device))


def look_at(model: nn.Module, split: Split, threat: Threat, seed: int, output: Output = None) -> Subject:
    """Return the model as a subject of measurements; `output` says which part of what it returns are the logits.

    Raises:
        InputError: on weights that are neither float32 nor float64, outputs that are no logits, of another type than
            the weights or without a gradient, labels that do not fit them, and data outside the bounds or with NaN.
    """
    if torch.is_inference_mode_enabled():
        raise InputError("This was called under torch.inference_mode(), where no gradient exists: leave that block.")
    check_kinds(model, threat)
    device, dtype = home(model)
    first = split.names().argsort(stable=True)[:64]
    some = split.inputs(first).to(device, dtype)
    known = Classes.seen_in(split.labels)
    classifier = as_classifier(model, some[:1], output, known)
    with own_randomness(seed, device), trying("taking logits and gradients of the first examples", first, some):
        classes, warnings = check_outputs(classifier, some)
        check_type(classifier, some)
        warnings += flat_gradients(classifier, some) + ([OPTIMISING] if calls_autograd(classifier, some[:1]) else [])
    warnings = [*notes_on(classifier), *misfit(classes, known), *warnings]
    if (weights := not_finite(model)) is not None:
        warnings.append(f"{weights}: nothing that is computed with them means anything.")
    network, undescribed = network_hash(classifier, some, seed)
    check(split, threat.bounds, classes)
    warnings = [*split.notes, *warnings, *reach_warnings(threat, split), *_not_described(undescribed)]
    return Subject(classifier, device, dtype, some, classes, network, undescribed, warnings)


def check_kinds(model: Any, threat: Any) -> None:
    """Raise InputError on what is no network or no threat set, such as a path or its text, with the remedy."""
    if not isinstance(model, nn.Module):
        raise InputError(
            f"The model is {model!r:.80}, not a torch.nn.Module: give the network itself; of a run folder, "
            "load_run(folder); a function goes into the forward of a module."
        )
    if not isinstance(threat, Threat):
        raise InputError(f"The threat is {threat!r:.80}: give a Threat, such as Threat.parse('Linf:8/255').")


def measured_split(data: Any) -> Split:
    """Return what is measured: a `Data`'s test split, or any other form of data as it is."""
    if isinstance(data, Data):
        if data.test is None:
            raise InputError(f"The data {data.name!r} has no test split: pass one of its splits instead.")
        data = data.test
    split = as_split(data)
    if len(split) == 0:
        raise InputError("There is not a single example to evaluate.")
    return split


def home(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Return the device and precision of the weights."""
    device, dtype = home_of(model)
    if dtype not in (torch.float32, torch.float64):
        raise InputError(f"The weights are {dtype}, but results are computed in float32: call model.float().")
    return device, dtype


def _not_described(doubts: Sequence[str]) -> list[str]:
    """Return a warning where another network could pass for this one."""
    if not doubts:
        return []
    names = "; ".join(doubts[:3]) + (", ..." if len(doubts) > 3 else "")
    return [
        f"The network holds what cannot be described ({names}): another one may look the same, so that stored results "
        "are never read again. It is measured anew each time."
    ]
