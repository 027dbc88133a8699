"""`evaluate --devices`: several processes share the examples, give one result, and end together."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

import unperturbed
from support.toys import blobs
from unperturbed.cli.main import main
from unperturbed.engines.launch import together
from unperturbed.errors import InputError, RunError
from unperturbed.evaluation.measurement import block_size
from unperturbed.networks.device import MOST, number_of_devices

OWN = """
import os
import torch
from support.toys import linear
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD

SUITE = Suite("mine", (GradientAttack("PGD-CE", cross_entropy, PGD(steps=3)),), "three steps")

def trained():
    return linear(6, 3)

class Second(torch.nn.Linear):
    def forward(self, x):
        if os.environ.get("LOCAL_RANK") == "1" and x.requires_grad:
            if os.environ["HOW"] == "exit":
                os._exit(3)
            raise ValueError("the second process cannot do this")
        return super().forward(x)

def failing():
    made = Second(6, 3)
    made.load_state_dict(linear(6, 3).state_dict())
    return made
"""
WORDS = (
    "evaluate",
    "--data",
    "blobs.npz",
    "--threat",
    "L2:0.2",
    "--suite",
    "sharing:SUITE",
    "--device",
    "cpu",
    "--json",
)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    Path("sharing.py").write_text(OWN)
    x, y = (values.numpy() for values in blobs(90))
    np.savez("blobs.npz", x_train=x, y_train=y, x_test=x, y_test=y)


@pytest.mark.parametrize(
    ("n", "processes", "sizes"),
    [(500, 1, [500]), (1500, 1, [1024, 476]), (500, 2, [250, 250]), (3000, 2, [750] * 4), (3, 4, [1, 1, 1])],
)
def test_each_process_gets_as_many_blocks(n: int, processes: int, sizes: list[int]) -> None:
    blocks = torch.split(torch.arange(n), block_size(n, processes, 1024))
    assert [len(block) for block in blocks] == sizes


def test_how_many_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert number_of_devices("auto", "cpu") == 5 and number_of_devices(3, "cpu") == 3
    monkeypatch.setattr(torch, "get_num_threads", lambda: 500)
    assert number_of_devices("auto", "cpu") == MOST
    with pytest.raises(InputError, match="--devices is 0"):
        number_of_devices(0, "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    asked: list[tuple[int | Literal["auto"], str, int]] = [("auto", "cuda", 4), (2, "cuda", 2), ("auto", "cuda:1", 1)]
    assert [number_of_devices(number, device) for number, device, _ in asked] == [number for *_, number in asked]
    with pytest.raises(InputError, match="only 4"):
        number_of_devices(5, "cuda")
    with pytest.raises(InputError, match="cuda:1 there is only 1"):
        number_of_devices(2, "cuda:1")


def test_no_process_is_begun_for_a_wrong_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--model", "sharing:trained", "--out", "out", "--devices", "0"]) == 2
    assert "--devices is 0" in capsys.readouterr().err and not Path("out").exists()


# Processes


def first_or_second(second: str) -> str:
    """Be the first process, which waits for the second, or the second, which does what is asked."""
    if os.environ["LOCAL_RANK"] == "0":
        if second != "nothing":
            time.sleep(3600)  # unless it is ended
        return f"{torch.distributed.get_world_size()} processes of {torch.get_num_threads()} thread"
    if second == "input":
        error = InputError("the second one's input")
        error.add_note("a note")
        raise error
    if second == "exit":
        os._exit(3)
    if second == "interrupt":
        raise KeyboardInterrupt
    return "of the second"


@pytest.mark.long
@pytest.mark.slow
def test_what_the_first_process_returns_comes_back() -> None:
    assert together(2, first_or_second, "nothing") == "2 processes of 1 thread"


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    ("second", "kind", "text"),
    [
        ("input", InputError, "the second one's input"),
        ("exit", RunError, "Process 2 of 2 ended without a message"),
        ("interrupt", KeyboardInterrupt, "^$"),
    ],
)
def test_a_process_that_fails_ends_the_others(second: str, kind: type[BaseException], text: str) -> None:
    with pytest.raises(kind, match=text) as raised:
        together(2, first_or_second, second)
    assert second != "input" or raised.value.__notes__ == ["a note"]


# Evaluations


def evaluation(capsys: pytest.CaptureFixture[str], out: str, *words: str) -> dict[str, object]:
    code = main([*WORDS, "--model", "sharing:trained", "--out", out, *words])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    found: dict[str, object] = json.loads(captured.out)
    return {name: found[name] for name in ("n", "counts", "robust_accuracy", "interval", "warnings")}


@pytest.mark.long
@pytest.mark.slow
def test_two_devices_give_one_result_and_one_goes_on_where_two_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (evaluation(capsys, f"out{number}", "--devices", str(number)) for number in (1, 2))
    assert one == two and one["n"] == 90
    parts = Path("out2/evaluation/mine")
    assert len(list(parts.glob("part-*.parquet"))) == 2 and len(list(Path("out1").rglob("part-*.parquet"))) == 1

    (parts / "part-00001.json").unlink()
    kept = (parts / "part-00000.parquet").stat().st_mtime_ns
    assert evaluation(capsys, "out2", "--devices", "1") == one
    assert (parts / "part-00000.parquet").stat().st_mtime_ns == kept

    Path("out1/evaluation/mine/part-00000.json").unlink()
    again = evaluation(capsys, "out1", "--devices", "2")
    assert again | {"warnings": one["warnings"]} == one and "only 1 of 2 processes" in str(again["warnings"])


@pytest.mark.long
@pytest.mark.slow
def test_two_devices_share_the_examples_asked_for_at_every_radius(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*WORDS, "--model", "sharing:trained", "--examples", "random:30", "--eps", "0.1,0.2,0.4"]
    found = []
    for number in ("1", "2"):
        code = main([*words, "--out", f"out{number}", "--devices", number])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        found.append(json.loads(captured.out))
        parts = [len(list(job.parent.glob("part-*.parquet"))) for job in Path(f"out{number}").rglob("job.json")]
        assert parts == [int(number)] * 3
    names = ("n", "selection", "counts", "clean_accuracy", "robust_accuracy", "warnings")
    assert [found[0][name] for name in names] == [found[1][name] for name in names] and found[0]["n"] == 30
    assert found[0]["selection"] == "random:30 seed 0"
    curves = [[(row["eps"], row["robust_accuracy"], row["attacks"]) for row in each["curve"]] for each in found]
    assert curves[0] == curves[1] and len({row[1] for row in curves[0]}) == 3


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "told"), [("raise", "the second process cannot do this"), ("exit", "ended without a message")]
)
def test_a_failure_in_one_process_ends_the_command(
    how: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOW", how)
    words = [*WORDS, "--model", "sharing:failing", "--out", "out", "--devices", "2"]
    assert main(words) in (1, 2)
    assert told in " ".join(capsys.readouterr().err.split()) and not Path("out/evaluation/mine.json").exists()


@pytest.mark.long
@pytest.mark.slow
def test_bad_input_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--model", "sharing:nothing", "--out", "out", "--devices", "2"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("error:") == 1 and captured.out == "" and not Path("out").exists()


@pytest.mark.long
@pytest.mark.slow
def test_a_call_from_python_shares_the_examples_as_the_command_does() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), torch.rand(24, 6)
    given = (model, (x, model(x).argmax(1)), unperturbed.Threat("Linf", 0.05), "pgd-ce")
    alone, shared = (unperturbed.evaluate(*given, batch_size=8, devices=devices) for devices in (1, 2))
    assert shared.examples["verdict"] == alone.examples["verdict"] and shared.counts == alone.counts
    with pytest.raises(unperturbed.InputError, match="cannot be sent to other processes"):
        unperturbed.evaluate(model, given[1], given[2], lambda model, x, y: x, devices=2)


@pytest.mark.long
@pytest.mark.slow
def test_every_measurement_from_python_is_shared_by_two_processes() -> None:
    """Distances, accuracies and matrices are those of one process; another engine in addition is refused."""
    torch.manual_seed(0)
    x, threat = torch.rand(24, 6), unperturbed.Threat("L2", 0.2)
    first, second = nn.Sequential(nn.Linear(6, 3)), nn.Sequential(nn.Linear(6, 3))
    data = (x, first(x).argmax(1))
    results = []
    for devices in (1, 2):
        nearest = unperturbed.minimum_norm(first, data, threat, "pgd", batch_size=8, devices=devices)
        drawn = unperturbed.probable_accuracy(first, data, threat, 0.1, draws=20, batch_size=8, devices=devices)
        models = {"a": first, "b": second}
        matrix = unperturbed.transfer(models, data, threat, "pgd-ce", batch_size=8, devices=devices)
        results.append((nearest.examples["distance"], drawn.mean_accuracy.value, matrix.accuracy))
    alone, shared = results
    assert shared[0] == pytest.approx(alone[0], rel=1e-3) and shared[1:] == alone[1:]
    with pytest.raises(InputError, match="give one of the two"):
        unperturbed.minimum_norm(first, data, threat, devices=2, engine="local")
