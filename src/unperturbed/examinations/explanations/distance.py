"""Etmann's alignment against the distance to the decision boundary."""

import torch

from unperturbed.examinations.diagnostics.instance_margins import nearest
from unperturbed.examinations.explanations.base import Explanation
from unperturbed.examinations.explanations.maps import input_gradient
from unperturbed.examinations.explanations.scores import etmann_alignment
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Finding
from unperturbed.statistics.per_example import average, distribution
from unperturbed.types import Batch

EXAMPLES = 32
"""The largest number of examples: a search costs hundreds of passes per example."""
UNIT = "input units"


def distance(subject: Subject) -> Explanation:
    """Distance: Etmann's alignment against the L2 distance to the nearest misclassified input.

    For a linear network of two classes without bias both are equal (Etmann et al. 2019,
    https://arxiv.org/abs/1905.04172, section 2); the distance is that of the nearest known misclassified point, an
    upper bound. Misclassified examples are left out.
    """
    n = min(EXAMPLES, len(subject.test.x))
    batch = Batch(subject.test.x[:n], subject.test.y[:n], subject.test.ids[:n])
    length = nearest(subject, batch, "L2")
    alignment = etmann_alignment(input_gradient(subject.classifier, batch.x, batch.y), batch.x).double().cpu()
    measured = (length > 0) & length.isfinite() & alignment.isfinite()
    length, alignment, ids = length[measured], alignment[measured], batch.ids.cpu()[measured]
    numbers = average("L2 distance to the nearest misclassified input", length.tolist(), UNIT)
    numbers += average("Etmann alignment of these examples", alignment.tolist(), UNIT)
    numbers += average("Etmann alignment minus L2 distance", (alignment - length).tolist(), UNIT)
    missing = int((~measured).sum())
    notes = (f"{missing} of {n} examples left out: misclassified, without a point or without a gradient.",)
    finding = Finding(
        "Distance",
        f"Etmann's alignment and the distance to the nearest misclassified input, {len(length)} test examples.",
        numbers,
        (distribution("L2 distance", length, ids, UNIT),),
        notes=notes if missing else (),
    )
    return Explanation(finding, arrays={"distance": length, "etmann_alignment": alignment, "ids": torch.as_tensor(ids)})
