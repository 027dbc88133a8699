"""`unperturbed diagnose` as a user meets it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from test_main import Run, runner

from unperturbed.runs import read_yaml, write_yaml
from unperturbed.runs.record import RunRecord

QUICK = ("--diagnostics", "margins")
OWN = '''
from unperturbed.findings import Finding, Number

def count(subject):
    """How many examples there are."""
    train = 0 if subject.train is None else len(subject.train.y)
    return Finding("Counted", f"{len(subject.test.y)} test examples.", (Number("trained on", train, 1),))

def fails(subject):
    raise RuntimeError("no such layer")

five = 5
'''


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs a command in a folder with the runs `a` (eps 0), `b` and `c` (eps 0.05, 0.1)."""
    call = runner(tmp_path, monkeypatch, capsys, 100)
    train = ("train", "--data", "blobs.npz", "--epochs", "1")
    for name, eps, method in (("a", "0", "erm"), ("b", "0.05", "fgsm"), ("c", "0.1", "fgsm")):
        assert call(*train, "--threat", f"Linf:{eps}", "--method", method, "--out", f"runs/{name}")[0] == 0
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "examinations", raising=False)
    Path("examinations.py").write_text(OWN)
    return call


@pytest.mark.long
@pytest.mark.slow
def test_one_network_gets_a_table_a_file_and_a_page(run: Run) -> None:
    code, out, err = run("diagnose", "runs/b", *QUICK)
    assert code == 0 and "margin" in out and "runs/b/diagnosis.html" in out, err
    assert Path("runs/b/diagnosis.html").read_text().count("<html") == 1
    stored = json.loads(Path("runs/b/diagnosis-Linf-0.05-first-1000.json").read_text())
    assert stored["of"]["threat"] == "Linf:0.05" and list(stored["findings"]) == ["margins"]

    code, out, _ = run("diagnose", "runs/b", *QUICK, "--json")
    value = json.loads(out)
    assert code == 0 and value["comparison"] is None and value["models"][0]["strength"] == 0.05
    assert value["models"][0]["findings"][0] == stored["findings"]["margins"]["finding"]


@pytest.mark.long
@pytest.mark.slow
def test_several_networks_are_compared_at_the_largest_eps(run: Run) -> None:
    code, out, err = run("diagnose", "runs/a", "runs/b", "runs/c", *QUICK, "--json")
    value = json.loads(out)
    assert code == 0 and value["threat"] == "Linf:0.1" and value["page"] == "runs/diagnosis/diagnosis.html", err
    assert value["comparison"]["strengths"] == [0.0, 0.05, 0.1]
    assert [claim["claim"]["quantity"] for claim in value["comparison"]["claims"]] == ["output margin, test"]
    assert any("not tested" in note for note in value["comparison"]["notes"])
    assert json.loads(Path("runs/diagnosis/comparison.json").read_text())["claims"] == value["comparison"]["claims"]

    code, out, _ = run("diagnose", "runs/a", "runs/b", *QUICK, "--out", "side", "--threat", "L2:0.2")
    assert code == 0 and "decision boundary" in out and Path("side/diagnosis.html").exists()


@pytest.mark.slow
def test_a_diagnostic_of_ones_own_stands_beside_the_others(run: Run) -> None:
    code, out, err = run("diagnose", "runs/b", "--diagnostics", "margins,examinations:count", "--examples", "8")
    assert code == 0 and "Counted" in out and "8 test examples" in out, err
    assert "Counted" in Path("runs/b/diagnosis.html").read_text()


@pytest.mark.slow
def test_training_examples_are_those_that_the_run_was_trained_on(run: Run) -> None:
    code, out, _ = run("diagnose", "runs/b", "--diagnostics", "examinations:count", "--json")
    config = read_yaml(Path("runs/b/config.yaml"))
    (number,) = json.loads(out)["models"][0]["findings"][0]["numbers"]
    assert code == 0 and number["value"] == config["chosen"]["training_examples"]


@pytest.mark.slow
def test_what_a_run_was_not_trained_on_is_not_called_its_training(run: Run) -> None:
    Path("other.npz").write_bytes(Path("blobs.npz").read_bytes())
    code, out, _ = run("diagnose", "runs/b", "--data", "other.npz", "--diagnostics", "examinations:count", "--json")
    (number,) = json.loads(out)["models"][0]["findings"][0]["numbers"]
    assert code == 0 and number["value"] == 0


def test_ordinary_training_is_told_by_what_perturbs() -> None:
    """A wrapper perturbs as what it wraps does, and a run from Python keeps the method's whole path."""
    erm = {"class_path": "unperturbed.methods.erm.ERM", "init_args": {}}
    recipe = {"seed": 4, "epochs": 1, "validation": 0.1}
    rest = {"threat": "Linf:0.1", "bounds": None, "recipe": recipe, "chosen": {}}
    for method in ({"class_path": "erm"}, erm, {"class_path": "awp", "init_args": {"gamma": 0.1, "method": erm}}):
        assert RunRecord.of({"method": method} | rest, "config.yaml").strength == 0.0
    at = {"class_path": "at", "init_args": {}}
    for method in (at, {"class_path": "awp", "init_args": {"method": at}}):
        assert RunRecord.of({"method": method} | rest, "config.yaml").strength == 0.1


@pytest.mark.slow
def test_networks_of_other_test_examples_are_not_paired(run: Run) -> None:
    """Data of the same name and classes may hold other examples."""
    with np.load("blobs.npz") as arrays:
        changed = dict(arrays)
    changed["x_test"], changed["y_test"] = changed["x_test"][::-1], changed["y_test"][::-1]
    Path("more").mkdir()
    np.savez("more/blobs.npz", **changed)
    config = read_yaml(Path("runs/c/config.yaml"))
    write_yaml(Path("runs/c/config.yaml"), config | {"data": str(Path("more/blobs.npz").resolve())})
    code, _, err = run("diagnose", "runs/b", "runs/c", *QUICK)
    assert code == 2 and "test examples differ" in " ".join(err.split())


@pytest.mark.long
@pytest.mark.slow
def test_strengths_in_different_norms_are_no_trend(run: Run) -> None:
    config = read_yaml(Path("runs/c/config.yaml"))
    write_yaml(Path("runs/c/config.yaml"), config | {"threat": "L2:0.5"})
    words = ("--threat", "Linf:0.1", *QUICK, "--json")
    code, out, err = run("diagnose", "runs/b", "runs/c", *words)
    assert code == 0 and json.loads(out)["comparison"] is None and "different norms" in err
    code, out, _ = run("diagnose", "runs/a", "runs/c", *words)
    assert code == 0 and json.loads(out)["comparison"]["strengths"] == [0.0, 0.5]


@pytest.mark.slow
def test_a_diagnostic_that_fails_is_told_and_the_page_is_written(run: Run) -> None:
    code, _, err = run("diagnose", "runs/b", "--diagnostics", "examinations:fails,margins")
    assert code == 1 and "examinations:fails failed on b: RuntimeError: no such layer" in err
    assert "output margin" in Path("runs/b/diagnosis.html").read_text()


@pytest.mark.slow
def test_a_model_without_a_run_folder(run: Run) -> None:
    code, out, err = run("diagnose", "--model", "mlp", "--weights", "runs/b/best.safetensors", "--data", "blobs.npz",
                         "--threat", "Linf:0.05", *QUICK, "--out", "elsewhere")  # fmt: skip
    assert code == 0 and Path("elsewhere/diagnosis.html").exists(), err
    assert run("diagnose")[0] == 2


@pytest.mark.long
@pytest.mark.slow
def test_findings_at_another_threat_or_on_fewer_examples_replace_nothing(run: Run) -> None:
    for words in ((), ("--threat", "Linf:0.1"), ("--examples", "8"), ("--seed", "3")):
        assert run("diagnose", "runs/b", *QUICK, *words)[0] == 0
    names = {path.name for path in Path("runs/b").glob("diagnosis-*.json")}
    assert names == {
        "diagnosis-Linf-0.05-first-1000.json", "diagnosis-Linf-0.1-first-1000.json",
        "diagnosis-Linf-0.05-first-8.json", "diagnosis-Linf-0.05-first-1000-seed-3.json",
    }  # fmt: skip


@pytest.mark.slow
def test_bad_input_is_told(run: Run) -> None:
    code, _, err = run("diagnose", "runs/b", "--threat", "Linf:0.1,Linf:0.2")
    assert code == 2 and "one size" in err
    code, _, err = run("diagnose", "runs/b", "--diagnostics", "margin")
    assert code == 2 and "'margins'" in err
    code, _, err = run("diagnose", "runs/b", "--diagnostics", "examinations:five")
    assert code == 2 and "examinations:five is int" in err
    code, _, err = run("diagnose", "runs/b", "--diagnostics", "examinations:absent")
    assert code == 2 and "absent" in err
    for again in ("runs/b/", "runs/c/../b", str(Path("runs/b").resolve())):
        code, _, err = run("diagnose", "runs/b", again)
        assert code == 2 and "named twice" in err
    write_yaml(Path("runs/c/config.yaml"), read_yaml(Path("runs/c/config.yaml")) | {"threat": "L2:0.5"})
    code, _, err = run("diagnose", "runs/b", "runs/c")
    assert code == 2 and "different norms" in err and "--threat" in err


@pytest.mark.long
@pytest.mark.slow
def test_run_folders_are_diagnosed_from_python_as_by_the_command(run: Run) -> None:
    import unperturbed as un

    code, out, _ = run("diagnose", "runs/b", "runs/c", *QUICK, "--json")
    found = un.diagnose_runs(["runs/b", "runs/c"], diagnostics=["margins"])
    assert code == 0 and json.loads(out) == json.loads(json.dumps(found.json()))
    assert found.page.is_file()
    with pytest.raises(un.InputError, match="each once"):
        un.diagnose_runs(["runs/b", "runs/b"])
