"""How a run is repeated."""

from dataclasses import replace
from pathlib import Path

import pytest

from unperturbed.cli.options import parse
from unperturbed.data.selection import Selection
from unperturbed.findings import GateRecord, Interval, Outcome
from unperturbed.results.sections.training import _commands, selected
from unperturbed.results.stored import StoredEvaluation, read_run


@pytest.mark.parametrize(
    ("folder", "options"),
    [
        ("evaluation", ""),
        ("first-200", " --examples first:200"),
        ("L2-0.5-random-100-seed-3", " --examples random:100 --examples-seed 3"),
        ("stratified-50-seed-0-attack-seed-2", " --examples stratified:50 --examples-seed 0"),
        ("my-first-model", ""),
    ],
)
def test_the_folder_of_an_evaluation_says_which_examples(folder: str, options: str) -> None:
    assert selected(folder) == options


def test_every_selection_is_found_again() -> None:
    from unperturbed.cli.evaluate import parser
    from unperturbed.data.selection import parse as selection

    for chosen in (Selection("first", 7), Selection("random", 7, 3), Selection("stratified", 7, 3)):
        name = str(chosen).replace(":", "-").replace(" ", "-")
        given = parse(parser(), selected(name).split(), "run")
        assert selection(given.examples, given.examples_seed) == chosen


def checked(half_width: float | None = None) -> GateRecord:
    return GateRecord("standard", 3, 3, 0, "", Interval(0.5, 0.5, 0.5, 6), half_width)


@pytest.mark.parametrize(
    ("suite", "gate", "options"),
    [
        ("fast", checked(), ""),
        ("fast", checked(0.005), " --estimate 0.5"),
        ("fast", None, " --no-gate"),
        ("fast-unchecked", None, " --no-gate"),
        ("pgd", None, ""),
        ("mine", None, ""),
    ],
)
def test_an_evaluation_is_repeated_with_its_check_of_survivors(
    tmp_path: Path, suite: str, gate: GateRecord | None, options: str
) -> None:
    outcome = Outcome(
        threat="Linf:0.1", n=6, clean_accuracy=Interval(1, 1, 1, 6), seconds=0.0, warnings=(), environment={},
        suite=suite, note="", robust_accuracy=Interval(0.5, 0, 1, 6), attacks=(), ties=0, unverified=0,
        counts={"survived": 3, "broken": 3, "misclassified": 0, "unknown": 0}, examples={}, gate=gate,
    )  # fmt: skip
    (tmp_path / "result.json").write_text("{}")
    stored = StoredEvaluation(tmp_path / "evaluation/fast.json", outcome, 0.1)
    run = replace(read_run(tmp_path, "a"), evaluations=[stored])
    line = _commands(run).splitlines()[1]
    assert line.startswith("unperturbed evaluate ")
    assert line.endswith(f"--suite {suite.removesuffix('-unchecked')} --threat Linf:0.1{options}")
