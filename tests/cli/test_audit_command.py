"""`unperturbed audit` and `unperturbed doctor` as a user meets them."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from test_main import Run, runner

from unperturbed.cli.audit import picture_of, seconds_of
from unperturbed.errors import InputError
from unperturbed.examinations.audited import CheckResult, Grid
from unperturbed.examinations.verdict import Audit
from unperturbed.findings import Interval

SMALL = ("--suite", "apgd-ce", "--examples", "20", "--budget", "1s")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    call = runner(tmp_path, monkeypatch, capsys, 60)
    training = ("train", "--data", "blobs.npz", "--epochs", "2", "--threat", "Linf:0.05", "--method", "erm")
    assert call(*training, "--out", "runs/a")[0] == 0
    return call


@pytest.mark.long
@pytest.mark.slow
def test_an_audit_announces_its_cost_writes_json_and_sarif_and_fails_on_request(run: Run) -> None:
    code, out, err = run("audit", "runs/a", *SMALL, "--fail-on", "obfuscated", "--json")
    value = json.loads(out)
    assert re.search(r"Audit of 20 examples, about \d+ s", err) and "budget 1s" in err
    assert code == int(value["verdict"] == "obfuscated")
    assert value["verdict"] in ("undecided", "suspicious", "obfuscated"), "a second does not reach for no sign"
    assert "Run the same command again" in err
    assert set(value["headline"]) == {"value", "low", "high", "n"} and value["headline"]["n"] == 20
    stored = json.loads(Path("runs/a/audit.json").read_text())
    assert stored["causes"] == value["causes"] and [check["name"] for check in stored["checks"]]
    log = json.loads(Path("runs/a/audit.sarif").read_text())
    (scan,) = log["runs"]
    rules = [rule["id"] for rule in scan["tool"]["driver"]["rules"]]
    assert log["version"] == "2.1.0" and scan["tool"]["driver"]["name"] and len(set(rules)) == len(rules) == 13
    for result in scan["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"] and result["level"] in ("note", "warning", "error")
        assert result["message"]["text"] and result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert len(scan["results"]) >= len(value["causes"])


@pytest.mark.long
@pytest.mark.slow
def test_a_shorter_audit_does_not_replace_a_longer_one(run: Run) -> None:
    options = ("--suite", "apgd-ce", "--examples", "20")
    assert run("audit", "runs/a", *options, "--budget", "2s")[0] == 0
    longer = Path("runs/a/audit.json").read_text()
    code, out, err = run("audit", "runs/a", *options, "--budget", "1s", "--json")
    assert code == 0 and "holds a longer audit and is kept" in err
    assert Path("runs/a/audit.json").read_text() == longer
    shorter = json.loads(Path("runs/a/audit-budget-1s-examples-20.json").read_text())
    assert shorter["budget"] == 1 and shorter["verdict"] == json.loads(out)["verdict"]
    assert run("audit", "runs/a", "--suite", "apgd-ce", "--examples", "25", "--budget", "2s")[0] == 0
    assert json.loads(Path("runs/a/audit.json").read_text())["headline"]["n"] == 25, "a larger one replaces it"


def test_the_loss_surface_is_drawn(tmp_path: Path) -> None:
    half, grid = Interval(0.5, 0.4, 0.6, 10), Grid((-1.0, 0.0, 1.0), ((0.0, 1.0, 2.0),) * 3, "mean loss")
    check = CheckResult("surface", "What?", "pass", "", "", surface=grid)
    found = Audit("undecided", (), half, half, half, "pgd", "Linf:1", (check,), (), (), (), 1.0, {})
    assert picture_of(found, tmp_path / "audit.svg") == str(tmp_path / "audit.svg")
    drawn = (tmp_path / "audit.svg").read_text()
    assert drawn.startswith("<?xml") and "mean loss" in drawn
    assert picture_of(replace(found, checks=()), tmp_path / "none.svg") == "" and not (tmp_path / "none.svg").exists()


@pytest.mark.slow
def test_doctor_tells_what_is_wrong(run: Run) -> None:
    code, out, _ = run("doctor", "runs/a", "--json")
    value = json.loads(out)
    assert code == int(bool(value["symptoms"])) and value["facts"]["seconds"]
    code, out, _ = run("doctor", "runs/a", "--threat", "Linf:8")
    assert code == 1 and "eps" in out


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("1.5h", 5400)])
def test_a_budget_is_a_time(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5m", "five", "5d", "1e9h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="positive time"):
        seconds_of(text)
