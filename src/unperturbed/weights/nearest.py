"""The architecture of this package that weights in a file belong to, for messages on a mismatch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unperturbed.errors import InputError
from unperturbed.weights.layouts import plain_names


@dataclass(frozen=True)
class Family:
    """A residual network of the package: depths to try, and the convolution that tells the width.

    Attributes:
        depths: the usual ones.
        convolution: the name of its weight.
        channels: the number of its outputs at width 1.
        last: the name of the last layer.
    """

    depths: tuple[int, ...]
    convolution: str
    channels: int
    last: str


FAMILIES: Mapping[str, Family] = {
    "preact-resnet": Family((10, 18, 26, 34), "conv1.weight", 1, "linear.bias"),
    "wide-resnet": Family((10, 16, 22, 28, 34, 40, 70), "block1.layer.0.conv1.weight", 16, "fc.bias"),
}


def belonging(weights: Mapping[str, Tensor], models: Mapping[str, type[nn.Module]]) -> str:
    """Return a sentence on the residual network of `models` with all names and shapes of a file; "" if none has."""
    stored = _shapes({name: weights[key] for name, key in plain_names(weights).items()})
    for name, family in FAMILIES.items():
        first, widest, last = (stored.get(key, ()) for key in ("conv1.weight", family.convolution, family.last))
        if len(first) == 4 and widest and last:
            width, shape = widest[0] // family.channels, (first[1], 32, 32)
            for depth, model in _built(models[name], family, shape, last[0], width):
                if _shapes(model.state_dict()) == stored:
                    return (
                        f"All names and shapes are those of --model {name} --model.depth {depth} --model.width {width}"
                        f", for {first[1]} channel{'s' * (first[1] > 1)} and {last[0]} classes."
                    )
    return ""


def _built(
    kind: type[nn.Module], family: Family, shape: tuple[int, ...], classes: int, width: int
) -> Iterator[tuple[int, nn.Module]]:
    for depth in family.depths:
        try:
            with torch.random.fork_rng(devices=[]), torch.device("meta"):
                model = kind(input_shape=shape, classes=classes, depth=depth, width=width)
        except InputError:  # a width below 1
            return
        yield depth, model


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes by name, without the normalisation and the counts of batches."""
    return {
        name: tuple(value.shape)
        for name, value in weights.items()
        if not name.startswith("normalise.") and not name.endswith("num_batches_tracked")
    }
