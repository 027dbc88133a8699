"""The checks of model and data before every measurement: bad input raises, doubtful input is warned of."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unperturbed.data.check import check, repeated
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
    SATURATED,
    check_outputs,
    check_type,
    counted_from_one,
    flat_gradients,
    misfit,
    not_finite,
    one_class,
    saturated_logits,
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
    "The network calls autograd in its forward: it optimises at test time, and attacks that follow the "
    "gradient of a single forward can miss that. Attack it adaptively."
)
MANY = 0.1
"""Share of repeated examples above which a warning is given."""
_DOUBTED = {
    COUPLED: "logits depend on the rest of the batch",
    PROBABILITIES: "the outputs are probabilities",
    OPTIMISING: "the network optimises at test time",
}


@dataclass(frozen=True, eq=False)
class CheckedModel:
    """A model whose outputs, gradients and data have been checked, with facts that measurements need."""

    classifier: nn.Module
    """The model, returning logits alone."""
    device: torch.device
    dtype: torch.dtype
    """The precision of the weights, in which results are computed."""
    examples: Inputs
    """The first examples."""
    classes: int
    network: str
    """A hash of everything that the logits can depend on, and of the logits of the first examples."""
    undescribed: tuple[str, ...]
    """The parts of the network that the hash does not cover: another network may have the same hash."""
    warnings: list[str]

    def doubts(self, batch_size: int) -> list[Doubt]:
        """Return the warnings that speak against a robust accuracy, for batches of `batch_size` examples."""
        return doubts_in(self.warnings, batch_size)

    def batch(self, split: Split, rows: Tensor, threat: Threat) -> Batch:
        """Return examples on the model's device, in its precision, and clamped to the box (`check` allows rounding)."""
        x, y, ids = split.inputs(rows), split.labels[rows], split.names()[rows]
        return Batch(threat.boxed(x.to(self.device, self.dtype)), y.to(self.device), ids.to(self.device))


def doubts_in(warnings: Sequence[str], batch_size: int) -> list[Doubt]:
    """Return the warnings about a network that speak against a robust accuracy, in batches of `batch_size` examples."""
    shorts = dict(_DOUBTED) if batch_size > 1 else {text: short for text, short in _DOUBTED.items() if text != COUPLED}
    by_start = {FLAT: "the gradient is 0", SATURATED: "the logits are saturated"}
    others = [Doubt(short, text) for start, short in by_start.items() for text in warnings if text.startswith(start)]
    return [Doubt(shorts[text], text) for text in warnings if text in shorts] + others


def check_model(model: nn.Module, split: Split, threat: Threat, seed: int, output: Output = None) -> CheckedModel:
    """Check a model and a split for measurements; `output` says which part of the model's output are the logits.

    Raises:
        InputError: if the weights are neither float32 nor float64; if the outputs are no logits, have another type than
        the weights or no gradient; if labels do not fit the outputs; if data lie outside the bounds or hold NaN.
    """
    if torch.is_inference_mode_enabled():
        raise InputError("This was called under torch.inference_mode(), where no gradient exists: leave that block.")
    check_kinds(model, threat)
    device, dtype = home(model)
    first = split.names().argsort(stable=True)[:64]
    examples = split.inputs(first).to(device, dtype)
    labelled = Classes.seen_in(split.labels)
    classifier = as_classifier(model, examples[:1], output, labelled)
    with own_randomness(seed, device), trying("taking logits and gradients of the first examples", first, examples):
        classes, warnings = check_outputs(classifier, examples)
        check_type(classifier, examples)
        warnings += flat_gradients(classifier, examples) + (
            [OPTIMISING] if calls_autograd(classifier, examples[:1]) else []
        )
    warnings = [*notes_on(classifier), *misfit(classes, labelled), *counted_from_one(split.labels), *warnings]
    if (weights := not_finite(model)) is not None:
        warnings.append(f"{weights}: no result that is computed with them means anything.")
    network, undescribed = network_hash(classifier, examples, seed)
    check(split, threat.bounds, classes)
    with own_randomness(seed, device):
        warnings += saturated_logits(classifier, examples, split.labels[first])
    warnings = [
        *split.notes,
        *_repeated(split),
        *warnings,
        *one_class(split.labels),
        *reach_warnings(threat, split),
        *_not_described(undescribed),
    ]
    return CheckedModel(classifier, device, dtype, examples, classes, network, undescribed, warnings)


def check_kinds(model: Any, threat: Any) -> None:
    """Raise InputError if the model is no network or the threat no `Threat`, with the remedy."""
    if not isinstance(model, nn.Module):
        raise InputError(
            f"The model is {model!r:.80}, not a torch.nn.Module: give the network itself; of a run folder, "
            "load_run(folder); a function goes into the forward of a module."
        )
    if not isinstance(threat, Threat):
        raise InputError(f"The threat is {threat!r:.80}: give a Threat, such as Threat.parse('Linf:8/255').")


def measured_split(data: Any) -> Split:
    """Return the split to measure on: the test split of a `Data`, or any other form of data as a split.

    Raises:
        InputError: if it is empty, or two of its examples have the same id.
    """
    split = given_split(data)
    counts = Counter(split.names().tolist())
    if len(counts) < len(split):
        often = [name for name, count in counts.items() if count > 1][:5]
        raise InputError(
            f"{len(split) - len(counts)} of the {len(split)} examples have the id of another one (ids {often}): they "
            "are told apart by their ids, so select each example once."
        )
    return split


def given_split(data: Any) -> Split:
    """Return the test split of a `Data`, or any other form of data as a split; raises InputError if it is empty."""
    if isinstance(data, Data):
        if data.test is None:
            raise InputError(f"The data {data.name!r} has no test split: pass one of its splits instead.")
        data = data.test
    split = as_split(data)
    if len(split) == 0:
        raise InputError("The split has no examples to evaluate.")
    return split


def home(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Return the device and precision of the weights."""
    device, dtype = home_of(model)
    if dtype not in (torch.float32, torch.float64):
        raise InputError(f"The weights are {dtype}, but results are computed in float32: call model.float().")
    return device, dtype


def _repeated(split: Split) -> list[str]:
    """Return a warning where many examples repeat others."""
    count = repeated(split)
    if count <= MANY * len(split):
        return []
    return [
        f"{count} of the {len(split)} examples repeat the inputs of others: the intervals, which count them as "
        "independent, are too narrow."
    ]


def _not_described(doubts: Sequence[str]) -> list[str]:
    """Return a warning where another network could pass for this one."""
    if not doubts:
        return []
    names = "; ".join(doubts[:3]) + (", ..." if len(doubts) > 3 else "")
    return [
        f"The network has parts that cannot be described ({names}): another one may look the same, so that stored "
        "results are never reused. It is measured anew each time."
    ]
