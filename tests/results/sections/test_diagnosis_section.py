"""The diagnoses of several runs in one section: trends over eps where they are comparable."""

from dataclasses import replace
from pathlib import Path

from unperturbed.examinations.compare import compare
from unperturbed.findings import Distribution, Examined, Finding
from unperturbed.reports.diagnosis import CLAIMS, comparison_blocks
from unperturbed.results.sections.diagnosis import diagnosis
from unperturbed.results.stored import StoredDiagnosis, StoredRun


def run(name: str, strength: float, shift: float, test: str = "same", file: str = "diagnosis-a.json") -> StoredRun:
    values = tuple(shift + k / 10 for k in range(9))
    finding = Finding("Margins", f"{name}.", (), (Distribution("output margin, test", values, tuple(range(9))),))
    one = StoredDiagnosis(
        Path(file), f"About {file}.", Examined(name, strength, 0, (finding,)), (test, "Linf:0.1", "0")
    )
    return StoredRun(name, Path(name), diagnoses=[one])


def titles(*runs: StoredRun) -> list[str]:
    section = diagnosis(runs)
    assert section is not None
    return [part.title for part in section.parts]


def test_runs_of_different_eps_have_their_trends_before_the_findings() -> None:
    runs = [run("a", 0.0, 1.0), run("b", 0.1, 0.5)]
    section = diagnosis(runs)
    assert section is not None and [part.title for part in section.parts] == [CLAIMS, "Margins"]
    expected = compare([one.examined for each in runs for one in each.diagnoses])
    assert section.parts[0].blocks == comparison_blocks(expected)
    assert expected.claims[0].change < 0


def test_no_trends_without_different_eps_or_on_different_examples() -> None:
    assert titles(run("a", 0.1, 1.0), run("b", 0.1, 0.5)) == ["Margins"]
    assert titles(run("a", 0.0, 1.0), run("b", 0.1, 0.5, test="other")) == ["Margins"]
    assert titles(run("a", 0.0, 1.0)) == ["Margins"]
    assert diagnosis([StoredRun("a", Path("a"))]) is None


def test_two_diagnoses_of_a_run_have_distinct_names() -> None:
    first, second = run("a", 0.1, 1.0), run("a", 0.1, 0.5, file="diagnosis-b.json")
    section = diagnosis([replace(first, diagnoses=[*first.diagnoses, *second.diagnoses])])
    assert section is not None
    text = str(section)
    assert "a, a" in text and "a, b" in text
