"""Faults of data for a threat set, from a sample of its inputs and from all labels."""

from dataclasses import dataclass

import torch

from unperturbed.data.split import Split
from unperturbed.evaluation.reach import reach_warnings
from unperturbed.networks.inputs import are_bytes
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Labels

SAMPLE = 128
"""Inputs that are looked at."""


@dataclass(frozen=True)
class Symptom:
    """A fault, with its remedy.

    Attributes:
        name: a short, constant name of the fault.
        text: the measurement and the remedy.
    """

    name: str
    text: str


def data_faults(split: Split, threat: Threat) -> list[Symptom]:
    """Return the faults of a sample of the inputs, and of all labels."""
    rows = torch.arange(min(SAMPLE, len(split))) * len(split) // max(min(SAMPLE, len(split)), 1)
    return [*input_faults(split.inputs(rows), threat, split), *label_faults(split.labels)]


def input_faults(x: Inputs, threat: Threat, split: Split) -> list[Symptom]:
    """Return the faults of inputs from a split: not finite, outside the bounds, of another scale or layout, alike."""
    faults = []
    if not bool(x.isfinite().all()):
        count = int((~x.isfinite()).sum())
        return [
            Symptom("inputs not finite", f"{count} input values are NaN or infinite: repair or drop those examples.")
        ]
    low, high = threat.limits(x)
    outside = (x < low - 1e-6) | (x > high + 1e-6)
    if bool(outside.any()):
        scale = ": divide by 255, with --scale 255 for the model" if are_bytes(x) else ""
        hint = scale or ": give --bounds, or leave normalisation to the model's first layer"
        faults.append(
            Symptom(
                "inputs outside the bounds", f"Inputs range from {float(x.min()):.3g} to {float(x.max()):.3g}{hint}."
            )
        )
    elif float(x.max()) < 0.02 * float(high.max()) and float(high.max()) < float("inf"):
        faults.append(
            Symptom("inputs too small", f"The largest input is {float(x.max()):.3g}: were they divided by 255 twice?")
        )
    if bool((x.flatten(1).std(dim=0) == 0).all()) and len(x) > 1:
        faults.append(Symptom("inputs all alike", "All examples are the same: the data was read wrongly."))
    if x.dim() == 4 and x.shape[-1] in (1, 3) and x.shape[1] > 4:
        faults.append(Symptom("channels last", f"Images have the shape {tuple(x.shape[1:])}: put the channels first."))
    faults += [Symptom("eps", text) for text in reach_warnings(threat, split)]
    if threat.eps == 0:
        faults.append(Symptom("eps", "eps is 0: nothing is perturbed."))
    return faults


def label_faults(y: Labels) -> list[Symptom]:
    """Return the faults of labels: counted from 1, of one class, or nearly so."""
    kinds, counts = torch.unique(y, return_counts=True)
    faults = []
    if int(kinds.min()) == 1 and int(kinds.max()) == len(kinds) and len(kinds) > 1:
        faults.append(Symptom("label base", f"Labels run from 1 to {len(kinds)}: subtract 1, classes count from 0."))
    elif len(kinds) == 1 and len(y) >= 10:
        faults.append(Symptom("one class", f"All {len(y)} labels are {int(kinds[0])}: is the data sorted, or cut?"))
    elif len(y) >= 50 and float(counts.max()) / len(y) > 0.9:
        share = float(counts.max()) / len(y)
        faults.append(Symptom("unbalanced classes", f"{share:.0%} of the labels are one class: accuracy means little."))
    return faults
