"""The comparison of a report: pairs of evaluations of the same examples, with all that speaks against them."""

from pathlib import Path

from unperturbed.findings import GateRecord, Interval, Outcome
from unperturbed.reports.document import Alert, Paragraph, Section, Table
from unperturbed.results.sections.comparison import comparison
from unperturbed.results.stored import StoredEvaluation, StoredRun

SHARE = Interval(0.5, 0.4, 0.6, 4)


def evaluated(folder: str, data: str, verdicts: list[str], gate: GateRecord | None = None) -> StoredEvaluation:
    n = len(verdicts)
    table = {"id": list(range(n)), "label": [0] * n, "verdict": verdicts, "clean_margin": [-1.0] * n}
    outcome = Outcome(
        suite="fast", note="note", threat="Linf:0.1", n=n, clean_accuracy=SHARE, robust_accuracy=SHARE, counts={},
        attacks=(), ties=0, unverified=0, seconds=0.0, warnings=("of one run",), environment={"data": data},
        examples=table, gate=gate,
    )  # fmt: skip
    return StoredEvaluation(Path("run/evaluation", folder, "fast.json"), outcome, 0.1)


def run(name: str, *evaluations: StoredEvaluation) -> StoredRun:
    return StoredRun(name=name, folder=Path(name), record=None, evaluations=evaluations)


def blocks(section: Section | None) -> list[object]:
    assert section is not None
    return [block for part in section.parts for block in part.blocks]


def test_evaluations_of_the_same_examples_are_paired_and_others_are_named() -> None:
    other = evaluated("other-data", "e", ["survived"] * 4)
    first = run("a", other, evaluated("", "d", ["survived"] * 4))
    second = run("b", evaluated("", "d", ["broken"] * 4))
    side, *_, numbers = (block for block in blocks(comparison([first, second])) if isinstance(block, Table))
    assert ("examples", "other-data", "") in side.rows, "the first one is reported, and its folder tells the data"
    assert [row[2] for row in numbers.rows if row[1] == "robust"] == ["-100.0"]
    (text,) = [block for block in blocks(comparison([run("a", other), second])) if isinstance(block, Paragraph)]
    assert "no evaluation of the same examples" in text.text


def test_unequal_checks_of_survivors_are_told_with_the_differences() -> None:
    whole = GateRecord("standard", 3, 2, 1, "it broke 1 of 2", SHARE)
    first, second = run("a", evaluated("", "d", ["survived"] * 4, whole)), run("b", evaluated("", "d", ["broken"] * 4))
    (alert,) = [block for block in blocks(comparison([first, second])) if isinstance(block, Alert)]
    assert len(alert.points) == 1 and "all survivors of a" in alert.points[0]
