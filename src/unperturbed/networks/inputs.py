"""The first layer of a network for its normalisation, so that threats stay in the units of the data."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unperturbed.errors import InputError
from unperturbed.networks.logits import LogitsOnly, Wrapper
from unperturbed.networks.modes import under_attack
from unperturbed.networks.unsettled import unsettled_statistics
from unperturbed.types import Inputs, Labels, Logits

IMAGENET = (0.485, 0.456, 0.406, 0.229, 0.224, 0.225)
"""Means and standard deviations of ImageNet's channels."""
_CLEARLY = 0.3
"""The gain of accuracy above which a first layer is proposed; without it, the accuracy must be this near chance."""
_FEWEST = 20
"""The number of examples below which such a gain may be chance."""
_CONFIDENT = 0.1
"""How far the mean confidence with the proposed layer must lie above that of equal probabilities."""


class FirstLayer(Wrapper):
    """A network after (scale * x - mean) / std: mean and std along dimension 1, or one number for all.

    Its weights are those of the network. Raises `InputError` if a number is not finite, or a std is not positive.
    """

    forward_mode: ClassVar[bool] = True
    mean: Tensor
    std: Tensor

    def __init__(self, module: nn.Module, scale: float = 1.0, mean: Sequence[float] = (), std: Sequence[float] = ()):
        super().__init__(module)
        mean, std = tuple(mean) or (0.0,), tuple(std) or (1.0,)
        numbers = torch.tensor([scale, *mean, *std])
        if len(mean) != len(std) or not bool(numbers.isfinite().all()) or min(std) <= 0 or scale <= 0:
            raise InputError(
                f"The first layer has the scale {scale}, the means {mean} and the standard deviations {std}: give as "
                "many means as standard deviations, all finite, and a scale and standard deviations above 0."
            )
        self.scale = float(scale)
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    def forward(self, x: Inputs) -> Any:
        """Return the network's output for the normalised inputs."""
        if len(self.mean) not in (1, x.shape[1]):
            raise InputError(
                f"--normalise has {len(self.mean)} means, but inputs have {x.shape[1]} channels or features: give as "
                "many, or one for all."
            )
        shape = (-1, *[1] * (x.dim() - 2))
        return self.module((self.scale * x - self.mean.view(shape).to(x)) / self.std.view(shape).to(x))

    def extra_repr(self) -> str:
        """Return the numbers."""
        return f"scale={self.scale:g}, mean={self.mean.tolist()}, std={self.std.tolist()}"


def prepared(
    model: nn.Module,
    output: int | str | None = None,
    scale: float | None = None,
    normalise: Sequence[float] | None = None,
) -> nn.Module:
    """Return the network with the requested first layer and its logits selected, or unchanged if neither is requested.

    `normalise` holds as many standard deviations after its means.
    """
    if scale is not None or normalise is not None:
        numbers = tuple(normalise or ())
        if len(numbers) % 2:
            raise InputError(f"normalise has {len(numbers)} numbers: give the means, then as many standard deviations.")
        half = len(numbers) // 2
        model = FirstLayer(model, 1.0 if scale is None else scale, numbers[:half], numbers[half:])
    return model if output is None else LogitsOnly(model, output)


def read_numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """Return numbers with commas between them, or ImageNet's for "imagenet"; None for None."""
    if text is None:
        return None
    if text == "imagenet":
        return IMAGENET
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"{option} is {text!r}: write MEAN,STD, such as 0.5,0.25, all means before all standard deviations where "
            "there are several channels, or imagenet."
        ) from error


def missing_layer(classifier: nn.Module, x: Inputs, y: Labels) -> str | None:
    """Return a message on the first layer that the network probably expects, or None.

    It expects one if its accuracy on these examples (the mean over classes) is near chance, and far better with a
    common layer: normalised by the data or by ImageNet, from -1 to 1, or times 255 where the inputs were bytes. Its
    confidence must be that of a trained network, and its batch norms must have settled: after a few steps of training
    a network may come right with another layer by chance.
    """
    kinds = len(set(y.tolist()))
    if kinds < 2 or x.dim() < 2 or len(x) < _FEWEST or unsettled_statistics(classifier) is not None:
        return None
    axes = [axis for axis in range(x.dim()) if axis != 1]
    mean, std = x.mean(axes).tolist(), x.std(axes).clamp(min=1e-3).tolist()
    candidates: list[tuple[str, nn.Module]] = []
    if are_bytes(255 * x):
        candidates.append(("--scale 255", FirstLayer(classifier, 255.0)))
    for numbers in (tuple([0.5] * 2), tuple([*mean, *std]), *([IMAGENET] if x.shape[1] == 3 else [])):
        if len(numbers) <= 8:
            text = "imagenet" if numbers == IMAGENET else ",".join(f"{number:.3g}" for number in numbers)
            candidates.append((f"--normalise {text}", prepared(classifier, normalise=numbers)))
    plain, _ = _accuracy(classifier, x, y)
    if plain > 1 / kinds + _CLEARLY / 3:
        return None
    tried = [(*_accuracy(network, x, y), option) for option, network in candidates]
    sure = [(accuracy, option) for accuracy, confidence, option in tried if confidence > 1 / kinds + _CONFIDENT]
    best, option = max(sure, default=(0.0, ""))
    if best < max(plain, 1 / kinds) + _CLEARLY:
        return None
    return (
        f"The accuracy on {len(x)} examples, as a mean over the classes, is {plain:.0%} as the network is, and "
        f"{best:.0%} with {option}: a trained network with such numbers probably expects such inputs. Add {option} (in "
        "Python, wrap it: unperturbed.networks.inputs.FirstLayer)."
    )


def are_bytes(x: Tensor) -> bool:
    """Tell whether values are plainly those of bytes: whole numbers from 0 to 255, above 127 and between the ends."""
    values = x.round()
    whole = bool(((x - values).abs() < 1e-3).all()) and bool(((values >= 0) & (values <= 255)).all())
    return whole and bool((values > 127).any()) and bool(((values > 0) & (values < 255)).any())


def _accuracy(network: nn.Module, x: Inputs, y: Labels) -> tuple[float, float]:
    """Return the mean over the classes of the accuracy, and the mean confidence; zeros if the network fails."""
    try:
        with under_attack(network), torch.no_grad():
            logits: Logits = network(x)
    except Exception:  # a network may refuse such inputs
        return 0.0, 0.0
    right = (logits.argmax(1) == y).double()
    accuracies = torch.stack([right[y == label].mean() for label in sorted(set(y.tolist()))])
    return float(accuracies.mean()), float(logits.double().softmax(1).amax(1).mean())
