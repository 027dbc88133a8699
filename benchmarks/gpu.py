"""Checks and measurements on a GPU, in at most eight minutes, written as one JSON file.

    python benchmarks/gpu.py --device cuda --data CIFAR10 --out gpu.json
    python benchmarks/gpu.py --device cpu --small --out cpu.json

The checks compare the device with the processor in float32: gradients, projections, and the verdicts of `standard`. The
measurements are steps of training, CIFAR-10 in 60 and in 110 seconds, and suites on 1,000 images. Without --data the
images are random, of ten colours. Measurements for which no time is left are left out, and the file says so. The exit
code is 1 if a check fails.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

import unperturbed as un
from unperturbed.architectures.mlp import MLP
from unperturbed.architectures.preact_resnet import PreActResNet
from unperturbed.data.named.digits import load as load_digits
from unperturbed.data.sources import load_data
from unperturbed.data.split import Data, array_split
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method
from unperturbed.methods.fgsm import N_FGSM
from unperturbed.methods.llr import LLR
from unperturbed.methods.scorpio import SCORPIO
from unperturbed.networks.precision import InPrecision, choose, full_float32
from unperturbed.networks.settings import Compile
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training.prepare import make_optimiser
from unperturbed.training.recipe import Recipe
from unperturbed.training.step import optimisation_step
from unperturbed.types import Batch

EIGHT_MINUTES = 470.0
"""Seconds for everything; the rest of eight minutes is for the start of Python and of the device."""
THREAT = Threat("Linf", 8 / 255)


@dataclass(frozen=True)
class Size:
    """The size of the work."""

    width: int = 64
    batch: int = 128
    repeats: int = 10
    checked: int = 200
    images: int = 50_000
    tested: int = 1_000
    trainings: tuple[float, ...] = (60.0, 110.0)
    digit_epochs: int = 10


SMALL = Size(width=4, batch=8, repeats=2, checked=12, images=64, tested=4, trainings=(1.0,), digit_epochs=2)
"""The size at which the script is tested on a processor."""


class OutOfTimeError(Exception):
    """No time is left for a measurement."""


@dataclass(frozen=True)
class Clock:
    """The time that is left, in seconds."""

    until: float

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.until - time.monotonic()

    def report(self, done: float, total: float, text: str) -> None:
        """End a measurement for which no time is left; a callback for progress."""
        if self.left <= 0:
            raise OutOfTimeError


def wait_for(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def colours(n: int, seed: int) -> Data:
    """Return random images of ten classes, which differ in their mean colour."""
    generator = torch.Generator().manual_seed(seed)
    means = 0.3 + 0.4 * torch.rand(10, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    y = torch.randint(10, (n + 1_000,), generator=generator)
    x = (means[y] + 0.2 * torch.randn(n + 1_000, 3, 32, 32, generator=generator)).clamp(0, 1)
    classes = tuple(map(str, range(10)))
    return Data("colours", *(array_split(x[rows], y[rows]) for rows in (slice(n), slice(n, None))), classes)


def network(size: Size) -> PreActResNet:
    """Return a PreActResNet-18 with the same weights each time."""
    torch.manual_seed(0)
    return PreActResNet(width=size.width)


def check_gradients(device: torch.device, size: Size) -> dict[str, float]:
    """Return the differences of weight gradient and input gradient from the processor's, over their size."""
    x, y = torch.rand(size.batch, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.arange(size.batch) % 10
    found = {}
    for place in (torch.device("cpu"), device):
        model, z = network(size).to(place).train(), x.to(place).requires_grad_()
        with full_float32():
            loss = cross_entropy(model(z), y.to(place)).mean()
            parts = torch.autograd.grad(loss, [*model.parameters(), z])
        found[place] = [torch.cat([part.flatten().cpu().double() for part in parts[:-1]]), parts[-1].cpu().double()]
    here, there = found[torch.device("cpu")], found[device]
    return {
        name: float((b - a).norm() / a.norm()) for name, a, b in zip(("weights", "inputs"), here, there, strict=True)
    }


def check_projections(device: torch.device) -> dict[str, float]:
    """Return the largest differences of projections from the processor's, and the share of points outside."""
    generator, found = torch.Generator().manual_seed(2), {}
    x = torch.rand(256, 3, 32, 32, generator=generator)
    z = x + torch.randn(x.shape, generator=generator)
    for threat in (Threat("Linf", 8 / 255), Threat("L2", 0.5), Threat("L1", 12.0)):
        here, there = threat.project(x, z), threat.project(x.to(device), z.to(device))
        inside = threat.contains(x.to(device), there)
        found[threat.norm] = float((there.cpu() - here).abs().max())
        found[f"{threat.norm} outside"] = 1 - float(inside.float().mean())
    return found


def check_verdicts(device: torch.device, size: Size, clock: Clock) -> dict[str, float]:
    """Return robust accuracies under `standard` on digits, here and there, and the share of unlike verdicts."""
    data, threat = load_digits(), Threat("Linf", 0.1)
    torch.manual_seed(0)
    model = MLP((1, 8, 8), 10, hidden=(64, 64))
    un.train(model, data, threat, AT(PGD(steps=5)), Recipe(epochs=size.digit_epochs, alarm="off"), device="cpu")
    first = data.test.inputs(torch.arange(size.checked)), data.test.labels[: size.checked]
    outcomes = [
        un.evaluate(deepcopy(model).to(place), first, threat, "standard", gate=False, progress=clock.report)
        for place in (torch.device("cpu"), device)
    ]
    accuracies = [outcome.robust_accuracy.value for outcome in outcomes]
    return {"cpu": accuracies[0], "device": accuracies[1], "difference": abs(accuracies[1] - accuracies[0])}


def step_seconds(device: torch.device, size: Size, method: Method, compiled: Compile = False) -> dict[str, float]:
    """Return the median seconds of a training step, in the precision that `train` chooses, and its memory."""
    model = network(size)
    precision = choose("auto", model, device)
    model.to(device, memory_format=precision.memory_format)  # type: ignore[call-overload]
    fabric = Fabric(accelerator=device.type, devices=1)
    attacked = InPrecision(model, precision.autocast, compile=compiled)
    wrapped, optimiser = fabric.setup(attacked, make_optimiser(model, Recipe(optimiser="sgd", lr=0.01)))
    x = torch.rand(size.batch, 3, 32, 32, device=device).contiguous(memory_format=precision.memory_format)
    ids = torch.arange(size.batch, device=device)
    batch, seconds = Batch(x, ids % 10, ids), []
    wrapped.train()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for number in range(size.repeats + 2):
        began = time.perf_counter()
        optimisation_step(fabric, attacked, wrapped, optimiser, method, batch, THREAT, Noise.of(number, ids))
        wait_for(device)
        seconds.append(time.perf_counter() - began)
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
    return {"seconds": statistics.median(seconds[2:]), "peak MiB": memory, "bfloat16": precision.autocast is not None}


def copy_seconds(device: torch.device, size: Size, pinned: bool) -> dict[str, float]:
    """Return the median seconds until Python may go on, and until the images are there, for a copy of a batch."""
    x, began, seconds = torch.rand(size.batch, 3, 32, 32), 0.0, []
    x = x.pin_memory() if pinned else x
    for _ in range(size.repeats + 2):
        wait_for(device)
        began = time.perf_counter()
        x.to(device, non_blocking=pinned)
        returned = time.perf_counter()
        wait_for(device)
        seconds.append((returned - began, time.perf_counter() - began))
    issued, arrived = (statistics.median(values) for values in zip(*seconds[2:], strict=True))
    return {"until Python goes on": issued, "until they are there": arrived}


def train_for(device: torch.device, size: Size, data: Data, seconds: float) -> tuple[PreActResNet, dict[str, float]]:
    """Train a PreActResNet-18 by N-FGSM for about so many seconds; return it and its accuracies."""
    model = network(size)
    step = step_seconds(device, size, N_FGSM())["seconds"]
    epoch = step * max(0.9 * len(data.train) // size.batch, 1)
    epochs = max(int(seconds / epoch), 1)
    recipe = Recipe(epochs=epochs, batch_size=size.batch, augment="flip-crop", lr=0.1, alarm="off")
    began = time.perf_counter()
    trained = un.train(model, data, THREAT, N_FGSM(), recipe, device=str(device))
    wait_for(device)
    accuracies = {"clean": trained.clean_accuracy.value, "robust": trained.robust_accuracy.value}
    return model, {"epochs": epochs, "seconds": time.perf_counter() - began, **accuracies}


def suite_seconds(
    device: torch.device, size: Size, model: PreActResNet, data: Data, suite: str, clock: Clock
) -> dict[str, float]:
    """Return seconds and robust accuracy of a suite."""
    first = data.test.inputs(torch.arange(size.tested)), data.test.labels[: size.tested]
    began = time.perf_counter()
    outcome = un.evaluate(model.to(device), first, THREAT, suite, gate=False, progress=clock.report)
    wait_for(device)
    return {"seconds": time.perf_counter() - began, "robust": outcome.robust_accuracy.value, "examples": size.tested}


def checks(device: torch.device, size: Size, clock: Clock) -> list[dict[str, Any]]:
    """Return every check with its values, limits and verdict."""
    gradients, projections, verdicts = (
        check_gradients(device, size),
        check_projections(device),
        check_verdicts(device, size, clock),
    )
    limits = {
        "gradients": (gradients, {"weights": 1e-3, "inputs": 1e-3}),
        "projections": (projections, dict.fromkeys(projections, 1e-5)),
        "standard": (verdicts, {"difference": 0.01}),
    }
    return [
        {"name": name, "values": values, "limits": bounds, "passed": all(values[k] <= bounds[k] for k in bounds)}
        for name, (values, bounds) in limits.items()
    ]


def measurements(device: torch.device, size: Size, data: Data, clock: Clock) -> dict[str, Mapping[str, Any]]:
    """Return every measurement, or that no time was left for it."""
    results: dict[str, Mapping[str, Any]] = {}
    models: list[PreActResNet] = []

    def measure(name: str, needed: float, work: Callable[[], Mapping[str, Any]]) -> None:
        print(f"{name} ({clock.left:.0f} s left)", file=sys.stderr, flush=True)
        try:
            results[name] = work() if clock.left > needed else {"left out": "no time was left"}
        except OutOfTimeError:
            results[name] = {"left out": "the time ended"}

    def training(seconds: float) -> Mapping[str, Any]:
        model, values = train_for(device, size, data, seconds)
        models.append(model)
        return values

    methods: dict[str, Method] = {"AT-10": AT(PGD(steps=10)), "SCORPIO-3": SCORPIO(steps=3), "LLR-2": LLR()}
    for name, method in methods.items():
        measure(f"step of {name}", 5, lambda method=method: step_seconds(device, size, method))
    if device.type == "cuda":
        ways: dict[str, Compile] = {"compiled": True, "compiled with CUDA graphs": "reduce-overhead"}
        for name, way in ways.items():
            measure(f"step of AT-10, {name}", 60, lambda way=way: step_seconds(device, size, methods["AT-10"], way))
        for name, pinned in {"pinned": True, "not pinned": False}.items():
            measure(f"copy of a batch, {name}", 2, lambda pinned=pinned: copy_seconds(device, size, pinned))
    for seconds in size.trainings:
        measure(f"training for {seconds:.0f} s", 1.2 * seconds, lambda seconds=seconds: training(seconds))
    for suite in ("fast", "standard"):
        model = models[-1] if models else network(size)
        measure(
            f"suite {suite}", 5, lambda suite=suite, model=model: suite_seconds(device, size, model, data, suite, clock)
        )
    return results


def describe(device: torch.device) -> dict[str, str]:
    """Return the names of the device and of the versions."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "unperturbed": un.__version__,
    }


def run(device: torch.device, size: Size, place: str | None, seconds: float = EIGHT_MINUTES) -> dict[str, Any]:
    """Return everything, as plain data."""
    clock, began = Clock(time.monotonic() + seconds), time.monotonic()
    data = colours(size.images, 0) if place is None else load_data(place)
    report: dict[str, Any] = {**describe(device), "data": data.name, "size": asdict(size)}
    report["checks"] = checks(device, size, clock)
    report["measurements"] = measurements(device, size, data, clock)
    return {**report, "seconds": time.monotonic() - began}


def main() -> int:
    """Run, write the file, print it, and return 1 if a check failed."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--data", help="CIFAR-10, as for unperturbed train; random images without it")
    options.add_argument("--small", action="store_true", help="a minute of a processor")
    options.add_argument("--out", type=Path, default=Path("gpu.json"))
    arguments = options.parse_args()
    small = arguments.small or arguments.device == "cpu"
    report = run(torch.device(arguments.device), SMALL if small else Size(), arguments.data)
    text = json.dumps(report, indent=2)
    arguments.out.write_text(text + "\n")
    print(text)
    return 0 if all(check["passed"] for check in report["checks"]) else 1


if __name__ == "__main__":
    sys.exit(main())
