"""One optimisation step of every method with its defaults, on the small CNN and MNIST's size, or another network.

All run in this process, alternating; what is shown are medians, and their ratios to ordinary training's.

    python benchmarks/method_steps.py [--repeats 15] [--batch 128] [--network preact-resnet]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from torch import nn

from unperturbed.architectures.preact_resnet import PreActResNet
from unperturbed.architectures.small_cnn import SmallCNN
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method
from unperturbed.methods.cure import CURE
from unperturbed.methods.elle import ELLE, ELLE_A
from unperturbed.methods.erm import ERM
from unperturbed.methods.fgsm import FGSM, N_FGSM, RS_FGSM
from unperturbed.methods.free import Free
from unperturbed.methods.fw_at import FWAT, FWATAdapt
from unperturbed.methods.grad_align import GradAlign
from unperturbed.methods.gradient_penalty import GradientPenalty
from unperturbed.methods.llr import LLR
from unperturbed.methods.logit_pairing import ALP, CLP, CLPOriginal
from unperturbed.methods.mart import MART
from unperturbed.methods.scorpio import SCORPIO
from unperturbed.methods.soar import SOAR
from unperturbed.methods.sora import SORA
from unperturbed.methods.trades import TRADES
from unperturbed.networks.precision import InPrecision, choose
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training.prepare import make_optimiser
from unperturbed.training.recipe import Recipe
from unperturbed.training.step import optimisation_step
from unperturbed.types import Batch

METHODS: tuple[type[Method], ...] = (
    *(ERM, FGSM, RS_FGSM, N_FGSM, Free, AT, TRADES, MART, ALP, CLP, CLPOriginal),
    *(SCORPIO, LLR, GradientPenalty, CURE, SOAR, GradAlign, ELLE, ELLE_A, FWAT, FWATAdapt, SORA),
)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float]] = {
    "small-cnn": (lambda: SmallCNN(activation="silu"), (1, 28, 28), 0.3),
    "preact-resnet": (lambda: PreActResNet(width=16, activation="silu"), (3, 32, 32), 8 / 255),
}


def step_of(method: Method, network: str, size: int) -> Callable[[], None]:
    """Return a step as `train` takes it."""
    torch.manual_seed(0)
    make, shape, eps = NETWORKS[network]
    model = make()
    precision = choose("auto", model, torch.device("cpu"))
    model.to(memory_format=precision.memory_format)  # type: ignore[call-overload]
    fabric = Fabric(accelerator="cpu", devices=1)
    attacked = InPrecision(model, precision.autocast)
    wrapped, optimiser = fabric.setup(attacked, make_optimiser(model, Recipe()))
    x = torch.rand(size, *shape).contiguous(memory_format=precision.memory_format)
    batch = Batch(x, torch.randint(10, (size,)), torch.arange(size))
    threat, noise = Threat("Linf", eps), Noise.of(0, batch.ids)
    wrapped.train()

    def step() -> None:
        optimisation_step(fabric, attacked, wrapped, optimiser, method, batch, threat, noise)

    return step


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--repeats", type=int, default=15)
    options.add_argument("--batch", type=int, default=128)
    options.add_argument("--network", choices=NETWORKS, default="small-cnn")
    arguments = options.parse_args()
    steps = {method.name: step_of(method(), arguments.network, arguments.batch) for method in METHODS}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(arguments.repeats + 1):  # the first round is set-up
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            seconds[name] += [time.perf_counter() - began] if repeat else []
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(
        f"{arguments.network}, batch {arguments.batch}, {torch.get_num_threads()} threads, "
        f"{arguments.repeats} alternating repeats"
    )
    for name, median in medians.items():
        print(f"{name:18}{median * 1e3:7.1f} ms{median / medians['erm']:7.1f}")


if __name__ == "__main__":
    main()
