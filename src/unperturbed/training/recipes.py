"""Recipes by name: settings of published training protocols, for a kind of data, a network and a method.

"strong" has the settings of the FastAT benchmark (its `benchmark_data.json`: CIFAR-10, ResNet-18, 100 epochs, batch
128, one-cycle up to 0.1): weight averaging and label smoothing, with flips and crops. "fast" has the schedules of the
published code of methods of one step: short runs at a high learning rate.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from unperturbed.data.split import Data
from unperturbed.errors import InputError
from unperturbed.methods.base import Method
from unperturbed.training.prepare import optimiser_kind, usual_batch_size
from unperturbed.training.recipe import Recipe

NAMES = ("default", "strong", "fast")
DECAY = 0.9995
"""Decay of the running average of the weights in the FastAT benchmark."""
SHARE = 1 / (1 - DECAY) / (100 * (49_000 // 128))
"""The memory of that average, in steps, over the steps of the benchmark: 100 epochs of 49,000 images."""
SMOOTHING = 0.4
"""Label smoothing in the FastAT benchmark."""
SMOOTHED = ("at", "fgsm", "rs-fgsm", "n-fgsm", "free", "grad-align", "elle")
"""Methods of ours in that benchmark; their loss is a cross-entropy at perturbed inputs."""
UPRIGHT = ("svhn",)
"""Colour images whose mirror image is of another class, or of none."""


@dataclass(frozen=True)
class Schedule:
    """A schedule of published code: epochs on CIFAR-10 and the peak of its learning rate for SGD."""

    epochs: int
    lr: float


SCHEDULES = {
    "rs-fgsm": Schedule(15, 0.2),  # Wong et al. 2020, CIFAR10/train_fgsm.py
    "n-fgsm": Schedule(30, 0.2),  # de Jorge et al. 2022, train.py
    "free": Schedule(80, 0.04),  # Wong et al. 2020, CIFAR10/train_free.py: 10 epochs of 8 steps with every batch
    "grad-align": Schedule(30, 0.3),  # Andriushchenko & Flammarion 2020, sh/exps_diff_eps_cifar10.sh
    "elle": Schedule(30, 0.2),  # Abad Rocamora et al. 2024, core/utils/train.py
    "elle-a": Schedule(30, 0.2),  # the same
}
HOUSE_NUMBERS = Schedule(30, 0.05)  # SVHN in the code of N-FGSM and ELLE: eps grows over the first 5 of 30 epochs
HOUSE_NUMBERS_RAMP = 0.1667
GREY_BATCH = 100
"""Batch size, in `_grey` with the other settings of MNIST/train_mnist.py by Wong et al. 2020."""


def named_recipe(
    name: str, base: Recipe, data: Data, model: nn.Module, method: Method, given: Collection[str] = ()
) -> Recipe:
    """Return the settings of a recipe by name; those of `base` that are `given` win.

    Args:
        name: "default" (that of `Recipe`), "strong" or "fast".
        base: further settings.
        data: the training data: colour images, grey images, or other examples.
        model: the network, which decides about the optimiser.
        method: the training method.
        given: names of the fields of `base` that the user has set.

    Raises:
        InputError: for an unknown name, and for "fast" where no published schedule is known.
    """
    if name not in NAMES:
        raise InputError(f"There is no recipe {name!r}: give {', '.join(NAMES[:-1])} or {NAMES[-1]}.")
    settings: dict[str, Any] = {}
    if name == "strong":
        settings = _strong(data, method, base)
    elif name == "fast":
        settings = _fast(data, model, method, base, "optimiser" in given)
    return replace(base, **{field: value for field, value in settings.items() if field not in given})


def _strong(data: Data, method: Method, base: Recipe) -> dict[str, Any]:
    """Return weight averaging and, where the benchmark has them, label smoothing, flips and crops.

    The average is over the benchmark's share of the run, and over as many steps as there at most.
    """
    examples = round(len(data.train) * (1 - base.validation))
    steps = base.epochs * (examples // (base.batch_size or usual_batch_size(examples)))
    settings: dict[str, Any] = {"schedule": "one-cycle"}
    if SHARE * steps > 1:
        settings["averaging"] = round(min(DECAY, 1 - 1 / (SHARE * steps)), 5)
    if _channels(data) == 3:
        settings["augment"] = _augmentation(data)
    if _channels(data) is not None and method.name in SMOOTHED:
        settings["label_smoothing"] = SMOOTHING
    return settings


def _fast(data: Data, model: nn.Module, method: Method, base: Recipe, chosen_optimiser: bool) -> dict[str, Any]:
    """Return the published schedule of a method of one step."""
    if method.name not in SCHEDULES:
        raise InputError(
            f"The recipe fast has no published schedule of the method {method.name!r}: take one of "
            f"{', '.join(SCHEDULES)}, or another recipe."
        )
    if _channels(data) is None:
        raise InputError(
            f"The recipe fast is for images, but an example of {data.name} has shape {data.train.shape}: take another "
            "recipe."
        )
    if _channels(data) == 1:
        return _grey(data, base, chosen_optimiser)
    upright = data.name in UPRIGHT
    schedule = HOUSE_NUMBERS if upright else SCHEDULES[method.name]
    settings: dict[str, Any] = {"epochs": schedule.epochs, "schedule": "one-cycle", "augment": _augmentation(data)}
    if upright:
        settings["ramp"] = HOUSE_NUMBERS_RAMP
    if optimiser_kind(base, model) == "sgd":  # no rate for Adam is published there
        settings["lr"] = schedule.lr
    return settings


def _grey(data: Data, base: Recipe, chosen_optimiser: bool) -> dict[str, Any]:
    """Return the published schedule for MNIST, for grey images."""
    settings: dict[str, Any] = {"epochs": 10, "schedule": "one-cycle", "weight_decay": 0.0}
    if not chosen_optimiser or base.optimiser == "adam":
        settings |= {"optimiser": "adam", "lr": 5e-3}
    if usual_batch_size(len(data.train)) >= GREY_BATCH:
        settings["batch_size"] = GREY_BATCH
    return settings


def _augmentation(data: Data) -> str:
    """Return crops and, unless the images must stay upright, flips."""
    return "crop" if data.name in UPRIGHT else "flip-crop"


def _channels(data: Data) -> int | None:
    """Return the channels of images, 1 or 3; None for other examples."""
    shape = data.train.shape
    return shape[0] if len(shape) == 3 and shape[0] in (1, 3) else None
