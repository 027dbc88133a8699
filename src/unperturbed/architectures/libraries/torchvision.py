"""Image classifiers of torchvision: `torchvision:mobilenet_v3_small`."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from unperturbed.architectures.libraries.base import (
    Adapt,
    LibraryModel,
    Numbers,
    Size,
    Source,
    check_channels,
    image_shape,
    normalisation,
    numbers_of,
    required,
    size_of,
    tell,
)
from unperturbed.errors import InputError, hint
from unperturbed.networks.inputs import IMAGENET

PREFIX = "torchvision:"
CHANNELS = 3
"""The channels of all its models."""
SIZES: Mapping[str, Callable[[tuple[int, int]], dict[str, Any]]] = {
    "vit_": lambda size: {"image_size": _square(size)},
    "maxvit": lambda size: {"input_size": size},
}
"""The arguments for the size of images, by the beginning of a model's name; other models take any size."""
_OLD_NAMES = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var))$")
"""Names in the weights of DenseNets, which torchvision stores in an earlier form."""


def maker(text: str) -> Callable[..., LibraryModel]:
    """Return the function that makes the model of a text."""
    name = text.removeprefix(PREFIX)

    def make(
        input_shape: tuple[int, ...],
        classes: int,
        pretrained: bool = False,
        image_size: Size = None,
        normalise: Numbers = None,
        **options: Any,
    ) -> LibraryModel:
        """Return the model, with pretrained weights if asked; further options are those of its builder."""
        models = required("torchvision.models", text, "vision")
        listed = models.list_models(module=models)
        if name not in listed:
            raise InputError(f"torchvision has no image classifier {name!r}. {hint(name, listed)}")
        if "weights" in options:
            raise InputError(f"{text}: give --model.pretrained true in place of the option weights.")
        channels, *data = image_shape(input_shape, text)
        check_channels(channels, CHANNELS, text)
        weights = models.get_model_weights(name).DEFAULT
        preset = weights.transforms()
        size = size_of(image_size, (preset.crop_size[0],) * 2 if pretrained else (data[0], data[1]))
        sized = [argument(size) for start, argument in SIZES.items() if name.startswith(start)]
        model = models.get_model(name, weights=None, num_classes=classes, **(sized[0] if sized else {}), **options)
        stated = (*(preset.mean or IMAGENET[:3]), *(preset.std or IMAGENET[3:]))
        layer = normalisation(normalise, stated, CHANNELS)
        new = _load(model, weights, text, classes) if pretrained else []
        if pretrained:
            tell(text, size, (data[0], data[1]), new, classes)
        arguments = {
            "input_shape": list(input_shape),
            "classes": classes,
            "pretrained": pretrained,
            "image_size": list(size),
            "normalise": numbers_of(layer),
            **options,
        }
        return LibraryModel(model, Adapt(CHANNELS, size), layer, text, arguments, trained=pretrained and not new)

    return make


def _square(size: tuple[int, int]) -> int:
    if size[0] != size[1]:
        raise InputError(f"This model takes square images, not {size[0]}x{size[1]}: give --model.image_size {size[0]}.")
    return size[0]


def _load(model: nn.Module, weights: Any, text: str, classes: int) -> list[str]:
    """Load pretrained weights, without code in their file, and return the names of weights for other classes."""
    stored: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    stored = {_OLD_NAMES.sub(r"\1\2", name): value for name, value in stored.items()}
    tensors = model.state_dict()
    new = [name for name, value in stored.items() if name in tensors and tensors[name].shape != value.shape]
    for name in new:
        if len(tensors[name]) != classes or tensors[name].shape[1:] != stored[name].shape[1:]:
            raise InputError(
                f"{text}: the pretrained weights do not fit {name} of shape {tuple(tensors[name].shape)}: leave "
                "--model.image_size and options of the architecture out."
            )
    model.load_state_dict({name: value for name, value in stored.items() if name not in new}, strict=not new)
    return new


TORCHVISION: Source = Source(
    "torchvision",
    "an image classifier of torchvision: torchvision:mobilenet_v3_small",
    fits=lambda text: text.startswith(PREFIX),
    maker=maker,
    is_plain=lambda text, options: text.removeprefix(PREFIX).isidentifier(),
)
