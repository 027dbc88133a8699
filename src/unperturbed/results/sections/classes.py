"""Accuracy by class, and the predictions on adversarial examples."""

from collections import Counter
from collections.abc import Sequence

from unperturbed.errors import InputError
from unperturbed.reports.document import (
    Bar,
    BarChart,
    BarSeries,
    Block,
    MatrixChart,
    Paragraph,
    Part,
    Section,
    Table,
    section,
)
from unperturbed.results.points import answers, stored_points
from unperturbed.results.stored import StoredEvaluation, StoredRun
from unperturbed.results.tables import ClassResult, by_class

MOST = 40
"""The largest number of classes in a chart; tables have all classes."""


def classes(runs: Sequence[StoredRun]) -> Section | None:
    """Return the section, with a part for each run with an intact table of examples."""
    parts = [Part(run.name if len(runs) > 1 else "", _blocks(run, run.headline)) for run in runs]
    return section("Classes", parts, "Accuracy differs between classes, and so does robustness.")


def _blocks(run: StoredRun, stored: StoredEvaluation | None) -> tuple[Block, ...]:
    if stored is None or not stored.outcome.examples or "draws" in stored.outcome.examples:
        return ()
    results = by_class(stored.outcome)
    names = {result.label: class_name(run, result.label) for result in results}
    blocks: list[Block] = []
    if len(results) <= MOST:
        blocks.append(_chart(results, names))
    blocks += [_table(results, names), _confusion(run, stored)]
    return tuple(blocks)


def class_name(run: StoredRun, label: int) -> str:
    """Return the name of a class, or its number if the run has no names."""
    classes = run.record.classes if run.record is not None else None
    return classes[label] if classes is not None and 0 <= label < len(classes) else str(label)


def _chart(results: Sequence[ClassResult], names: dict[int, str]) -> Block:
    kinds = (("clean", [result.clean for result in results]), ("robust", [result.robust for result in results]))
    series = tuple(
        BarSeries(
            f"{kind} accuracy",
            tuple(
                Bar(names[result.label], share.value, share.low, share.high)
                for result, share in zip(results, shares, strict=True)
            ),
        )
        for kind, shares in kinds
    )
    worst = min(results, key=lambda result: result.robust.value)
    best = max(results, key=lambda result: result.robust.value)
    text = (
        f"Lowest robust accuracy: class {names[worst.label]}, {worst.robust.value:.1%}. Highest: class "
        f"{names[best.label]}, {best.robust.value:.1%}."
    )
    return BarChart("Accuracy by class", "class", "accuracy", series, text)


def _table(results: Sequence[ClassResult], names: dict[int, str]) -> Block:
    rows = tuple(
        (names[result.label], str(result.clean.n), str(result.clean), str(result.robust), str(result.unknown))
        for result in results
    )
    return Table("Accuracy by class, all numbers", ("class", "n", "clean", "robust", "unknown"), rows, folded=True)


def _confusion(run: StoredRun, stored: StoredEvaluation) -> Block:
    """Return the predictions on adversarial examples, or the reason why they are unknown."""
    table = stored.outcome.examples
    try:
        prediction_of = dict[int, int]()
        if "broken" in table["verdict"]:
            points = stored_points(stored)
            prediction_of = dict(zip(points.ids, answers(run, points).tolist(), strict=True))
    except InputError as error:
        return Paragraph(f"The confusion under attack is left out: {str(error).rstrip('.')}.")
    pairs, undecided = Counter[tuple[int, int]](), 0
    for name, label, prediction, verdict in zip(
        *(table[column] for column in ("id", "label", "prediction", "verdict")), strict=True
    ):
        answer = {"broken": prediction_of.get(name), "survived": label, "misclassified": prediction}.get(verdict)
        if answer is None:
            undecided += 1
        else:
            pairs[label, answer] += 1
    labels = sorted({label for pair in pairs for label in pair})
    return _matrix(pairs, labels, undecided, run, stored)


def _matrix(
    pairs: Counter[tuple[int, int]], labels: Sequence[int], undecided: int, run: StoredRun, stored: StoredEvaluation
) -> Block:
    names = tuple(class_name(run, label) for label in labels)
    wrong = Counter({pair: count for pair, count in pairs.items() if pair[0] != pair[1]})
    common = ", ".join(
        f"{class_name(run, label)} for {class_name(run, answer)} ({count})"
        for (label, answer), count in wrong.most_common(3)
    )
    text = f"Most frequent: {common or 'no confusion'}. Misclassified examples count by their clean prediction."
    text += f" {undecided} examples are not in it, since their verdict is unknown." if undecided else ""
    title = f"Confusion under attack ({stored.outcome.suite}, {stored.outcome.threat})"
    if len(labels) > MOST:
        rows = tuple((class_name(run, a), class_name(run, b), str(count)) for (a, b), count in wrong.most_common(100))
        return Table(f"{title}: the most frequent errors", ("true class", "taken for", "examples"), rows)
    counts = tuple(tuple(pairs[label, answer] for answer in labels) for label in labels)
    return MatrixChart(title, "true class", "taken for", names, names, counts, text)
