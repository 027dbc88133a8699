"""Etmann's alignment against the distance to the decision boundary."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from unperturbed.examinations.diagnostics.instance_margins import nearest
from unperturbed.examinations.explanations.base import Explanation
from unperturbed.examinations.explanations.maps import input_gradient
from unperturbed.examinations.explanations.scores import etmann_alignment
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Distribution, Finding, Number
from unperturbed.statistics.per_example import average, distribution
from unperturbed.types import Batch, Norm, PerExample

EXAMPLES = 32
"""The largest number of examples of a new search, which costs hundreds of passes per example."""
UNIT = "input units"


def distance(subject: Subject) -> Explanation:
    """Distance: Etmann's alignment against the distance to the nearest misclassified input.

    For a linear network of two classes without bias and box both are equal (Etmann et al. 2019,
    https://arxiv.org/abs/1905.04172, section 2); the distance is that of the nearest known misclassified point, an
    upper bound. In L2 by a new search around 32 examples; where the run has a curve, also in its norm and on all of its
    examples. Misclassified examples are left out.
    """
    n = min(EXAMPLES, len(subject.test.x))
    batch = Batch(subject.test.x[:n], subject.test.y[:n], subject.test.ids[:n])
    length = nearest(subject, batch, "L2")
    alignment = _alignment(subject, batch, "L2")
    measured = (length > 0) & length.isfinite() & alignment.isfinite()
    length, alignment, ids = length[measured], alignment[measured], batch.ids.cpu()[measured]
    numbers = average("L2 distance to the nearest misclassified input", length.tolist(), UNIT)
    numbers += average("Etmann alignment of these examples", alignment.tolist(), UNIT)
    numbers += average("Etmann alignment minus L2 distance", (alignment - length).tolist(), UNIT)
    missing = int((~measured).sum())
    notes = [f"{missing} of {n} examples left out: misclassified, without a point or without a gradient."]
    notes = notes if missing else []
    distributions, arrays = (
        [distribution("L2 distance", length, ids, UNIT)],
        {"distance": length, "etmann_alignment": alignment, "ids": torch.as_tensor(ids)},
    )
    for norm, known in subject.distances.items():
        of_curve, spread, tensors = _beside_curve(subject, norm, known)
        numbers += of_curve
        distributions += spread
        arrays |= tensors
        if not of_curve:
            notes.append(f"The curve in {norm} has no distance of an explained example that is classified correctly.")
    finding = Finding(
        "Distance",
        f"Etmann's alignment and the distance to the nearest misclassified input, {len(length)} test examples.",
        numbers,
        tuple(distributions),
        notes=tuple(notes),
    )
    return Explanation(finding, arrays=arrays)


def _beside_curve(
    subject: Subject, norm: Norm, known: Mapping[int, float]
) -> tuple[tuple[Number, ...], tuple[Distribution, ...], dict[str, Tensor]]:
    """Return means, values and arrays of a curve's distances and the alignment in its norm, on the shared examples."""
    test = subject.test
    lengths = [known.get(name, math.nan) for name in test.ids.tolist()]
    rows = [row for row, length in enumerate(lengths) if 0 < length < math.inf]
    if not rows:
        return (), (), {}
    chosen = torch.tensor(rows, device=test.x.device)
    batch = Batch(test.x[chosen], test.y[chosen], test.ids[chosen])
    alignment = _alignment(subject, batch, norm)
    finite = alignment.isfinite()
    length = torch.tensor([lengths[row] for row in rows], dtype=torch.float64)[finite]
    alignment, ids = alignment[finite], batch.ids.cpu()[finite]
    numbers = average(f"{norm} distance of the curve", length.tolist(), UNIT)
    numbers += average(f"Etmann alignment of the curve's examples, {norm}", alignment.tolist(), UNIT)
    numbers += average(f"Etmann alignment minus {norm} distance of the curve", (alignment - length).tolist(), UNIT)
    arrays = {f"curve_{norm}_distance": length, f"curve_{norm}_alignment": alignment, f"curve_{norm}_ids": ids}
    return numbers, (distribution(f"{norm} distance of the curve", length, ids, UNIT),), arrays


def _alignment(subject: Subject, batch: Batch, norm: Norm) -> PerExample:
    """Return Etmann's alignment in a norm for each example, in float64 on the CPU."""
    parts = [
        etmann_alignment(input_gradient(subject.classifier, batch.x[rows], batch.y[rows]), batch.x[rows], norm)
        for rows in torch.split(torch.arange(len(batch.x), device=batch.x.device), subject.batch_size)
    ]
    return torch.cat(parts).double().cpu()
