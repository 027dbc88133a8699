"""A model of another library as a network on images in [0, 1], and what a library has to say about itself."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import nn

from unperturbed.architectures.normalise import Normalise
from unperturbed.errors import InputError
from unperturbed.networks.inputs import read_numbers
from unperturbed.networks.logits import output_logits
from unperturbed.types import Inputs, Logits

log = logging.getLogger("unperturbed")
Size = int | str | Sequence[int] | None
"""Height and width of images (as text with a comma), or one number for both; None: the default."""
Numbers = str | Sequence[float] | None
"""Means, then standard deviations; as text with commas, "imagenet" or "none"; None: the model's."""


@dataclass(frozen=True)
class Source:
    """A source of models; a new source is a value of this type in a file of this folder.

    Attributes:
        name: its name, which a model's text begins with if it has a prefix.
        note: one line about it, with an example.
        fits: whether a text names a model of this source.
        maker: returns, for such a text, the function that makes the model. The function takes `input_shape`, `classes`
            and options, and returns a `LibraryModel`.
        is_plain: whether a run folder of a stranger may name the model: whether the text, with the options of these
            names, leads to code of an installed library only.
    """

    name: str
    note: str
    fits: Callable[[str], bool]
    maker: Callable[[str], "Callable[..., LibraryModel]"]
    is_plain: Callable[[str, Sequence[str]], bool]


class Adapt(nn.Module):
    """Images in the channels and the size that a model takes.

    Grey images are repeated in every channel, and images of another size are resized by bilinear interpolation, which
    is differentiable. Perturbations stay in the units and pixels of the data.
    """

    forward_mode: ClassVar[bool] = True

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.channels, self.size = channels, size

    def forward(self, x: Inputs) -> Inputs:
        """Return the images of shape (n, channels, *size)."""
        if x.shape[1] != self.channels:
            x = x.expand(-1, self.channels, -1, -1)
        if tuple(x.shape[2:]) == self.size:
            return x
        return nn.functional.interpolate(x, self.size, mode="bilinear", align_corners=False)

    def extra_repr(self) -> str:
        """Return the channels and the size."""
        return f"{self.channels}, {self.size}"


class LibraryModel(nn.Module):
    """A model of another library, at `.model`, after its own resizing and normalisation.

    Attributes:
        spec: the text that names it, such as "timm:resnet18".
        init_args: the arguments that build it again.
        trained: whether all its weights are pretrained ones.
        evaluation_only: whether it is a program from a file, which is not trained.
    """

    forward_mode: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        adapt: nn.Module,
        normalise: nn.Module,
        spec: str,
        init_args: Mapping[str, Any],
        trained: bool = False,
        evaluation_only: bool = False,
    ) -> None:
        super().__init__()
        self.adapt, self.normalise, self.model = adapt, normalise, model
        self.spec, self.init_args = spec, dict(init_args)
        self.trained, self.evaluation_only = trained, evaluation_only

    def forward(self, x: Inputs) -> Logits:
        """Return the logits."""
        return output_logits(self.model(self.normalise(self.adapt(x))))


def required(module: str, text: str, extra: str) -> Any:
    """Return an optional module; raises InputError, with the extra to install, if it cannot be imported."""
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(
            f"The model {text} needs {module.partition('.')[0]}, which cannot be imported ({error}): "
            f"pip install 'unperturbed[{extra}]'."
        ) from error
    except RuntimeError as error:  # of torchvision beside a PyTorch that it was not built for
        raise InputError(
            f"The model {text} needs {module.partition('.')[0]}, which does not fit the installed PyTorch "
            f"{torch.__version__} ({error}): install versions that belong together."
        ) from error


def image_shape(input_shape: Sequence[int], text: str) -> tuple[int, int, int]:
    """Return channels, height and width; raises InputError for inputs that are no images."""
    if len(input_shape) != 3:
        raise InputError(f"The model {text} takes images, but inputs have the shape {tuple(input_shape)}.")
    channels, height, width = input_shape
    return channels, height, width


def size_of(value: Size, otherwise: tuple[int, int]) -> tuple[int, int]:
    """Return height and width; raises InputError for anything but one or two positive numbers."""
    if value is None:
        return otherwise
    parts = value.split(",") if isinstance(value, str) else (value,) * 2 if isinstance(value, int) else value
    try:
        height, width = (int(part) for part in parts)
    except ValueError:
        height = width = 0
    if min(height, width) < 1:
        raise InputError(f"image_size is {value!r}: give the height and width in pixels, such as 32 or 32,48.")
    return height, width


def check_channels(data: int, model: int, text: str) -> None:
    """Raise InputError if images have other channels than the model, unless they are grey."""
    if data not in (1, model):
        raise InputError(f"The model {text} takes {model} channels, but images have {data}.")


def normalisation(chosen: Numbers, stated: Sequence[float], channels: int) -> Normalise:
    """Return the layer for the chosen numbers or, without a choice, for those that the model states.

    Both hold means, then as many standard deviations: one, or one a channel. Stated numbers of another number of
    channels are averaged, as timm does.
    """
    numbers = read_numbers(chosen, "--model.normalise") if isinstance(chosen, str) and chosen != "none" else chosen
    if chosen == "none":
        numbers = (0.0, 1.0)
    if numbers is None:
        half = len(stated) // 2
        mean, std = tuple(stated[:half]), tuple(stated[half:])
        if half not in (1, channels):
            mean, std = (sum(mean) / half,), (sum(std) / half,)
    else:
        half = len(numbers) // 2
        mean, std = tuple(map(float, numbers[:half])), tuple(map(float, numbers[half:]))
        if len(numbers) % 2 or half not in (1, channels):
            raise InputError(
                f"normalise is {chosen!r}, {len(numbers)} numbers, but the model takes {channels} channels: give one "
                f"or {channels} means, then as many standard deviations."
            )
    return Normalise(mean * (channels // len(mean)), std * (channels // len(std)))


def numbers_of(layer: Normalise) -> list[float]:
    """Return the means, then the standard deviations, of a layer; numbers of float32 are written shortly."""
    return [float(f"{number:.7g}") for number in (*layer.mean.tolist(), *layer.std.tolist())]


def tell(text: str, size: tuple[int, int], data: tuple[int, int], new: Sequence[str], classes: int) -> None:
    """Tell the user what was changed around pretrained weights: the size of images, and a new head."""
    if size != data:
        log.warning(
            f"{text}: images of {data[0]}x{data[1]} are resized to {size[0]}x{size[1]} inside the network, as its "
            f"weights were trained; --model.image_size {data[0]} leaves them as they are."
        )
    if new:
        shown = ", ".join(new[:4]) + ", ..." * (len(new) > 4)
        log.warning(f"{text}: for {classes} classes the weights of {shown} are new and random.")
