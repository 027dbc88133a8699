"""The generalisation gap of a network, and a covering-number bound on it."""

import torch
from torch import Tensor

from unperturbed.examinations.covering import covering_bound
from unperturbed.examinations.subject import STEPS, Subject
from unperturbed.findings import Finding, Number
from unperturbed.losses import margin
from unperturbed.statistics.per_example import average, difference, difference_of_shares, loss_of, portion, sound
from unperturbed.types import Batch, Logits, PerExample


def generalisation(subject: Subject) -> Finding:
    """Natural and robust accuracy and loss on test and training examples, their gaps, and a covering-number bound.

    Gaps are train minus test. Robust means right at the example and at the worst of 20 steps of PGD: an upper bound on
    the accuracy and a lower one on the loss. The bound (Xu & Mannor 2012 with a covering of the inputs, as Wen, Li &
    Jia 2020 suggest, https://arxiv.org/abs/2011.07478) is given with all its constants; the notes separate proved
    statements from proxies.
    """
    parts = {"test": _outcomes(subject.test_logits, subject.logits(subject.worst_test), subject.test)}
    notes = [
        f"Robust: right at the example and at the worst of {STEPS} steps of PGD, {subject.threat}. Accuracies are "
        "upper bounds and robust losses lower bounds; a stronger attack may move both, and their gap.",
    ]
    if subject.train is not None:
        worst = subject.logits(subject.worst_train)
        parts["train"] = _outcomes(subject.train_logits, worst, subject.train)
    numbers = list[Number]()
    for part, outcomes in parts.items():
        for kind, (right, loss) in outcomes.items():
            hits, n, unknown = _share(right)
            numbers += portion(f"{kind} accuracy, {part}", hits, n, unknown)
            numbers += average(f"{kind} loss, {part}", _finite(loss), "nats")
            if unknown:
                text = (
                    f"{kind}, {part}: {unknown} of {n} examples have logits that are not finite: not counted as right,"
                )
                notes.append(f"{text} and left out of the loss.")
    if subject.train is None:
        notes.append("There are no training examples: no gap and no bound.")
        return Finding("Generalisation", _summary(numbers), tuple(numbers), notes=tuple(notes))
    for kind in ("natural", "robust"):
        (right, loss), (test_right, test_loss) = parts["train"][kind], parts["test"][kind]
        numbers += difference_of_shares(f"{kind} accuracy gap, train minus test", _share(right), _share(test_right))
        numbers += difference(f"{kind} loss gap, train minus test", _finite(loss), _finite(test_loss), "nats")
    notes.append("Intervals of gaps are for two independent samples; they do not cover other trainings of the network.")
    bound = covering_bound(subject, subject.train)
    return Finding(
        "Generalisation",
        f"{_summary(numbers)} {bound.summary}",
        (*numbers, *bound.numbers),
        notes=(*notes, *bound.notes),
    )


Outcomes = dict[str, tuple[Tensor, PerExample]]
"""By kind, natural and robust: 1 right, 0 wrong, NaN unknown; and the loss."""


def _outcomes(clean: Logits, worst: Logits, batch: Batch) -> Outcomes:
    right, right_there = (_right(logits, batch) for logits in (clean, worst))
    loss, loss_there = (loss_of(logits, batch.y) for logits in (clean, worst))
    return {
        "natural": (right, loss),
        # a misclassified example is not robust, for any logits at the other point
        "robust": (torch.where(right == 0, right, torch.minimum(right, right_there)), torch.maximum(loss, loss_there)),
    }


def _right(logits: Logits, batch: Batch) -> Tensor:
    away = margin(sound(logits), batch.y)
    return torch.where(away.isnan(), torch.nan, (away < 0).double())


def _share(right: Tensor) -> tuple[int, int, int]:
    return int((right == 1).sum()), len(right), int(right.isnan().sum())


def _finite(values: PerExample) -> list[float]:
    finite: list[float] = values[values.isfinite()].tolist()
    return finite


def _summary(numbers: list[Number]) -> str:
    by_name = {number.name: number for number in numbers}
    text = []
    for kind in ("natural", "robust"):
        test = by_name.get(f"{kind} accuracy, test")
        gap = by_name.get(f"{kind} accuracy gap, train minus test")
        if test is None or test.low is None or test.high is None:
            continue
        at_most = "at most " if kind == "robust" else ""
        text.append(f"{kind.capitalize()} test accuracy is {at_most}{test.value:.1%} [{test.low:.1%}, {test.high:.1%}]")
        if gap is not None and gap.low is not None and gap.high is not None:
            text[-1] += f", in training {100 * gap.value:+.1f} points [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
    return "".join(f"{sentence}. " for sentence in text).strip()
