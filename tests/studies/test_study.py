"""A study from its runs to its page: what it trains and when, and that it resumes."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from unperturbed.errors import InputError
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.erm import ERM
from unperturbed.runs.lock import locked
from unperturbed.studies import training
from unperturbed.studies.by_name import find_study, names
from unperturbed.studies.design import Measure, Measured, Network, Run, Setting, Study, Trained
from unperturbed.studies.measures import ACCURACIES
from unperturbed.studies.page import stored_verdicts, write_pages
from unperturbed.studies.rule import Claim
from unperturbed.studies.study import CHOICE, Place, progress_of, run_study
from unperturbed.threat import Threat
from unperturbed.training.recipe import Recipe

SETTING = Setting(
    "digits", Threat("Linf", 0.1), Recipe(epochs=1, batch_size=32), options={"width": 4}, suite="apgd-ce", seeds=2,
    train=96, test=30,
)  # fmt: skip


def _width(trained: Trained) -> Measured:
    return {"width": [4.0]}


WIDTH = Measure("width", _width)
STUDY = Study(
    "TRIAL",
    "Adversarial training is more robust than ordinary training.",
    source="a test",
    networks=(Network("erm", (ERM(),)), Network("at", (AT(PGD(steps=1)), AT(PGD(steps=2))))),
    measures=(ACCURACIES, WIDTH),
    claims=(
        Claim("at is more robust", lambda values: values.of("at", "robust") - values.of("erm", "robust")),
        Claim("erm takes less time", lambda values: 1 - values.time_share("erm", "at")),
    ),
    settings={"small": (SETTING,)},
    timed=("erm", "at"),
)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the seed of every training."""
    seeds: list[int] = []
    original = training.train

    def counted(*given: object, **settings: object) -> object:
        seeds.append(given[4].seed)  # type: ignore[attr-defined]
        return original(*given, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "train", counted)
    monkeypatch.setattr(training, "REPEATS", 2)
    return seeds


@pytest.mark.long
@pytest.mark.slow
def test_a_study_trains_chooses_measures_and_writes_its_pages(tmp_path: Path, trained: list[int]) -> None:
    place = Place(tmp_path / "out")
    assert progress_of(STUDY, "small", place) == (0, 4)
    page = write_pages(run_study(STUDY, "small", place), place.out)
    assert sorted(trained) == [0, 0, 1, 1, CHOICE, CHOICE]
    assert progress_of(STUDY, "small", place) == (4, 4)
    text = page.read_text()
    assert all(claim.sentence in text for claim in STUDY.claims) and "2 seeds of 30 examples" in text
    assert re.search(r"^\| at \| maximiser.steps [12], an end of its range \|", text, re.MULTILINE)
    assert page.with_name("study.svg").exists()
    assert [verdict["claim"] for verdict in stored_verdicts(place.out, "TRIAL", "small")] == [
        claim.sentence for claim in STUDY.claims
    ]


@pytest.mark.long
@pytest.mark.slow
def test_a_second_call_trains_nothing_and_writes_the_same_bytes(tmp_path: Path, trained: list[int]) -> None:
    place = Place(tmp_path / "out")
    folder = write_pages(run_study(STUDY, "small", place), place.out).parent
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    trained.clear()
    write_pages(run_study(STUDY, "small", place), place.out)
    assert not trained
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_an_interrupted_study_resumes_to_the_same_values(
    tmp_path: Path, trained: list[int], monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """The values of finished runs are those of an uninterrupted study, and no finished run is trained again."""
    whole, halted = Place(tmp_path / "whole"), Place(tmp_path / "halted")
    study = replace(STUDY, timed=(), claims=STUDY.claims[:1])
    run_study(study, "small", whole)
    original, calls = training.Work._measured, list[int]()

    def interrupted(work: training.Work, report: object) -> dict[str, Measured]:
        calls.append(1)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return original(work, report)  # type: ignore[arg-type]

    monkeypatch.setattr(training.Work, "_measured", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, "small", halted)
    trained.clear()
    run_study(study, "small", halted)
    assert len(trained) == 6 - (stop - 1)

    def lines(place: Place) -> dict[str, list[str]]:
        """Return the measured lines of each run without those of the times."""
        files = sorted((place.out / "measured").glob("*.jsonl"))
        return {
            file.name: [line for line in file.read_text().splitlines() if '"seconds"' not in line] for file in files
        }

    assert lines(halted) == lines(whole)


@pytest.mark.long
@pytest.mark.slow
def test_runs_are_shared_between_studies_and_measured_values_without_networks_suffice(
    tmp_path: Path, trained: list[int]
) -> None:
    place, study = Place(tmp_path / "out"), replace(STUDY, timed=(), claims=STUDY.claims[:1])
    run_study(study, "small", place)
    elsewhere = Place(tmp_path / "elsewhere")
    elsewhere.out.mkdir()
    (place.out / "measured").rename(elsewhere.out / "measured")
    trained.clear()
    run_study(replace(study, name="OTHER", networks=study.networks[:1], claims=()), "small", elsewhere)
    assert not trained


def test_the_key_of_a_run_depends_on_all_that_decides_it() -> None:
    network = Network("at", (AT(),))
    run = Run(SETTING, network, AT(), 0)
    assert replace(run, seed=1).key == run.key
    assert replace(run, network=replace(network, name="another")).key == run.key
    assert replace(run, setting=replace(SETTING, suite="pgd", test=7, seeds=9)).key == run.key
    others = [
        replace(run, method=AT(PGD(steps=3))),
        replace(run, network=replace(network, strength=0.5)),
        replace(run, network=replace(network, epochs=2.0)),
        replace(run, network=replace(network, changes={"lr": 0.1})),
        replace(run, setting=replace(SETTING, train=95)),
        replace(run, setting=replace(SETTING, options={"width": 5})),
        replace(run, setting=replace(SETTING, protocol="strong")),
        replace(run, setting=replace(SETTING, threat=Threat("L2", 0.1))),
    ]
    keys = [run.key, *(other.key for other in others)]
    assert len(set(keys)) == len(keys)


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path / "out"), pytest.raises(InputError):
        run_study(STUDY, "small", Place(tmp_path / "out"))


def test_missing_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no folder mnist"):
        training.data_for("mnist", tmp_path)


def test_an_unknown_study_is_refused_with_the_nearest() -> None:
    assert len(names()) == 16 and find_study("llr-1").name == "LLR-1"
    with pytest.raises(InputError, match="LLR-1"):
        find_study("LLR1")


@pytest.mark.slow
@pytest.mark.long
def test_several_processes_measure_the_same(tmp_path: Path) -> None:
    study = replace(STUDY, timed=(), claims=STUDY.claims[:1], measures=(ACCURACIES,))
    for jobs in (1, 2):
        run_study(study, "small", Place(tmp_path / str(jobs)), jobs)
    one, two = (
        {path.name: [line for line in path.read_text().splitlines() if '"seconds"' not in line]
         for path in (tmp_path / str(jobs) / "measured").iterdir()}
        for jobs in (1, 2)
    )  # fmt: skip
    assert one == two and len(one) == 3
