"""Accuracy by class, summed up from a table of examples."""

from collections import Counter
from pathlib import Path

from unperturbed.results.stored import read_run
from unperturbed.results.tables import by_class


def test_classes_add_up_to_the_headline(made: Path) -> None:
    stored = read_run(made / "a", "a").headline
    assert stored is not None
    outcome, results = stored.outcome, by_class(stored.outcome)
    assert sum(result.robust.n for result in results) == outcome.n
    for kind, whole in (("clean", outcome.clean_accuracy), ("robust", outcome.robust_accuracy)):
        correct = sum(round(getattr(result, kind).value * result.clean.n) for result in results)
        assert correct == round(whole.value * outcome.n)
    survivors = Counter(
        label
        for label, verdict in zip(outcome.examples["label"], outcome.examples["verdict"], strict=True)
        if verdict == "survived"
    )
    assert {result.label: round(result.robust.value * result.robust.n) for result in results} == {
        label: survivors[label] for label in (0, 1)
    }
