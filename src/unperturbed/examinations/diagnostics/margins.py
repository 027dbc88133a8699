"""The margins of the outputs, in logits and in probabilities."""

import math

from unperturbed.examinations.subject import Subject
from unperturbed.findings import Distribution, Finding, Number
from unperturbed.losses import margin
from unperturbed.statistics.per_example import (
    described,
    difference,
    distribution,
    missing_note,
    portion,
    sound,
)
from unperturbed.types import Batch, Labels, Logits, PerExample

NEAR = 0.1
"""Examples with an absolute confidence margin below this are near the boundary."""
SATURATED = 0.999
"""Above this a confidence margin is saturated."""


def output_margin(logits: Logits, y: Labels) -> PerExample:
    """Return min_{j != y} (f_y - f_j) / sqrt 2; NaN where a logit is not finite.

    If positive, it is the Euclidean distance from f to the nearest tie of the label with another class.
    """
    return -margin(sound(logits), y) / math.sqrt(2)


def confidence_margin(logits: Logits, y: Labels) -> PerExample:
    """Return p_y - max_{j != y} p_j of the softmax p; NaN where a logit is not finite."""
    return -margin(sound(logits).softmax(dim=1), y)


def margins(subject: Subject) -> Finding:
    """Output margin and confidence margin of each example, test and training (Wen, Li & Jia 2020).

    https://arxiv.org/abs/2011.07478. Negative for a wrong prediction, 0 at a tie, which counts as wrong. Computed in
    float64 from the network's logits. Correct examples are summarised separately as well.
    """
    parts = {"test": (subject.test_logits, subject.test)}
    notes = ["An output margin grows with the scale of the logits: compare it between networks of one scale only."]
    if subject.train is None:
        notes.append("There are no training examples: their part is missing.")
    else:
        parts["train"] = (subject.train_logits, subject.train)

    numbers: list[Number] = []
    by_part = dict[str, dict[str, Distribution]]()
    for part, (logits, batch) in parts.items():
        by_part[part] = _of(part, logits, batch)
        for name, values in by_part[part].items():
            right = Distribution(f"{values.name}, correct", *_correct(values), values.unit)
            numbers += [*described(values), *described(right)]
            notes += missing_note(values)
            if name == "confidence margin":
                near = sum(abs(value) < NEAR for value in values.values)
                label = f"{values.name}: share with |margin| below {NEAR:g}"
                numbers += portion(label, near, len(values.values))
                numbers += portion(
                    f"{right.name}: share with |margin| below {NEAR:g}",
                    sum(abs(value) < NEAR for value in right.values),
                    len(right.values),
                )
                notes += _saturation(values)
    if "train" in by_part:
        for name, values in by_part["test"].items():
            numbers += difference(
                f"{name}: train minus test", by_part["train"][name].values, values.values, values.unit
            )
    all_margins = tuple(values for part in by_part.values() for values in part.values())
    return Finding("Margins", _summary(numbers), tuple(numbers), all_margins, notes=tuple(notes))


def _of(part: str, logits: Logits, batch: Batch) -> dict[str, Distribution]:
    return {
        "output margin": distribution(
            f"output margin, {part}", output_margin(logits, batch.y), batch.ids, unit="logits"
        ),
        "confidence margin": distribution(f"confidence margin, {part}", confidence_margin(logits, batch.y), batch.ids),
    }


def _correct(values: Distribution) -> tuple[tuple[float, ...], tuple[int, ...]]:
    pairs = [(value, name) for value, name in zip(values.values, values.ids, strict=True) if value > 0]
    return tuple(value for value, _ in pairs), tuple(name for _, name in pairs)


def _saturation(values: Distribution) -> list[str]:
    count = sum(value > SATURATED for value in values.values)
    if 2 * count <= len(values.values):
        return []
    text = f"{values.name}: above {SATURATED:g} for {count} of {len(values.values)} examples, where the softmax is"
    return [f"{text} saturated; the output margin still tells them apart."]


def _summary(numbers: list[Number]) -> str:
    value = {number.name: number.value for number in numbers}
    if "output margin, test: median" not in value:
        return "No test example has finite logits: there is no margin."
    near = value[f"confidence margin, test: share with |margin| below {NEAR:g}"]
    return (
        f"On test examples the median output margin is {value['output margin, test: median']:.4g} logits and the "
        f"median confidence margin {value['confidence margin, test: median']:.3f}; {near:.1%} of them have a "
        f"confidence margin within {NEAR:g} of the boundary."
    )
