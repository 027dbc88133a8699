"""`unperturbed curve`: what it prints, what it writes where, and what it refuses."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pyarrow.parquet
import pytest
from test_main import TRAIN, Run
from test_main import run as run

from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.evaluation import curve
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    attacks = (FAB(steps=5), GradientAttack("PGD-CE", cross_entropy, PGD(steps=5)))
    monkeypatch.setitem(curve.SUITES, "nearest", Suite("nearest", attacks, "a short one"))


def test_a_run_gets_its_curve(run: Run) -> None:
    run(*TRAIN)
    code, out, err = run("curve", "runs/blobs-at", "--threat", "Linf:0.3", "--json")
    found, folder = json.loads(out), Path("runs/blobs-at/evaluation")
    assert code == 0 and found["n"] == 12 == sum(found["counts"].values()), err
    assert [round(point["eps"], 9) for point in found["curve"]] == [round(0.03 * k, 9) for k in range(1, 11)]
    values = [point["robust_accuracy"] for point in found["curve"]]
    assert values == sorted(values, reverse=True) and found["clean_accuracy"] >= values[0]
    assert all(p["interval"][0] <= p["robust_accuracy"] <= p["interval"][1] for p in found["curve"])
    assert {"0.5", "0.9"} <= set(found["quantiles"]) and found["threat"] == "Linf:0.3"
    assert json.loads((folder / "curve-Linf.json").read_text())["curve"] == found["curve"]
    table = pyarrow.parquet.read_table(folder / "curve-Linf" / "part-00000.parquet").to_pydict()
    share = sum(distance > 0.15 for distance in table["distance"]) / 12
    assert share == found["curve"][4]["robust_accuracy"]
    picture = ElementTree.parse(found["figure"]).getroot()
    assert Path(found["figure"]) == folder / "curve-Linf.svg"
    assert "Robust accuracy against eps" in "".join(picture.itertext())


@pytest.mark.slow
def test_it_prints_the_accuracy_at_the_radii_asked_for_with_their_intervals(run: Run) -> None:
    run(*TRAIN)
    code, out, err = run("curve", "runs/blobs-at", "--eps", "1/10,0.4,2/10", "--examples", "6")
    assert code == 0 and "quartiles of distances" in out and "a short one" in out and "Picture: runs/blobs-at" in out, (
        err
    )
    rows = [line.split() for line in out.splitlines() if line.rstrip().endswith("n=6")]
    assert [row[0] for row in rows[1:]] == ["0.1", "0.2", "0.4"], "after the clean accuracy"


@pytest.mark.long
@pytest.mark.slow
def test_weights_get_a_folder_of_their_own_and_other_data_one_in_the_run(run: Run) -> None:
    run(*TRAIN)
    weights = "runs/blobs-at/best.safetensors"
    words = ("curve", "--model", "mlp", "--weights", weights, "--data", "blobs.npz", "--examples", "4", "--json")
    alone = json.loads(run(*words, "--threat", "L2:0.2", "--out", "alone")[1])
    inside = json.loads(run("curve", "runs/blobs-at", "--threat", "L2:0.2", "--examples", "4", "--json")[1])
    assert alone["curve"] == inside["curve"] and Path("alone/evaluation/first-4/curve-L2.svg").exists()
    assert Path("alone/config.yaml").exists()
    code, _, err = run(*words, "--threat", "L2:0.3", "--out", "alone")
    assert code == 2 and "another run" in err
    Path("more.npz").write_bytes(Path("blobs.npz").read_bytes())
    assert run("curve", "runs/blobs-at", "--data", "more.npz", "--examples", "4")[0] == 0
    assert Path("runs/blobs-at/evaluation/more-first-4/curve-Linf.json").exists()


@pytest.mark.long
@pytest.mark.slow
def test_called_again_it_reads_what_it_found_and_replaces_other_radii_only_if_told(run: Run) -> None:
    run(*TRAIN)
    words = ("curve", "runs/blobs-at", "--examples", "6", "--json", "--eps")
    code, out, err = run(*words, "0.1,0.2")
    first = json.loads(out)
    assert code == 0 and "Loaded from" not in err
    code, out, err = run(*words, "0.1,0.2")
    again = json.loads(out)
    assert code == 0 and "Loaded from runs/blobs-at/evaluation/first-6/curve-Linf" in err
    assert again["curve"] == first["curve"] and again["attacks"] == first["attacks"]
    code, _, err = run(*words, "0.05,0.2")
    assert code == 2 and "radii was [0.1, 0.2], now [0.05, 0.2]" in err and "--overwrite" in err
    code, out, err = run(*words, "0.05,0.2", "--overwrite")
    assert code == 0 and [point["eps"] for point in json.loads(out)["curve"]] == [0.05, 0.2]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("curve", "absent"), ["absent", "no run folder"]),
        (("curve", "--suite", "rand"), ["'rand'", "Known are: nearest, patch, pgd"]),
        (("curve", "--model", "mlp", "--data", "blobs.npz"), ["trained"]),
        (("curve", "--model", "mlp", "--weights", "w.pt"), ["--data is missing"]),
        (("curve", "--step", "3"), ["--step"]),
    ],
)
def test_bad_input_ends_with_2_and_a_remedy(run: Run, words: tuple[str, ...], parts: list[str]) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "") and all(part in err for part in parts), err


def test_bad_radii_end_with_2(run: Run) -> None:
    run(*TRAIN)
    for words, part in ((("--threat", "Linf:0"), "eps is 0"), (("--eps", "0.1,-1"), "-1"), (("--eps", "x"), "threat")):
        code, _, err = run("curve", "runs/blobs-at", *words)
        assert code == 2 and part in err, err
