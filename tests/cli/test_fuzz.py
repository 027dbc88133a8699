"""Command lines at random and of nonsense: none ends in a traceback or hangs, and no nonsense is taken for a value."""

import random
import time
from pathlib import Path

import numpy as np
import pytest

from support.shares import first, in_ci
from unperturbed.cli.main import COMMANDS, main

NONSENSE = [
    "",
    " ",
    "~",
    "null",
    "None",
    "nan",
    "inf",
    "-inf",
    ".inf",
    "1:30",
    "0x10",
    "1_000",
    "\u0661\u0662",
    "1.5.2",
    "1e400",
    "-1",
    "9" * 400,
    "true",
    "[]",
    "{}",
    "[[",
    "a\0b",
    "--",
    "..",
    "/",
    "%",
    "@",
    "!!python/object:os.system",
]
NUMBERS = (
    "epochs",
    "batch-size",
    "seed",
    "patience",
    "devices",
    "lr",
    "clip-grad-norm",
    "weight-decay",
    "ramp",
    "averaging",
    "validation",
    "extra-ratio",
    "label-smoothing",
    "checkpoint-minutes",
)
OPTIONS = (
    "data",
    "model",
    "weights",
    "threat",
    "bounds",
    "out",
    "device",
    "suite",
    "examples",
    "examples-seed",
    "seed",
    "batch-size",
    "precision",
    "eps",
    "devices",
    "method",
    "method.steps",
    "method.maximiser",
    "model.hidden",
    "epochs",
    "lr",
    "over",
    "track",
    "extra",
    "config",
    "diagnostics",
    "rho",
    "draws",
    "milestones",
    "augment",
    "schedule",
    "train-examples",
    "evaluate-threat",
    "json",
    "resume",
    "overwrite",
    "quantize",
)
SENSE = [
    "1",
    "0.5",
    "tiny.npz",
    "run",
    "mlp",
    "at",
    "erm",
    "Linf:0.1",
    "L2:0.5",
    "0,1",
    "none",
    "auto",
    "pgd",
    "32",
    "margins",
    "seed=0,1",
    "lr=0.1,0.2",
    "cpu",
    "[4]",
]
LIMIT = 20.0
"""Seconds that a call may take."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    names = ("x_train", "y_train", "x_test", "y_test")
    arrays = [generator.random((40, 4), np.float32), np.arange(40) % 2] * 2
    np.savez("tiny.npz", **dict(zip(names, arrays, strict=True)))  # type: ignore[arg-type]


def code_of(*words: str) -> int:
    began = time.process_time()
    try:
        code = main(words)
    except Exception as error:
        raise AssertionError(f"{words} ended in {type(error).__name__}: {error}") from error
    assert time.process_time() - began < LIMIT, words
    assert code in (0, 1, 2), words
    return code


@pytest.mark.parametrize("text", first(8, NONSENSE), ids=lambda text: ascii(text)[:20])
def test_nonsense_is_no_number_of_train(text: str) -> None:
    for option in NUMBERS:
        words = ["train", "--data", "tiny.npz", f"--{option}={text}", "--out=o"]
        code = code_of(*words, *(["--epochs=1"] * (option != "epochs")))
        assert code == 2 and not Path("o").exists(), (option, text)


@pytest.mark.parametrize("option", ["weights", "data", "model", "out", "config", "threat", "extra", "device", "method"])
@pytest.mark.parametrize("text", ["", " ", "~", "null", "None", "a\0b"], ids=ascii)
def test_an_empty_value_is_not_taken_for_an_option_left_out(option: str, text: str) -> None:
    given = [f"--{option}={text}", *(["--data=tiny.npz"] if option != "data" else [])]
    assert code_of("train", *given, "--epochs=1") == 2
    assert not Path("runs").exists()


@pytest.mark.parametrize("text", ["=", "lr", "lr=", "lr=,", "lr=~", "=1", "nothing=1", "epochs=1,1", "seed=x"])
def test_nonsense_is_no_option_to_sweep_over(text: str) -> None:
    words = [
        "sweep",
        "--data",
        "tiny.npz",
        "--over",
        text,
        "--suite",
        "fab",
        *(["--epochs=1"] * ("epochs" not in text)),
    ]
    assert code_of(*words) == 2
    assert not Path("runs/sweep").exists()


def line(draw: random.Random) -> list[str]:
    """Return a command with up to four options, half of their values nonsense; what trains does so for an epoch."""
    words = [draw.choice(COMMANDS[1:])]
    if words[0] in ("train", "sweep"):
        words += ["--epochs=1", "--data=tiny.npz"] * draw.randrange(2)
    for _ in range(draw.randrange(5)):
        option, value = draw.choice(OPTIONS), draw.choice(NONSENSE if draw.random() < 0.5 else SENSE)
        words += draw.choice([[f"--{option}={value}"], [f"--{option}", value], [value], [f"--{option}"]])
    return words


def fuzz(calls: int, seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(calls):
        code_of(*line(draw))


@pytest.mark.slow
def test_sixty_command_lines_end_without_a_traceback() -> None:
    fuzz(60, 0)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("seed", in_ci(2, range(1, 11)))
def test_two_thousand_command_lines_end_without_a_traceback(seed: int) -> None:
    fuzz(200, seed)
