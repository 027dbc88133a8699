"""The settings of the studies at each scale."""

from dataclasses import replace

from unperturbed.studies.design import Scale, Setting
from unperturbed.threat import Threat
from unperturbed.training.recipe import Recipe

SMOOTH = {"activation": "silu"}
"""Second derivatives exist everywhere."""
DIGITS = Setting(
    "digits", Threat("Linf", 0.15), Recipe(epochs=10, batch_size=64), options=SMOOTH, suite="pgd", test=None
)
"""Minutes on two cores. On digits the suite pgd breaks the examples that AutoAttack breaks."""
MNIST = Setting("mnist", Threat("Linf", 0.3), Recipe(epochs=10), options=SMOOTH)
CIFAR_PART = Setting(
    "cifar10", Threat("Linf", 8 / 255), Recipe(epochs=30, batch_size=128, augment="flip-crop"),
    options={**SMOOTH, "width": 32}, train=10_000, protocol="strong",
)  # fmt: skip
"""Ten thousand images and a small network: about a core-hour for five seeds of a method."""
CIFAR_STRONG = Setting(
    "cifar10", Threat("Linf", 8 / 255), Recipe(epochs=10, batch_size=128), "preact-resnet", {**SMOOTH, "width": 16},
    seeds=2, protocol="strong",
)  # fmt: skip
"""All 50,000 images: two seeds, since a run takes up to an hour."""

LLR_CIFAR = Setting(
    "cifar10",
    Threat("Linf", 8 / 255),
    Recipe(
        epochs=142, batch_size=64, optimiser="sgd", lr=0.1, weight_decay=2e-4, schedule="step",
        milestones=(0.8, 0.88, 0.96), ramp=0.005, augment="flip-crop",
    ),
    "wide-resnet",
    {"depth": 28, "width": 8, "activation": "softplus"},
    seeds=3,
    test=None,
)  # fmt: skip
"""The released settings of Qin et al. 2019: WRN-28-8 with softplus, 100,000 steps of 64, eps grown over 500 steps."""
SCORPIO_CIFAR = Setting(
    "cifar10",
    Threat("Linf", 8 / 255),
    Recipe(
        epochs=150, batch_size=128, optimiser="sgd", lr=0.1, schedule="step", milestones=(1 / 3, 2 / 3),
        augment="flip-crop",
    ),
    "preact-resnet",
    {"activation": "relu"},
    seeds=3,
    test=None,
)  # fmt: skip
"""The defaults of the library in which the checkpoints of Tsiligkaridis & Roberts 2020 were trained; ResNet-18."""
DALE_CIFAR = Setting(
    "cifar10",
    Threat("Linf", 8 / 255),
    Recipe(
        epochs=100, batch_size=128, optimiser="sgd", lr=0.01, weight_decay=3.5e-3, schedule="step",
        milestones=(0.75, 0.9), augment="flip-crop",
    ),
    "preact-resnet",
    seeds=3,
    test=None,
)  # fmt: skip
"""The schedule in Robey et al. 2021, with the weight decay of the released code; ResNet-18."""
WEN_CIFAR = Setting(
    "cifar10",
    Threat("Linf", 16 / 255),
    Recipe(epochs=200, batch_size=128, optimiser="sgd", lr=0.1, schedule="step", augment="flip-crop"),
    "preact-resnet",
    {"depth": 34},
    seeds=3,
)
"""No code was released and the paper's text was not available: the usual long schedule, up to eps 16/255."""

LLR_SCALES: dict[Scale, tuple[Setting, ...]] = {"small": (DIGITS,), "medium": (CIFAR_PART,), "full": (LLR_CIFAR,)}
SCORPIO_SCALES: dict[Scale, tuple[Setting, ...]] = {
    "small": (DIGITS,),
    "medium": (CIFAR_PART,),
    "full": (SCORPIO_CIFAR,),
}
DALE_SCALES: dict[Scale, tuple[Setting, ...]] = {"small": (DIGITS,), "medium": (MNIST,), "full": (DALE_CIFAR,)}
WEN_SCALES: dict[Scale, tuple[Setting, ...]] = {
    "small": (replace(DIGITS, recipe=Recipe(epochs=20, batch_size=64)),),
    "medium": (
        replace(MNIST, recipe=Recipe(epochs=20)),
        replace(MNIST, model="preact-resnet", options={**SMOOTH, "depth": 10, "width": 8}),
    ),
    "full": (WEN_CIFAR,),
}


def against_the_strongest(scales: dict[Scale, tuple[Setting, ...]]) -> dict[Scale, tuple[Setting, ...]]:
    """Return the settings with AutoAttack at every scale."""
    return {scale: tuple(replace(setting, suite="standard") for setting in of) for scale, of in scales.items()}
