"""What the models share: activations, and the checks of their arguments."""

import functools
import inspect
from typing import Any, TypeVar, cast

from torch import nn

from unperturbed.errors import InputError

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "softplus": nn.Softplus}


M = TypeVar("M", bound=nn.Module)


def keeps_arguments(kind: type[M]) -> type[M]:
    """Let networks of this class keep the arguments that they were built with, defaults included, as `init_args`."""
    original = kind.__init__
    signature = inspect.signature(kind)

    @functools.wraps(original)
    def init(self: M, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        bound = signature.bind(*arguments, **options)
        bound.apply_defaults()
        cast(Any, self).init_args = dict(bound.arguments)

    cast(Any, kind).__init__ = init
    return kind


def activation_named(name: str) -> nn.Module:
    """Return the activation "relu", "silu" or "softplus" (log(1 + exp(x))); raises `InputError` on another name."""
    if name not in _ACTIVATIONS:
        raise InputError(f"unknown activation {name!r}: choose one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]()


def check_image_shape(input_shape: tuple[int, ...], smallest: int = 1) -> tuple[int, int, int]:
    """Return (channels, height, width); raises `InputError` where that is not what `input_shape` holds."""
    shape = check_shape(input_shape)
    if len(shape) != 3 or min(shape[1:]) < smallest:
        raise InputError(
            f"this model takes images (channels, height, width) of at least {smallest}x{smallest} pixels, but the"
            f" inputs have shape {shape}: use the model mlp, or your own"
        )
    return shape[0], shape[1], shape[2]


def check_shape(input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of one input as a tuple; raises `InputError` where it is empty or holds a size below 1."""
    shape = tuple(input_shape)
    if not shape or min(shape) < 1:
        raise InputError(f"input_shape {shape} is not the shape of an input: give sizes from 1 up, such as (3, 32, 32)")
    return shape


def check_positive(**sizes: int) -> None:
    """Raise `InputError` on the first size that is below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"{name} is {size}: give a number from 1 up")
