"""Damaged run folders: every command ends in the right answer, one measured again, or an error that names the file."""

import io
import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from support.shares import in_ci
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.cli.main import main
from unperturbed.errors import InputError, RunError
from unperturbed.evaluation import accuracy, curve
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.suites.pgd import PGD_SUITE
from unperturbed.weights.rebuild import load_run

DAMAGES = 500
SHARES = 20
TRAIN = (
    "train",
    "--data",
    "blobs.npz",
    "--threat",
    "Linf:0.05",
    "--epochs",
    "3",
    "--method",
    "fgsm",
    "--device",
    "cpu",
)
EVALUATE = ("evaluate", "run", "--suite", "pgd", "--device", "cpu", "--json")
CURVE = ("curve", "run", "--suite", "pgd", "--eps", "0.02,0.05", "--device", "cpu", "--json")
DIAGNOSE = ("diagnose", "run", "--diagnostics", "margins", "--examples", "16", "--device", "cpu", "--json")
COMMANDS = {
    "evaluate": EVALUATE,
    "curve": CURVE,
    "diagnose": DIAGNOSE,
    "train": (*TRAIN, "--out", "run", "--resume", "--json"),
}
TRUTHS: dict[str, Callable[[Any], Any]] = {
    "evaluate": lambda value: [value[name] for name in ("n", "clean_accuracy", "robust_accuracy", "counts")],
    "curve": lambda value: (value["curve"], value["quantiles"]),
    "diagnose": lambda value: value["models"][0]["findings"][0]["numbers"],
    "train": lambda value: {
        name: value[name] for name in ("clean_accuracy", "robust_accuracy", "best_epoch", "epochs")
    },
}
"""The numbers in the JSON of each command that must stay the same on a damaged folder, unless it is refused."""


def call(words: tuple[str, ...]) -> tuple[int, str, str]:
    """Return exit code and outputs of a command, run in this process: an exception is a failure."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Return a folder with a finished run, one that was interrupted, another one, and what the commands say."""
    patch = pytest.MonkeyPatch()
    quick = (GradientAttack("PGD-CE", cross_entropy, PGD(steps=5), restarts=2),)
    suite = Suite("pgd", quick, PGD_SUITE.note)
    patch.setitem(accuracy.SUITES, "pgd", suite)
    patch.setitem(curve.SUITES, "pgd", suite)
    folder = tmp_path_factory.mktemp("damage")
    patch.chdir(folder)
    patch.setattr(sys, "path", [*sys.path])
    rng = np.random.default_rng(0)
    y = np.arange(132) % 2
    x = np.clip(0.3 + 0.4 * y[:, None] + 0.1 * rng.normal(size=(132, 4)), 0, 1).astype(np.float32)
    np.savez("blobs.npz", x_train=x[:100], y_train=y[:100], x_test=x[100:], y_test=y[100:])
    assert call((*TRAIN, "--out", "run"))[0] == 0
    assert call((*TRAIN, "--out", "other", "--seed", "1"))[0] == 0
    truths = {}
    for name, words in COMMANDS.items():
        code, out, err = call(words)
        assert code == 0, err
        truths[name] = TRUTHS[name](json.loads(out))
        if name != "train":
            assert call(tuple("other" if word == "run" else word for word in words))[0] == 0
    shutil.copyfile("run/checkpoints/last.pt", "run/checkpoints/previous.pt")
    yield folder, truths
    patch.undo()


def damaged_value(value: Any, draw: random.Random) -> Any:
    """Return a value of JSON or YAML with one entry, at any depth, of another type or another value."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(sorted(value, key=str))
        return {**value, key: damaged_value(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.7:
        place = draw.randrange(len(value))
        return [damaged_value(each, draw) if i == place else each for i, each in enumerate(value)]
    return draw.choice(
        [None, "", "text", -1, 7, 0.5, True, [], {}, [1, "a"], {"a": 1}, 1e300, "12:30", "../..", "os:system"]
    )


def damage(path: Path, kind: str, draw: random.Random) -> None:
    content = path.read_bytes()
    if kind == "bit" and content:
        place = draw.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :])
    elif kind == "truncated":
        path.write_bytes(content[: draw.randrange(len(content) + 1)])
    elif kind == "emptied":
        path.write_bytes(b"")
    elif kind == "deleted":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "garbage":
        path.write_bytes(draw.randbytes(draw.choice([1, 100, 5000])))
    elif kind == "swapped":
        other = Path("other", *path.parts[1:])
        path.write_bytes(other.read_bytes() if other.exists() else draw.randbytes(50))
    elif kind == "typed" and path.suffix in (".json", ".yaml"):
        value = json.loads(content) if path.suffix == ".json" else yaml.safe_load(content)
        value = damaged_value(value, draw)
        path.write_text(json.dumps(value) if path.suffix == ".json" else yaml.safe_dump(value))
    else:
        path.write_bytes(content + draw.randbytes(20))


KINDS = ("bit", "bit", "bit", "truncated", "emptied", "deleted", "folder", "garbage", "swapped", "typed", "typed")


def problem(name: str, path: Path, truth: Any) -> str:
    """Return what is wrong with what a command says of a damaged folder; "" where nothing is."""
    try:
        code, out, err = call(COMMANDS[name])
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    if code in (1, 2):
        return "" if path.name in err or str(path) in err or path.parent.name in err else f"no file named: {err[-300:]}"
    if code != 0:
        return f"exit code {code}"
    if TRUTHS[name](json.loads(out)) == truth:
        return ""
    if path.name == "config.yaml" and "was changed after the run wrote its weights" in err:
        return ""
    return f"another number, without a word: {err[-300:]}"


def files_of(run: Path) -> list[Path]:
    return sorted(path for path in run.rglob("*") if path.is_file() and path.suffix not in (".html", ".svg"))


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("share", in_ci(1, range(SHARES)))
def test_no_damage_ends_in_a_traceback_or_a_wrong_number(share: int, whole: tuple[Path, dict[str, Any]]) -> None:
    folder, truths = whole
    os.chdir(folder)
    problems = []
    for number in range(share, DAMAGES, SHARES):
        draw = random.Random(number)
        shutil.copytree("run", "kept")
        try:
            files = files_of(Path("run"))
            path = files[number // 2 % len(files)] if number % 2 else draw.choice(files)
            kind = draw.choice(KINDS)
            if draw.random() < 0.3:  # a run that did not end
                for name in ("result.json", "model.safetensors"):
                    Path("run", name).unlink() if Path("run", name) != path else None
            damage(path, kind, draw)
            for name in draw.sample(sorted(COMMANDS), 2):
                if wrong := problem(name, path, truths[name]):
                    problems.append(f"damage {number} ({kind} of {path}), {name}: {wrong}")
            try:
                load_run("run")
            except (InputError, RunError):
                pass
            except Exception as error:
                problems.append(f"damage {number} ({kind} of {path}), load_run: {type(error).__name__}: {error}")
            torch.manual_seed(0)
        finally:
            shutil.rmtree("run")
            os.rename("kept", "run")
    assert not problems, "\n".join(problems)
