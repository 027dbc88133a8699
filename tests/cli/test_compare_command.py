"""`unperturbed compare` as a user meets it."""

import json
from pathlib import Path

import pytest
from test_main import Run, runner

import unperturbed as un


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a caller of the command in a folder with two evaluated runs, `a` and `b`."""
    call = runner(tmp_path, monkeypatch, capsys, 100)
    for seed, name in enumerate("ab"):
        words = (
            "--data",
            "blobs.npz",
            "--threat",
            "Linf:0.05",
            "--epochs",
            "2",
            "--method",
            "erm",
            "--seed",
            str(seed),
        )
        assert call("train", *words, "--seed", str(seed), "--out", name)[0] == 0
        assert call("evaluate", name, "--suite", "apgd-ce")[0] == 0
    return call


def test_two_runs_are_compared_and_what_does_not_fit_is_refused(run: Run) -> None:
    code, out, err = run("compare", "a", "b", "--json")
    assert code == 0, err
    found = json.loads(out)
    (pair,) = found["pairs"]
    one, other = (json.loads(run("evaluate", name, "--suite", "apgd-ce", "--json")[1]) for name in "ab")
    assert pair["robust"]["value"] == pytest.approx(other["robust_accuracy"] - one["robust_accuracy"])
    assert pair["clean"]["value"] == pytest.approx(other["clean_accuracy"] - one["clean_accuracy"])
    assert pair["n"] == sum(entry["n"] for entry in pair["classes"]) == one["n"]
    assert json.loads(json.dumps(un.compare_runs(["a", "b"]).json())) == found
    with pytest.raises(un.InputError, match="different runs"):
        un.compare_runs(["a", "a"])
    code, out, _ = run("compare", "a", "b")
    assert code == 0 and "McNemar" in out and "Robust on a alone" in out
    excluded = pair["robust"]["low"] > 0 or pair["robust"]["high"] < 0
    assert f"the difference is {'significant' if excluded else 'not significant'}." in out

    assert "two run folders" in run("compare", "a")[2]
    code, _, err = run("compare", "a", "b", "--suite", "standard")
    assert code == 2 and "custom-apgd-ce under Linf:0.05 on" in err
    code, _, err = run("compare", "a", "nowhere")
    assert code == 2 and "nowhere" in err
