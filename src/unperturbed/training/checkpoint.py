"""Checkpoints: everything that a run needs to go on as if it had never stopped."""

import pickle
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unperturbed.errors import RunError
from unperturbed.maximise.ascent import Maximiser
from unperturbed.methods.base import Method
from unperturbed.runs import write_atomically


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values whole, in a form that loads without running code.

    Raises:
        RunError: if it cannot be written (a full disk); an earlier checkpoint then stands.
    """
    try:
        write_atomically(path, lambda temporary: torch.save(state, temporary))
    except (OSError, RuntimeError) as error:
        raise RunError(f"The checkpoint {path} cannot be written ({error}).") from error


def load(path: Path) -> dict[str, Any]:
    """Return what `save` wrote, on the CPU.

    Raises:
        RunError: if the file is damaged.
    """
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        kind = type(error).__name__  # torch's own words advise to load without care
        raise RunError(f"The checkpoint {path} is damaged ({kind}): start the run again in another folder.") from error


def memory(method: Method) -> dict[str, Tensor]:
    """Return the buffers of every module among the method and the fields of it, under their field paths."""
    return {
        f"{path}{name}": buffer.detach().clone()
        for path, module in _modules(method, "")
        for name, buffer in module.named_buffers(recurse=False)
    }


def move_memory(method: Method, device: torch.device) -> None:
    """Move the buffers to a device, wherever among the fields they are."""
    for _, module in _modules(method, ""):
        module.to(device)


def restore_memory(method: Method, saved: dict[str, Tensor]) -> None:
    """Put buffers back where `memory` found them, on the device where they were."""
    for path, module in _modules(method, ""):
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, saved[f"{path}{name}"].to(buffer.device))


def _modules(thing: object, path: str) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(thing, nn.Module):
        yield path, thing
        parts = {**vars(thing), **dict(thing.named_children())}
    elif is_dataclass(thing):
        parts = {field.name: getattr(thing, field.name) for field in fields(thing)}
    else:
        parts = dict(vars(thing)) if hasattr(thing, "__dict__") else {}
    for name, part in parts.items():
        if isinstance(part, (nn.Module, Method, Maximiser)):
            yield from _modules(part, f"{path}{name}.")
