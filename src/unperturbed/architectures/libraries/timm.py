"""Models of timm, PyTorch Image Models: `timm:resnet18`, `timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from unperturbed.architectures.libraries.base import (
    Adapt,
    LibraryModel,
    Numbers,
    Size,
    Source,
    image_shape,
    normalisation,
    numbers_of,
    required,
    size_of,
    tell,
)
from unperturbed.errors import InputError, hint
from unperturbed.networks.inputs import IMAGENET

PREFIX = "timm:"
FUNCTION = "create_model"
"""timm's own function, which is an import path: `--model timm:create_model --model.model_name resnet18`."""


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
        """Return the model, with pretrained weights if asked; further options are those of `timm.create_model`."""
        timm = required("timm", text, "vision")
        if not timm.is_model(name.partition(".")[0]):
            raise InputError(f"timm has no model {name!r}. {hint(name, timm.list_models())}")
        cfg = timm.get_pretrained_cfg(name)
        stated = {} if cfg is None else cfg.to_dict()
        arguments = {"input_shape": list(input_shape), "classes": classes, "pretrained": pretrained, **options}
        return made(text, name, stated, arguments, image_size, normalise)

    return make


def made(
    text: str,
    name: str,
    stated: Mapping[str, Any],
    arguments: Mapping[str, Any],
    image_size: Size,
    normalise: Numbers,
) -> LibraryModel:
    """Return timm's model `name` for the arguments of a maker.

    `stated` is timm's own configuration of the weights: `mean`, `std`, `input_size`, `fixed_input_size`,
    `num_classes`.
    """
    options = {key: value for key, value in arguments.items() if key not in ("input_shape", "classes", "pretrained")}
    pretrained, classes = arguments["pretrained"], arguments["classes"]
    channels, *data = image_shape(arguments["input_shape"], text)
    usual = tuple((stated.get("input_size") or (3, *data))[1:])
    wanted = size_of(image_size, usual if pretrained else (data[0], data[1]))
    fixed = bool(stated.get("fixed_input_size")) and "img_size" not in options
    keywords = {"pretrained": pretrained, "num_classes": classes, "in_chans": channels, **options}
    model, size = _created(name, keywords, wanted, usual) if fixed else (_create(name, keywords), wanted)
    mean, std = stated.get("mean") or IMAGENET[:3], stated.get("std") or IMAGENET[3:]
    layer = normalisation(normalise, (*mean, *std), channels)
    new = _head(model) if pretrained and stated.get("num_classes") != classes else []
    if pretrained:
        tell(text, size, (data[0], data[1]), new, classes)
    record = {**arguments, "image_size": list(size), "normalise": numbers_of(layer)}
    return LibraryModel(model, Adapt(channels, size), layer, text, record, trained=pretrained and not new)


def _create(name: str, keywords: Mapping[str, Any]) -> nn.Module:
    model: nn.Module = required("timm", name, "vision").create_model(name, **keywords)
    return model


def _created(
    name: str, keywords: Mapping[str, Any], size: tuple[int, int], usual: tuple[int, int]
) -> tuple[nn.Module, tuple[int, int]]:
    """Return a model of a fixed size, and this size: the wanted one if its constructor has such an argument."""
    try:
        return _create(name, {**keywords, "img_size": size}), size
    except TypeError as error:
        if "img_size" not in str(error):
            raise
    return _create(name, keywords), usual


def _head(model: nn.Module) -> list[str]:
    head: Any = getattr(model, "default_cfg", {}).get("classifier") or "head"
    return [head] if isinstance(head, str) else list(head)


def _is_plain(text: str, options: Sequence[str]) -> bool:
    return all(part.isidentifier() for part in text.removeprefix(PREFIX).replace(".", "_").split("/"))


TIMM: Source = Source(
    "timm",
    "a model of timm: timm:resnet18",
    fits=lambda text: text.startswith(PREFIX) and text != PREFIX + FUNCTION,
    maker=maker,
    is_plain=_is_plain,
)
