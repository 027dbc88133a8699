"""The outcome of thirty commands and calls as hashes: a rebuild that changes no number leaves all of them as they are.

`python -m support.golden FILE` (in tests/) records them. Bits depend on the processor, so a record names its own.
"""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

import unperturbed as un
from unperturbed.cli.main import main

TRAIN = "train --data digits --threat Linf:0.1 --examples 160 --epochs 2 --batch-size 32 --device cpu"
METHODS = {
    "erm": "erm",
    "fgsm": "fgsm",
    "at": "at --method.steps 3",
    "trades": "trades --method.steps 3",
    "mart": "mart --method.steps 2",
    "scorpio": "scorpio --method.steps 2",
    "llr": "llr --method.steps 2",
    "cure": "cure",
    "dale": "dale --method.steps 2",
    "free": "free",
    "noise": "noise",
    "elle": "elle",
    "prl": "prl",
    "term": "term",
}
MEASUREMENTS = {
    "evaluate pgd": "evaluate at --examples 24 --suite pgd",
    "evaluate standard": "evaluate at --examples 12 --suite standard",
    "evaluate two attacks": "evaluate trades --examples 16 --suite apgd-ce,square",
    "evaluate radii": "evaluate at --examples 16 --suite apgd-ce --eps 0.05,0.1",
    "evaluate two threats": "evaluate at --examples 16 --suite apgd-ce --threat Linf:0.1 --threat L2:0.5",
    "evaluate boundary search": "evaluate trades --examples 8 --suite fab-t",
    "evaluate L1": "evaluate llr --examples 12 --suite apgd-ce --threat L1:2",
    "evaluate again": "evaluate at --examples 24 --suite pgd",
    "curve": "curve at --examples 12",
    "probable": "probable at --examples 16",
    "transfer": "transfer at trades --suite apgd-ce --examples 12 --out transfer",
    "diagnose": "diagnose at erm --diagnostics margins,layers,confidence --out diagnosis",
    "sweep": "sweep --data digits --examples 100 --epochs 1 --method at --method.steps 1 --over seed=0,1 --suite "
    "apgd-ce --device cpu --out sweep",
}
TIMES = ("seconds", "environment", "warnings", "note", "run", "out", "page", "picture", "unperturbed", "folder")
"""Values that differ between runs, and texts that may be improved."""


def environment() -> str:
    """Return what bits depend on: the processor's instruction set, torch, and how MKL rounds.

    A processor that multiplies bfloat16 trains and searches convolutional networks in it.
    """
    instructions = torch.backends.cpu.get_cpu_capability()
    amx, bfloat16 = torch.cpu._is_amx_tile_supported(), torch.cpu._is_avx512_bf16_supported()
    native = " with AMX" if amx else " with bfloat16" if bfloat16 else ""
    return f"{instructions}{native} torch {torch.__version__} {os.environ.get('MKL_CBWR', '')}".strip()


def steady(value: Any) -> Any:
    """Return a value of JSON without what differs between two equal runs."""
    if isinstance(value, Mapping):
        return {key: steady(part) for key, part in value.items() if key not in TIMES}
    return [steady(part) for part in value] if isinstance(value, list) else value


def digest(value: Any) -> str:
    """Return a short hash of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def weights(run: str) -> str:
    """Return a hash of a run's best and last weights."""
    total = hashlib.sha256()
    for name in ("best.safetensors", "model.safetensors"):
        for key, tensor in sorted(load_file(Path(run) / name).items()):
            total.update(key.encode() + tensor.contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def command(line: str) -> Any:
    """Run a command in this process and return its JSON value."""
    printed, said = StringIO(), StringIO()
    with redirect_stdout(printed), redirect_stderr(said):
        code = main([*line.split(), "--json"])
    assert code == 0, f"{line}: {said.getvalue()}"
    return json.loads(printed.getvalue())


def interrupted(out: str = "stopped", stopped: bool = True) -> str:
    """Train until the middle of the second epoch, stop (unless not `stopped`), resume; return the weights' hash."""
    data, threat = un.load_data("digits"), un.Threat("Linf", 0.1)
    few = (data.train.inputs(torch.arange(96)), data.train.labels[:96])
    recipe = un.Recipe(epochs=3, batch_size=16)

    def stop(done: int, total: int, _: str) -> None:
        if done == total // 2:
            raise KeyboardInterrupt

    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    if stopped:
        with suppress(KeyboardInterrupt):
            un.train(network(), few, threat, un.AT(), recipe, out=out, device="cpu", progress=stop)
    un.train(network(), few, threat, un.AT(), recipe, out=out, device="cpu", resume=stopped)
    return weights(out)


def calls() -> dict[str, Callable[[], Any]]:
    """Return the calls from Python, by name."""
    data, threat = un.load_data("digits"), un.Threat("L2", 0.5)

    def table() -> Any:
        outcome = un.evaluate(un.load_run("at"), data, threat, "apgd-ce", batch_size=32)
        return [outcome.examples["verdict"], outcome.examples["margin"]]

    def distances() -> Any:
        few = (data.test.inputs(torch.arange(8)), data.test.labels[:8])
        return steady(un.minimum_norm(un.load_run("trades"), few, threat).json())

    return {"train, stop, resume": interrupted, "evaluate in Python": table, "minimum_norm": distances}


def outcomes() -> Iterator[tuple[str, str]]:
    """Run all of it in a folder of its own, and yield each name with its hash."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for name, method in METHODS.items():
            command(f"{TRAIN} --method {method} --out {name}")
            yield f"train {name}", weights(name)
        yield from ((name, digest(steady(command(line)))) for name, line in MEASUREMENTS.items())
        yield from ((name, digest(call())) for name, call in calls().items())


if __name__ == "__main__":
    torch.set_num_threads(1)
    record = {"environment": environment(), "outcomes": dict(outcomes())}
    Path(sys.argv[1]).write_text(json.dumps(record, indent=1) + "\n")
