"""The architecture that weights in a file belong to, or the nearest one, for messages on a mismatch."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unperturbed.errors import InputError
from unperturbed.weights.layouts import plain_names

Shapes = Mapping[str, tuple[int, ...]]
DEPTHS = {"preact-resnet": (10, 18, 26, 34), "wide-resnet": (10, 16, 22, 28, 34, 40, 70)}
"""The usual depths of the residual networks of the package."""
BLOCKS: Mapping[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
"""The residual networks of torchvision and timm by their blocks: with bottlenecks or not, and the number in each stage.
"""
SHARED = 0.6
"""Share of the shapes that a network must have in common with a file to be named as the nearest."""


@dataclass(frozen=True)
class Candidate:
    """A network of the package: its options in words, and the shapes of its weights."""

    options: str
    shapes: Shapes

    def shared(self, shapes: Shapes) -> int:
        """Return the number of weights with a shape that a weight of the file has, each used once."""
        return (Counter(self.shapes.values()) & Counter(shapes.values())).total()

    def share(self, shapes: Shapes) -> float:
        """Return that number over the number of weights of the network or, if it has more, of the file."""
        return self.shared(shapes) / max(len(shapes), len(self.shapes), 1)


def belonging(weights: Mapping[str, Tensor], models: Mapping[str, type[nn.Module]]) -> str:
    """Return a sentence on the network with the names and shapes of a file, or on the nearest one; "" if none is near.

    The networks are those of `models` with usual depths, and torchvision's residual networks. Nearest is the one with
    the largest share of shapes in common.
    """
    stored = _shapes({name: weights[key] for name, key in plain_names(weights).items()})
    candidates = list(_candidates(stored, models))
    for candidate in candidates:
        if candidate.shapes == stored:
            return f"All names and shapes are those of --model {candidate.options}."
    if (name := _of_torchvision(stored)) is not None:
        return f"The names are those of --model torchvision:{name}, or timm:{name}."
    nearest = max(candidates, key=lambda candidate: candidate.share(stored), default=None)
    if nearest is None or nearest.share(stored) < SHARED:
        return ""
    return (
        f"No network of this package has these names and shapes. The nearest is --model {nearest.options}: of the "
        f"{len(stored)} shapes in the file, {nearest.shared(stored)} are among its {len(nearest.shapes)}, but it is "
        "another network: give the class that was trained, as --model package.module:Class."
    )


def _candidates(stored: Shapes, models: Mapping[str, type[nn.Module]]) -> Iterator[Candidate]:
    """Yield the networks of the package that channels, width and classes of a file make possible."""
    convolutions = [shape for shape in stored.values() if len(shape) == 4]
    matrices = [shape for shape in stored.values() if len(shape) == 2]
    if not matrices:
        return
    classes = matrices[-1][0]
    if not convolutions:
        hidden = [outputs for outputs, _ in matrices[:-1]]
        options = {"input_shape": (matrices[0][1],), "classes": classes, "hidden": tuple(hidden)}
        words = (
            f"mlp --model.hidden {str(hidden).replace(' ', '')}, for {matrices[0][1]} features and {classes} classes"
        )
        yield from _built(models["mlp"], words, options)
        return
    channels = convolutions[0][1]
    ending = f"for {channels} channel{'s' * (channels > 1)} and {classes} classes"
    pixels = matrices[0][1] / max(2 * convolutions[0][0], 1)
    side = 4 * math.isqrt(int(pixels))
    if len(convolutions) == 2 and 16 * pixels == side**2:
        width = convolutions[0][0]
        options = {"input_shape": (channels, side, side), "classes": classes, "width": width}
        yield from _built(models["small-cnn"], f"small-cnn --model.width {width}, {ending}", options)
    most = max(shape[0] for shape in convolutions)
    for name, last in (("preact-resnet", 8), ("wide-resnet", 64)):  # channels of the last stage at width 1
        for depth in DEPTHS[name]:
            width = most // last
            options = {"input_shape": (channels, 32, 32), "classes": classes, "depth": depth, "width": width}
            words = f"{name} --model.depth {depth} --model.width {width}, {ending}"
            yield from _built(models[name], words, options)


def _built(kind: type[nn.Module], words: str, options: Mapping[str, Any]) -> Iterator[Candidate]:
    """Yield the network with these options, without memory for its weights; nothing for options that it refuses."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = kind(**options)
    except InputError:  # a width below 1
        return
    yield Candidate(words, _shapes(model.state_dict()))


def _of_torchvision(stored: Shapes) -> str | None:
    """Return the residual network of torchvision and timm that has the names of a file and its widths, if one has."""
    if stored.get("conv1.weight", ())[:1] != (64,) or stored.get("conv1.weight", ())[2:] != (7, 7):
        return None
    if "fc.weight" not in stored or stored.get("layer1.0.conv1.weight", ())[:1] != (64,):
        return None
    places = [match for name in stored if (match := re.match(r"layer([1-4])\.(\d+)\.conv1\.weight", name))]
    numbers = [[int(match[2]) for match in places if int(match[1]) == stage] for stage in (1, 2, 3, 4)]
    bottleneck = "layer1.0.conv3.weight" in stored
    return BLOCKS.get((bottleneck, tuple(len(stage) for stage in numbers)))


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes by name, without the normalisation and the counts of batches."""
    return {
        name: tuple(value.shape)
        for name, value in weights.items()
        if not name.startswith("normalise.") and not name.endswith("num_batches_tracked")
    }
