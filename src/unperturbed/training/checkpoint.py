"""Checkpoints: everything that a run needs to resume exactly."""

import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unperturbed.errors import NotResumableError, RunError
from unperturbed.maximise.ascent import Maximiser
from unperturbed.methods.base import Method
from unperturbed.runs import BEST, CHECKPOINT, PREVIOUS, write_atomically
from unperturbed.runs.tensors import damage_of_zip


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values atomically, in a form that loads without running code.

    Raises:
        RunError: if it cannot be written (a full disk); an earlier checkpoint then remains.
    """

    def write(temporary: Path) -> None:
        torch.save(state, temporary)
        if path.exists():
            _keep_as_previous(path)

    try:
        write_atomically(path, write)
    except RunError as error:
        raise RunError(f"The checkpoint {path} cannot be written ({error.__cause__ or error}).") from error


def last_of(folder: Path) -> Path | None:
    """Return a run's last checkpoint, or else the one before it, or None."""
    return next((folder / name for name in (CHECKPOINT, PREVIOUS) if (folder / name).exists()), None)


def forget_previous(folder: Path) -> None:
    """Remove the checkpoint before the last one."""
    (folder / PREVIOUS).unlink(missing_ok=True)


def _keep_as_previous(path: Path) -> None:
    """Keep the checkpoint that is about to be replaced, by a hard link, which costs no time."""
    previous = path.with_name(Path(PREVIOUS).name)
    previous.unlink(missing_ok=True)
    try:
        os.link(path, previous)
    except OSError:  # a file system without links
        os.replace(path, previous)


def load(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint, on the CPU.

    Raises:
        RunError: if the file is damaged.
    """
    damage = damage_of_zip(path)
    if damage:
        raise NotResumableError(damaged(path, damage))
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # any error of the unpickler on a foreign file
        kind = type(error).__name__  # torch's message advises unsafe loading
        raise NotResumableError(damaged(path, kind)) from error


def damaged(path: Path, damage: str) -> str:
    """Return the message that a checkpoint is damaged, with the possible remedies."""
    previous, best = path.with_name(Path(PREVIOUS).name), path.parent.parent / BEST
    ways = []
    if path != previous and previous.exists() and not damage_of_zip(previous):
        ways.append(f"delete it, and --resume uses the checkpoint before it, {previous}")
    if best.exists():
        ways.append(f"train on from the best weights so far, in another folder, with --weights {best}")
    ways.append("start the run again in another folder")
    return f"The checkpoint {path} is damaged ({damage}): {'; or '.join(ways)}."


def memory(method: Method) -> dict[str, Tensor]:
    """Return the buffers of every module in the method and its fields, by their field paths."""
    return {
        f"{path}{name}": buffer.detach().clone()
        for path, module in _modules(method, "")
        for name, buffer in module.named_buffers(recurse=False)
    }


def move_memory(method: Method, device: torch.device) -> None:
    """Move all buffers in the fields to a device."""
    for _, module in _modules(method, ""):
        module.to(device)


def holds(method: Method, network: nn.Module) -> bool:
    """Tell whether the network is among the modules in the method's fields."""
    return any(module is network for _, module in _modules(method, ""))


def restore_memory(method: Method, saved: dict[str, Tensor]) -> None:
    """Restore buffers from `memory`, on their devices."""
    for path, module in _modules(method, ""):
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, saved[f"{path}{name}"].to(buffer.device))


def _modules(item: object, path: str) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(item, nn.Module):
        yield path, item
        parts = {**vars(item), **dict(item.named_children())}
    elif is_dataclass(item):
        parts = {field.name: getattr(item, field.name) for field in fields(item)}
    else:
        parts = dict(vars(item)) if hasattr(item, "__dict__") else {}
    for name, part in parts.items():
        if isinstance(part, (nn.Module, Method, Maximiser)):
            yield from _modules(part, f"{path}{name}.")
