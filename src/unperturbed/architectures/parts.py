"""Activations and argument checks of the networks."""

import functools
import inspect
import re
from typing import Any, TypeVar, cast

from torch import nn

from unperturbed.checks import AT_LEAST_ONE, POSITIVE, SHARE_BELOW_ONE, check_arguments
from unperturbed.errors import InputError

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "softplus": nn.Softplus}
_RULES = {
    **dict.fromkeys(("input_shape", "classes", "hidden", "width", "depth"), AT_LEAST_ONE),
    "std": POSITIVE,
    "dropout": SHARE_BELOW_ONE,
}

M = TypeVar("M", bound=nn.Module)


def keeps_arguments(kind: type[M]) -> type[M]:
    """Check a network's arguments, and store them, with defaults, as `init_args`.

    The constructor raises `InputError` for arguments of another type or out of range, and for networks that do not fit
    in memory.
    """
    original = kind.__init__
    signature = inspect.signature(original)

    @functools.wraps(original)
    def init(self: M, *arguments: Any, **options: Any) -> None:
        bound = signature.bind(self, *arguments, **options)
        check_arguments(original, bound, _RULES)
        bound.apply_defaults()
        named_arguments = {name: value for name, value in bound.arguments.items() if name != "self"}
        try:
            original(self, **named_arguments)
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and not re.search("allocate|overflow", str(error)):
                raise
            raise InputError(
                f"Memory does not hold a {kind.__name__} with {named_arguments!r:.300}: give smaller sizes."
            ) from error
        cast(Any, self).init_args = named_arguments

    cast(Any, kind).__init__ = init
    return kind


def activation_named(name: str) -> nn.Module:
    """Return the activation "relu", "silu" or "softplus" (log(1 + exp(x))); raises `InputError` on another name."""
    if name not in _ACTIVATIONS:
        raise InputError(f"unknown activation {name!r}: choose one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]()


def check_image_shape(input_shape: tuple[int, ...], smallest: int = 1) -> tuple[int, int, int]:
    """Return (channels, height, width); raises `InputError` if `input_shape` is not the shape of images."""
    shape = check_shape(input_shape)
    if len(shape) != 3 or min(shape[1:]) < smallest:
        raise InputError(
            f"this model takes images (channels, height, width) of at least {smallest}x{smallest} pixels, but the"
            f" inputs have shape {shape}: use the model mlp, or your own"
        )
    return shape[0], shape[1], shape[2]


def check_shape(input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of one input as a tuple; raises `InputError` if it is empty."""
    shape = tuple(input_shape)
    if not shape:
        raise InputError(f"input_shape {shape} is not the shape of an input: give sizes from 1 up, such as (3, 32, 32)")
    return shape
