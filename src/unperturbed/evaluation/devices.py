"""Measurements from Python shared by several processes."""

from collections.abc import Callable, Mapping
from multiprocessing.reduction import ForkingPickler
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from torch import nn

from unperturbed.engines.group import group
from unperturbed.engines.launch import together
from unperturbed.errors import InputError
from unperturbed.networks.device import number_of_devices, own_device
from unperturbed.networks.dtype import home

R = TypeVar("R")


def on_devices(number: int, measure: Callable[..., R], arguments: tuple[Any, ...], options: Mapping[str, Any]) -> R:
    """Return the result of a measurement shared by `number` processes; the first argument is the model.

    Raises:
        InputError: if the machine has fewer devices, within another group of processes, and for arguments that are not
        picklable.
    """
    model: nn.Module = arguments[0]
    if group()[1] > 1:
        raise InputError(f"devices is {number}, but this process shares its examples already: leave it out.")
    device = home(model)[0].type
    number_of_devices(number, device)
    try:
        ForkingPickler.dumps((arguments, options))
    except Exception as error:  # the caller's objects may raise anything
        raise InputError(
            f"devices is {number}, but model, data or suite cannot be sent to other processes ({error}): define their "
            "classes and functions at the top of a module, or leave devices out."
        ) from error
    with TemporaryDirectory(prefix="unperturbed-") as folder:  # processes share their parts through files
        shared = {**options, "out": options["out"] or folder}
        result: R = together(number, _measured, measure, arguments, shared, device)
    return result


def _measured(measure: Callable[..., R], arguments: tuple[Any, ...], options: dict[str, Any], device: str) -> R:
    model, *remaining = arguments
    result: R = measure(model.to(own_device(device)), *remaining, **options)
    return result
