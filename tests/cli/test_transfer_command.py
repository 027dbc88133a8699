"""`unperturbed transfer` as a user meets it."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_main import Run, runner

from unperturbed.runs import read_yaml, write_yaml
from unperturbed.runs.verify import read_verified


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs a command in a folder with three runs, `a`, `b` and `c`; the suite is a short one."""
    call = runner(tmp_path, monkeypatch, capsys, 100)
    train = ("train", "--data", "blobs.npz", "--threat", "Linf:0.05", "--epochs", "2", "--method", "erm")
    for seed, name in enumerate("abc"):
        assert call(*train, "--seed", str(seed), "--out", name)[0] == 0
    return call


@pytest.mark.long
@pytest.mark.slow
def test_the_matrix_is_a_table_and_one_json(run: Run) -> None:
    code, out, err = run("transfer", "a", "b/", "c", "--json", "--out", "matrix")
    found = json.loads(out)
    assert code == 0 and found["models"] == ["a", "b", "c"] and found["n"] == 32 and found["threat"] == "Linf:0.05", err
    assert np.array(found["accuracy"]).shape == (3, 3) and np.array(found["interval"]).shape == (3, 3, 2)
    assert read_verified(Path("matrix/transfer.json")) == found
    own = json.loads(run("evaluate", "b", "--suite", "pgd", "--json")[1])
    assert found["accuracy"][1][1] == own["robust_accuracy"] and found["interval"][1][1] == own["interval"]
    assert found["clean_accuracy"][1] == own["clean_accuracy"]
    assert all(worst <= min(column) for worst, column in
               zip(found["worst_accuracy"], zip(*found["accuracy"], strict=True), strict=True))  # fmt: skip

    code, out, _ = run("transfer", "a", "b", "--examples", "8", "--threat", "L2:0.1")
    assert code == 0 and "L2:0.1, n=8" in out and "worst of all" in out and "upper bound only" in out


@pytest.mark.long
@pytest.mark.slow
def test_a_kept_matrix_is_read_again_refused_or_replaced(run: Run) -> None:
    first = json.loads(run("transfer", "a", "b", "--json", "--out", "matrix")[1])
    code, out, err = run("transfer", "a", "b", "--json", "--out", "matrix")
    assert code == 0 and "Loaded from matrix/transfer" in err and json.loads(out)["accuracy"] == first["accuracy"]
    code, _, err = run("transfer", "a", "c", "--out", "matrix")
    assert code == 2 and "models was ['a', 'b'], now ['a', 'c']" in err and "--overwrite" in err
    code, out, err = run("transfer", "a", "c", "--json", "--out", "matrix", "--overwrite")
    assert code == 0 and json.loads(out)["models"] == ["a", "c"] and "Loaded from" not in err
    assert read_verified(Path("matrix/transfer.json")) == json.loads(out)


def changed(folder: str, **settings: object) -> None:
    write_yaml(Path(folder) / "config.yaml", read_yaml(Path(folder) / "config.yaml") | settings)


@pytest.mark.long
@pytest.mark.slow
def test_runs_that_do_not_fit_are_told_apart(run: Run) -> None:
    assert run("transfer", "a")[0] == run("transfer")[0] == 2
    code, _, err = run("transfer", "a", "b", "a/")
    assert code == 2 and "different models" in err
    code, _, err = run("transfer", "a", "absent")
    assert code == 2 and "absent" in err
    code, _, err = run("transfer", "a", "b", "--suite", "standrad")
    assert code == 2 and "'standard'" in err
    code, _, err = run("transfer", "a", "b", "--suite", "rand")
    assert code == 2 and "means over draws" in err

    changed("b", threat="L2:0.5")
    code, _, err = run("transfer", "a", "b")
    assert code == 2 and "threat: 'Linf:0.05' in a, 'L2:0.5' in b" in err and "--threat" in err
    assert run("transfer", "a", "b", "--threat", "Linf:0.05")[0] == 0
    changed("c", bounds=[0.0, 2.0])
    code, _, err = run("transfer", "a", "c", "--threat", "Linf:0.05")
    assert code == 2 and "bounds: [0.0, 1.0] in a, [0.0, 2.0] in c" in err
    changed("c", bounds=[0.0, 1.0], data="elsewhere.npz")
    code, _, err = run("transfer", "a", "c")
    assert code == 2 and "data" in err and "elsewhere.npz" in err
    Path("b/best.safetensors").unlink()
    code, _, err = run("transfer", "a", "b", "--threat", "Linf:0.05")
    assert code == 2 and "has not finished an epoch" in err


def test_other_commands_still_take_one_run(run: Run) -> None:
    code, _, err = run("evaluate", "a", "b")
    assert code == 2 and "'b' is one argument too many" in err
