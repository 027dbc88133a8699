"""Explanations of errors."""

from unperturbed.examinations.explanations.ascents import DEFAULT, large_threat, synthesise
from unperturbed.examinations.explanations.base import PICTURED, Explanation, grid
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Finding
from unperturbed.noise import Noise
from unperturbed.statistics.per_example import average, portion
from unperturbed.types import Batch


def errors(subject: Subject) -> Explanation:
    """Explanations of errors: the input moved towards the wrong prediction, towards the true class, the difference.

    On misclassified test examples, in an L2 threat set, by Frank-Wolfe. The difference shows the pixels that decide
    between the two classes.
    """
    title = "Errors"
    predicted = subject.test_logits.argmax(dim=1)
    rows = (predicted != subject.test.y).nonzero().flatten()
    share = portion("misclassified", len(rows), len(predicted))
    if not len(rows):
        return Explanation(Finding(title, "Every one of these test examples is classified correctly.", share))
    test = Batch(subject.test.x[rows], subject.test.y[rows], subject.test.ids[rows])
    threat = large_threat(test.x, subject.threat, "L2")
    noise = Noise.of(subject.seed, test.ids)
    wrong, true = (
        synthesise(subject.classifier, test.x, target, threat, noise, DEFAULT, subject.batch_size)
        for target in (predicted[rows], test.y)
    )
    n = min(PICTURED, len(rows))
    columns = {
        "image": (test.x[:n], False),
        "towards the prediction": (wrong[:n], False),
        "towards the true class": (true[:n], False),
        "difference": ((wrong - true)[:n], True),
    }
    names = [f"{int(y)}, predicted {int(p)}" for y, p in zip(test.y[:n], predicted[rows][:n], strict=True)]
    caption = f"Misclassified examples, moved within {threat}."
    lengths = average(
        "L2 distance between the two explanations", (wrong - true).flatten(1).norm(dim=1).tolist(), "input units"
    )
    pictures = grid("errors", title, caption, names, columns)
    arrays = {"image": test.x[:n], "towards_prediction": wrong[:n], "towards_true_class": true[:n]}
    return Explanation(Finding(title, f"{len(rows)} errors. {caption}", share + lengths), pictures, arrays)
