"""`unperturbed probable`: what it prints, what it writes where, and what it refuses."""

import json
from pathlib import Path

import pytest
from test_main import TRAIN, Run
from test_main import run as run

from unperturbed.runs.verify import read_verified


@pytest.mark.slow
def test_a_run_gets_its_shares(run: Run) -> None:
    run(*TRAIN)
    code, out, err = run("probable", "runs/blobs-at", "--draws", "20", "--rho", "0.1,0.5", "--json")
    found, folder = json.loads(out), Path("runs/blobs-at/evaluation")
    assert code == 0 and (found["n"], found["draws"], found["threat"]) == (12, 20, "Linf:0.05"), err
    assert [each["rho"] for each in found["probable"]] == [0.1, 0.5] and "no attack" in found["note"]
    for each in found["probable"]:
        assert each["interval"][0] <= each["probable_accuracy"] <= each["interval"][1]
    assert "robust_accuracy" not in out
    kept = read_verified(folder / "probable.json")
    assert kept == {key: value for key, value in found.items() if key != "run"}
    code, out, _ = run("probable", "runs/blobs-at", "--threat", "L2:0.2", "--examples", "6")
    assert code == 0 and "right on 99% of draws" in out and "says nothing about the worst case" in out and "n=6" in out
    assert (folder / "L2-0.2-first-6/probable.json").exists()


@pytest.mark.slow
def test_bad_input_ends_with_2_and_a_remedy(run: Run) -> None:
    run(*TRAIN)
    for words, part in (
        (("--rho", "a"), "--rho is 'a'"),
        (("--draws", "20"), "take 100 draws"),
        (("--draws", "x"), "--draws"),
        (("--rhos", "1"), "'--rho'"),
        (("--threat", "L3:1"), "L3"),
        (("--threat", "L2:0.1,L2:0.2"), "name one"),
    ):
        code, out, err = run("probable", "runs/blobs-at", *words)
        assert (code, out) == (2, "") and part in err, err
    assert not Path("runs/blobs-at/evaluation").exists()


@pytest.mark.parametrize(
    ("words", "part"), [(("absent",), "no run folder"), (("--model", "mlp", "--data", "blobs.npz"), "trained")]
)
def test_without_a_trained_model_it_ends_with_2(run: Run, words: tuple[str, ...], part: str) -> None:
    code, _, err = run("probable", *words)
    assert code == 2 and part in err
