"""`unperturbed certify`: the sigma that it proposes, what it prints and writes, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch
from test_main import TRAIN, Run
from test_main import run as run

from unperturbed.cli.certify import _deviation
from unperturbed.noise import Noise
from unperturbed.runs.verify import read_verified
from unperturbed.threat import Threat
from unperturbed.types import Norm

SHORT = ("--draws", "30", "--selection-draws", "5", "--alpha", "0.1")


@pytest.mark.long
@pytest.mark.slow
def test_a_run_gets_its_certificates_and_both_sides(run: Run) -> None:
    run(*TRAIN)
    run("evaluate", "runs/blobs-at", "--suite", "pgd", "--threat", "L2:0.1")
    words = ("certify", "runs/blobs-at", "--threat", "L2:0.1", "--sigma", "0.2", *SHORT)
    code, out, err = run(*words, "--json")
    found, folder = json.loads(out), Path("runs/blobs-at/evaluation")
    assert code == 0 and (found["n"], found["sigma"], found["threat"]) == (12, 0.2, "L2:0.1"), err
    assert [row["eps"] for row in found["certified"]] == pytest.approx([k / 100 for k in range(11)])
    (bar,) = found["bars"]
    assert bar["certified"] <= bar["attacked"] and (bar["eps"], bar["suite"]) == (0.1, "pgd")
    kept = read_verified(folder / "certify-L2-0.2.json")
    assert kept == {key: value for key, value in found.items() if key != "run"}
    code, out, _ = run(*words, "--eps", "0,0.05")
    assert code == 0 and "<= truth <=" in out and "alpha 0.1" in out and "0.05" in out
    assert "smoothed" in out and "another classifier" in found["note"]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "sigma"), [("smoothing", 0.05), ("noise", 0.05 / 3**0.5)])
def test_runs_trained_on_noise_propose_theirs(run: Run, method: str, sigma: float) -> None:
    run(*TRAIN[:-2], "--method", method)
    code, out, err = run("certify", f"runs/blobs-{method}", *SHORT, "--json")
    assert code == 0 and json.loads(out)["sigma"] == pytest.approx(sigma), err
    assert "noise in training" in err


@pytest.mark.parametrize(("norm", "d"), [("Linf", 3), ("L2", 3), ("L2", 12), ("L1", 3), ("L1", 12)])
def test_the_deviation_is_that_of_points_of_the_ball(norm: Norm, d: int) -> None:
    threat, n = Threat(norm, 0.7, None), 20_000
    points = threat.sample(torch.zeros(n, d), Noise.of(0, torch.arange(n)))
    assert float(points.std()) == pytest.approx(_deviation(threat, d), rel=0.02)


@pytest.mark.slow
def test_bad_input_ends_with_2_and_a_remedy(run: Run) -> None:
    run(*TRAIN)
    for words, part in (
        ((), "--sigma is missing"),
        (("--sigma", "0"), "sigma is 0"),
        (("--sigma", "a"), "--sigma"),
        (("--sigma", "0.1", "--alpha", "1"), "alpha is 1"),
        (("--sigma", "0.1", "--draws", "0"), "draws is 0"),
        (("--sigma", "0.1", "--threat", "L2:0.1,L2:0.2"), "name one"),
        (("--sigma", "0.1", "--eps", "x"), "'Linf:x' is not a threat"),
    ):
        code, out, err = run("certify", "runs/blobs-at", *words)
        assert (code, out) == (2, "") and part in err, err


@pytest.mark.long
@pytest.mark.slow
def test_two_devices_give_the_certificates_of_one(run: Run) -> None:
    run(*TRAIN)
    words = ("certify", "runs/blobs-at", "--threat", "L2:0.1", "--sigma", "0.2", *SHORT, "--device", "cpu", "--json")
    found = []
    for number in ("1", "2"):
        code, out, err = run(*words, "--out", f"out{number}", "--devices", number)
        assert code == 0, err
        found.append(json.loads(out))
        assert len(list(Path(f"out{number}").rglob("part-*.parquet"))) == int(number)
    assert all(found[0][name] == found[1][name] for name in ("n", "clean_accuracy", "certified"))
