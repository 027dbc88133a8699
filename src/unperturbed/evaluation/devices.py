"""Measurements from Python that several processes share."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from multiprocessing.reduction import ForkingPickler
from tempfile import TemporaryDirectory
from typing import Any, ParamSpec, TypeVar

from torch import nn

from unperturbed.engines.group import group
from unperturbed.engines.launch import together
from unperturbed.errors import InputError
from unperturbed.networks.device import number_of_devices, own_device
from unperturbed.networks.dtype import home

P = ParamSpec("P")
R = TypeVar("R")


def shared_by_devices(measure: Callable[P, R]) -> Callable[P, R]:
    """Return the measurement, with its examples shared by `devices` processes.

    Its first argument is the network, or networks by name. `out` is where the processes meet: a temporary folder where
    none is given. They report no progress.

    The call raises InputError where there are not so many devices, within another group of processes, and for
    arguments that cannot be sent to another process.
    """
    signature = inspect.signature(measure)
    networks = next(iter(signature.parameters))

    @wraps(measure)
    def shared(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = dict(bound.arguments)
        devices = given.pop("devices")
        if devices == 1 or not _networks(given[networks]):
            return measure(*args, **kwargs)
        del given["progress"]
        device = home(_networks(given[networks])[0])[0].type
        _check(devices, device, given)
        path = (measure.__module__, measure.__qualname__)
        with TemporaryDirectory(prefix="unperturbed-") as folder:
            given["out"] = folder if given["out"] is None else given["out"]
            result: R = together(devices, _measured, path, networks, given, device)
        return result

    return shared


def _check(devices: int, device: str, given: Mapping[str, Any]) -> None:
    if group()[1] > 1:
        raise InputError(f"devices is {devices}, but this process shares its examples already: leave it out.")
    if given.get("engine") is not None:
        raise InputError(f"devices is {devices}, and the engine {given['engine']!r}: give one of the two.")
    number_of_devices(devices, device)
    try:
        ForkingPickler.dumps(given)
    except Exception as error:  # the caller's objects may raise anything
        raise InputError(
            f"devices is {devices}, but model, data or suite cannot be sent to other processes ({error}): define their "
            "classes and functions at the top of a module, or leave devices out."
        ) from error


def _networks(given: nn.Module | Mapping[str, nn.Module]) -> list[nn.Module]:
    return list(given.values()) if isinstance(given, Mapping) else [given]


def _measured(path: tuple[str, str], networks: str, given: dict[str, Any], device: str) -> Any:
    """Return the result of the measurement at an import path, its networks on the device of this process."""
    for network in _networks(given[networks]):
        network.to(own_device(device))
    module, name = path
    return getattr(import_module(module), name)(**given)
