"""A run killed with SIGKILL at a random moment and resumed ends in the bits of an uninterrupted one."""

import multiprocessing
import random
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from support.shares import in_ci
from support.toys import without_seconds
from unperturbed import runs
from unperturbed.architectures.small_cnn import SmallCNN
from unperturbed.data.named.digits import load as load_digits
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method
from unperturbed.methods.free import Free
from unperturbed.threat import Threat
from unperturbed.training import checkpoint
from unperturbed.training.loop import train
from unperturbed.training.recipe import Recipe

EPOCHS = {AT: 2, Free: 5}
PRELOADED = ["unperturbed.training.loop", "unperturbed.architectures.small_cnn", "unperturbed.methods.free",
             "unperturbed.methods.trades", "sklearn.datasets"]  # fmt: skip
"""Modules that every process needs; imported once, in the server that they are forked from."""


def go(kind: Callable[[], Method], folder: Path, resume: bool) -> None:
    """Train on the digits, with a checkpoint every 20 milliseconds; this is what the processes run."""
    torch.set_num_threads(1)
    torch.manual_seed(int(resume))  # weights that are not from the checkpoint would be others
    recipe = Recipe(epochs=EPOCHS[kind], checkpoint_minutes=0.02 / 60, augment="crop", averaging=0.9)
    if not resume:
        torch.manual_seed(7)
    train(SmallCNN((1, 8, 8), width=4), load_digits(), Threat("Linf", 0.1), kind(), recipe, out=folder, resume=resume)


def start(context: ForkServerContext, kind: Callable[[], Method], folder: Path, resume: bool) -> BaseProcess:
    process = context.Process(target=go, args=(kind, folder, resume))
    process.start()
    return process


def to_the_end(context: ForkServerContext, kind: Callable[[], Method], folder: Path, resume: bool) -> None:
    process = start(context, kind, folder, resume)
    process.join(120)
    assert process.exitcode == 0


def wait_for(path: Path) -> float:
    """Return when this file was seen."""
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, f"{path} does not come"
        time.sleep(0.002)
    return time.monotonic()


def killed(context: ForkServerContext, kind: Callable[[], Method], folder: Path, delay: float) -> bool:
    """Begin a run, kill its process after this many seconds, and tell whether it was still running."""
    process = start(context, kind, folder, resume=False)
    wait_for(folder / runs.CONFIG)
    process.join(delay)
    process.kill()
    process.join(60)
    return process.exitcode == -signal.SIGKILL and not (folder / runs.RESULT).exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", in_ci(1, [AT, Free]))
def test_killed_at_five_random_moments(kind: Callable[[], Method], tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    straight = tmp_path / "straight"
    process = start(context, kind, straight, resume=False)
    began = wait_for(straight / runs.CONFIG)
    process.join(120)
    assert process.exitcode == 0
    seconds = time.monotonic() - began

    moments, steps = random.Random(2024), set()
    for number in range(5):
        folder = tmp_path / str(number)
        delay = moments.uniform(0.02, 0.8) * seconds
        while not killed(context, kind, folder, delay):
            shutil.rmtree(folder)
            delay /= 2
        path = folder / runs.CHECKPOINT
        steps.add(checkpoint.load(path)["state"]["step"] if path.exists() else 0)
        to_the_end(context, kind, folder, resume=True)
        for name in (runs.MODEL, runs.BEST, runs.CONFIG):
            assert (folder / name).read_bytes() == (straight / name).read_bytes(), f"{name}, killed after {steps}"
        lines, expected = (runs.read_jsonl(each / runs.METRICS) for each in (folder, straight))
        assert without_seconds(lines) == without_seconds(expected)
    assert len(steps) >= 3  # the moments were different ones
