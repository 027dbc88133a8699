"""The stored adversarial examples of an evaluation with their originals, as arrays and as a sheet of images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unperturbed.checks import checked
from unperturbed.errors import InputError
from unperturbed.findings import Shown
from unperturbed.reports.charts.pictures import Cell, Grid, pictures_chart
from unperturbed.reports.charts.style import save_chart
from unperturbed.results.points import Points, answers, originals, stored_points
from unperturbed.results.sections.classes import class_name
from unperturbed.results.sections.examples import chosen
from unperturbed.results.stored import StoredEvaluation, StoredRun, read_run
from unperturbed.runs import write_atomically


@dataclass(frozen=True, eq=False, repr=False)
class AdversarialSet(Shown):
    """Examples that an evaluation broke, in the order of their ids.

    Attributes:
        threat: the threat set, as text.
        suite: that broke them.
        eps: the radius in input units; NaN if the text of the threat has none.
        ids: int64 (m,), positions in the test split.
        inputs: float32 (m, *shape), the originals.
        labels: int64 (m,), their classes.
        adversarial: float32 (m, *shape), in the threat set of the inputs, and misclassified by the network.
        predictions: int64 (m,), the network's answers on the adversarial inputs.
        class_names: by label.
    """

    threat: str
    suite: str
    eps: float
    ids: np.ndarray
    inputs: np.ndarray
    labels: np.ndarray
    adversarial: np.ndarray
    predictions: np.ndarray
    class_names: tuple[str, ...]

    def __str__(self) -> str:
        """Return the number of examples, and what broke them."""
        return f"{len(self.ids)} adversarial examples within {self.threat}, found by {self.suite}"

    def save(self, path: Path | str) -> None:
        """Write an .npz file with an array for each attribute, which `numpy.load` reads without pickle.

        Raises:
            InputError: for another suffix.
        """
        file = Path(path)
        if file.suffix != ".npz":
            raise InputError(f"The adversarial set cannot be written as {file.name!r}: give a name that ends in .npz.")
        arrays: dict[str, Any] = {name: np.asarray(value) for name, value in vars(self).items()}

        def write(temporary: Path) -> None:
            with temporary.open("wb") as stream:
                np.savez_compressed(stream, **arrays)

        write_atomically(file, write)

    def sheet(self, path: Path | str, rows: Sequence[int] | None = None) -> None:
        """Write a contact sheet: original, adversarial input and perturbation of a few examples, with their classes.

        Perturbations are summed over the channels, and the largest change of each has the strongest colour.

        Args:
            path: a file that ends in .png, .pdf or .svg.
            rows: the examples on it; by default the first of each class, then further ones, ten in all.

        Raises:
            InputError: for inputs that are no images of one or three channels, and for another suffix.
        """
        if self.inputs.ndim != 4 or self.inputs.shape[1] not in (1, 3):
            shape = self.inputs.shape[1:]
            raise InputError(f"Inputs of shape {shape} are no images of one or three channels: a sheet shows images.")
        labels, predictions = self.labels.tolist(), self.predictions.tolist()
        if rows is None:
            rows = chosen(self.ids.tolist(), labels)
        low = min(0.0, float(self.inputs.min()), float(self.adversarial.min()))
        high = max(1.0, float(self.inputs.max()), float(self.adversarial.max()))
        cells: list[list[Cell]] = []
        for row in rows:
            x, z = self.inputs[row], self.adversarial[row]
            cells.append([((x - low) / (high - low), False), ((z - low) / (high - low), False), (z - x, True)])
        grid = Grid(
            name="adversarial",
            title=f"Adversarial examples, {self.threat}",
            caption="",
            rows=[f"{self._name(labels[row])} → {self._name(predictions[row])}" for row in rows],
            columns=["original", "adversarial", "perturbation, amplified"],
            cells=cells,
        )
        save_chart(pictures_chart(grid), Path(path))

    def _name(self, label: int) -> str:
        return self.class_names[label] if label < len(self.class_names) else str(label)


@checked()
def adversarial_set(
    run: Path | str,
    *,
    suite: str | None = None,
    threat: str | None = None,
    examples: int | None = None,
    data: str | None = None,
) -> AdversarialSet:
    """Return the adversarial examples that an evaluation of a run has stored, with their originals.

    Each is verified: the stored network misclassifies it, and it is as far from its original as the table says.

    Args:
        run: a run folder with an evaluation.
        suite: only evaluations by this suite.
        threat: only evaluations under this threat, as text, such as "Linf:8/255".
        examples: the first ones by id; None: all that were broken.
        data: the place of the data, as for `load_data`, if they have moved; None: the recorded one.

    Raises:
        InputError: if there is no such evaluation, no example was broken, files are damaged, or data or network are not
            those of the evaluation.
    """
    if examples is not None and examples < 1:
        raise InputError(f"examples is {examples}: give 1 or more, or None for all.")
    folder = Path(run)
    stored = read_run(folder, folder.resolve().name)
    evaluation = find_evaluation(stored, suite, threat)
    try:
        return _with_originals(stored, evaluation, examples, data)
    except InputError as error:
        hint = "" if data is not None else " If the data have moved, give their place: --data (in Python, data)."
        raise InputError(f"{evaluation.path} gives no adversarial set: {error}.{hint}") from error


def find_evaluation(run: StoredRun, suite: str | None = None, threat: str | None = None) -> StoredEvaluation:
    """Return the preferred evaluation of a run by this suite under this threat; raises InputError without any."""
    for stored in run.evaluations:
        if suite in (None, stored.outcome.suite) and threat in (None, stored.outcome.threat):
            return stored
    present = ", ".join(f"{stored.outcome.suite} under {stored.outcome.threat}" for stored in run.evaluations)
    wanted = " ".join(text for text in (suite and f"by {suite}", threat and f"under {threat}") if text)
    raise InputError(
        f"{run.folder} holds no evaluation {wanted}".rstrip() + f" ({present or 'none at all'}): unperturbed evaluate "
        f"{run.folder}"
    )


def _with_originals(
    run: StoredRun, evaluation: StoredEvaluation, examples: int | None, data: str | None
) -> AdversarialSet:
    outcome, points = evaluation.outcome, stored_points(evaluation)
    order = sorted(range(len(points.ids)), key=lambda row: points.ids[row])[:examples]
    points = Points(
        tuple(points.ids[row] for row in order), tuple(points.labels[row] for row in order), points.z[order]
    )
    predictions = answers(run, points)
    x = originals(run, outcome, points, range(len(order)), data)
    labels, guesses = list(points.labels), predictions.tolist()
    return AdversarialSet(
        threat=outcome.threat,
        suite=outcome.suite,
        eps=evaluation.radius,
        ids=np.array(points.ids, dtype=np.int64),
        inputs=x.float().numpy(),
        labels=np.array(labels, dtype=np.int64),
        adversarial=points.z.float().numpy(),
        predictions=np.array(guesses, dtype=np.int64),
        class_names=tuple(class_name(run, label) for label in range(_classes(run, [*labels, *guesses]))),
    )


def _classes(run: StoredRun, labels: Sequence[int]) -> int:
    """Return the number of classes: of the record, or as many as the labels need."""
    named = run.record.classes if run.record is not None else None
    return max(len(named or ()), 1 + max(labels))
