"""`unperturbed study` as a user meets it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_main import Run
from test_main import run as run

from unperturbed.errors import RunError
from unperturbed.methods.erm import ERM
from unperturbed.methods.fgsm import FGSM
from unperturbed.studies import by_name, page
from unperturbed.studies import study as study_module
from unperturbed.studies.by_name import names
from unperturbed.studies.design import Network, Setting, Study
from unperturbed.studies.measures import ACCURACIES
from unperturbed.studies.rule import Claim
from unperturbed.threat import Threat
from unperturbed.training.recipe import Recipe

SETTING = Setting(
    "digits", Threat("Linf", 0.1), Recipe(epochs=1), options={"width": 4}, suite="apgd-ce", seeds=2, train=96, test=20
)
STUDY = Study(
    "LLR-1",
    "A claim.",
    source="a test",
    networks=(Network("erm", (ERM(),)), Network("fgsm", (FGSM(),))),
    measures=(ACCURACIES,),
    claims=(Claim("fgsm is more robust", lambda values: values.of("fgsm", "robust") - values.of("erm", "robust")),),
    settings=dict.fromkeys(("small", "medium", "full"), (SETTING,)),
)


@pytest.mark.long
@pytest.mark.slow
def test_all_sixteen_are_listed_with_claim_state_and_command(run: Run) -> None:
    code, out, err = run("study", "--json", "--data", "my data")
    assert code == 0, err
    rows = json.loads(out)
    assert [row["study"] for row in rows] == list(names())
    assert all(row["claim"] and row["source"] and set(row["state"]) == {"small", "medium", "full"} for row in rows)
    assert rows[0]["command"] == "unperturbed study DALE-1 --scale medium --data 'my data'"
    assert not Path("runs").exists()


@pytest.mark.long
@pytest.mark.slow
def test_a_study_runs_and_is_listed_with_its_verdict(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    find = by_name.find_study
    monkeypatch.setattr(by_name, "find_study", lambda name: STUDY if name == "LLR-1" else find(name))
    code, out, err = run("study", "LLR-1", "--out", "out")
    assert code == 0, err
    assert "fgsm is more robust: " in out and "out/LLR-1-small/study.md" in out and "4 of 4 runs" not in out
    again = run("study", "LLR-1", "--out", "out", "--json")
    (value,) = json.loads(again[1])
    assert value["verdicts"][0]["seeds"] == 2 and value["verdicts"][0]["sentence"] in out
    listed = {row["study"]: row for row in json.loads(run("study", "--out", "out", "--json")[1])}
    assert listed["LLR-1"]["state"]["small"] == f"1 {value['verdicts'][0]['decision']}"
    assert listed["LLR-1"]["state"]["medium"] == "4 of 4 runs"
    assert "[LLR-1](LLR-1-small/study.md)" in Path("out/index.md").read_text()


@pytest.mark.slow
def test_a_failed_study_leaves_the_others_to_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    original = study_module.run_study

    def failing(study: Study, *given: Any) -> Any:
        if study is STUDY:
            raise RunError("the loss is not finite")
        return original(study, *given)

    second = replace(STUDY, name="LLR-2", networks=STUDY.networks[:1], claims=())
    monkeypatch.setattr(study_module, "run_study", failing)
    monkeypatch.setattr(page, "write_pages", lambda result, out: out)
    monkeypatch.setattr(by_name, "find_study", lambda name: STUDY if name == "LLR-1" else second)
    code, out, err = run("study", "LLR-1", "LLR-2", "--out", "out", "--json")
    assert code == 1 and "LLR-1 stopped: the loss is not finite" in err
    assert [value["study"] for value in json.loads(out)] == ["LLR-2"]


@pytest.mark.parametrize(
    "words, message",
    [
        (("LLR-1", "--scale", "huge"), "small, medium or full"),
        (("LLR-1", "--jobs", "0"), "give 1 or more"),
        (("SCORPIO-9",), "Did you mean"),
        (("DALE-1", "--scale", "medium", "--data", "nowhere"), "has no folder mnist"),
    ],
)
def test_what_cannot_be_run_is_refused(run: Run, words: tuple[str, ...], message: str) -> None:
    code, _, err = run("study", *words)
    assert code == 2 and message in err
