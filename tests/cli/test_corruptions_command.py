"""`evaluate --suite corruptions`: its table and files, a folder of CIFAR-10-C, and the options that it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_main import Run
from test_main import run as run

from support.sealed import reseal
from unperturbed.results.stored import read_run
from unperturbed.runs.verify import read_verified

TRAIN = ("train", "--data", "pictures.npz", "--threat", "Linf:0.02", "--epochs", "1", "--method", "erm")


def write_pictures() -> tuple[np.ndarray, np.ndarray]:
    y = np.arange(60) % 2
    x = np.random.default_rng(0).integers(0, 100, (60, 8, 8, 3)) + 120 * y[:, None, None, None]
    np.savez(
        "pictures.npz", x_train=x[:48].astype(np.uint8), y_train=y[:48], x_test=x[48:].astype(np.uint8), y_test=y[48:]
    )
    return x[48:].astype(np.uint8), y[48:]


@pytest.mark.long
@pytest.mark.slow
def test_a_run_gets_a_table_of_corruptions_and_severities(run: Run) -> None:
    x, y = write_pictures()
    assert run(*TRAIN, "--out", "o")[0] == 0
    code, out, err = run("evaluate", "o", "--suite", "corruptions")
    assert code == 0 and "gaussian_noise" in out and "says nothing about the worst case" in out, err
    assert "robust accuracy" not in out and "frost is left out" in err
    kept = read_verified(Path("o/evaluation/corruptions.json"))
    assert kept["n"] == 12 and len(kept["corruptions"]) == 14 and "robust_accuracy" not in kept
    Path("c").mkdir()
    np.save("c/fog.npy", np.concatenate([x] * 5))
    np.save("c/labels.npy", np.tile(y, 5))
    code, out, err = run("evaluate", "o", "--suite", "corruptions:c", "--examples", "first:6", "--json")
    found = json.loads(out)
    assert code == 0 and found["n"] == 6 and [row["corruption"] for row in found["corruptions"]] == ["fog"], err
    assert found["corruptions"][0]["accuracy"] == [found["clean_accuracy"]] * 5
    stored = read_run(Path("o"), "o")
    assert not stored.damaged and not stored.evaluations and stored.probables == []
    assert sorted(len(one.accuracy) for one in stored.corruptions) == [1, 14]
    path = Path("o/evaluation/corruptions.json")
    for name, change in (("fog", {"corruptions": [row_at(kept, "fog", 1.5)]}), ("mean", {"corrupted_accuracy": 1.5})):
        reseal(path, kept | change)
        assert any("corruptions.json says 1.5" in text and name in text for text in read_run(Path("o"), "o").damaged)


def row_at(kept: dict[str, Any], name: str, value: float) -> dict[str, Any]:
    """Return the row of a corruption with another accuracy at the third severity."""
    (row,) = (row for row in kept["corruptions"] if row["corruption"] == name)
    return row | {"accuracy": [*row["accuracy"][:2], value, *row["accuracy"][3:]]}


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--suite", "corruptions", "--threat", "Linf:0.1"), "no --threat"),
        (("--suite", "corruptions", "--quantize"), "no --quantize"),
        (("--suite", "corruptions:"), "corruptions:FOLDER"),
        (("--suite", "corruptions:absent"), "There is no folder absent"),
    ],
)
def test_what_is_about_attacks_is_refused(run: Run, words: tuple[str, ...], part: str) -> None:
    write_pictures()
    assert run(*TRAIN, "--out", "o")[0] == 0
    code, out, err = run("evaluate", "o", *words)
    assert (code, out) == (2, "") and part in err
