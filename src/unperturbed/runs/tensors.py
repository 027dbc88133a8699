"""Tensors in safetensors files with a hash of their contents."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unperturbed.reading import parse_json, regular
from unperturbed.runs.files import write_atomically
from unperturbed.runs.verify import digest

NOTE = "unperturbed"
"""The single entry of the metadata: several would be written in varying order."""


class DamagedError(ValueError):
    """A damaged file; the message describes the damage."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors (on the CPU, contiguous) atomically, with plain values and a hash of both."""
    note = {"about": dict(about), "sha256": _hash(tensors, about)}
    metadata = {NOTE: json.dumps(note, sort_keys=True)}
    write_atomically(path, lambda temporary: safetensors.torch.save_file(dict(tensors), temporary, metadata))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Return the tensors of a safetensors file and its plain values, which are None in a file of another program.

    Raises:
        DamagedError: if the file was changed or damaged.
    """
    try:
        with safe_open(regular(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise DamagedError(str(error)) from error
    if NOTE not in metadata:
        return tensors, None
    try:
        note = parse_json(metadata[NOTE], f"The checksum of {path}")
        about, expected = dict(note["about"]), note["sha256"]
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedError("its checksum cannot be read") from error
    if expected != _hash(tensors, about):
        raise DamagedError("its contents do not match their checksum")
    return tensors, about


def damage_of_zip(path: Path) -> str:
    """Return the damage of a zip archive of `torch.save`; "" if every checksum is right."""
    try:
        with zipfile.ZipFile(regular(path)) as archive:
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                return "it is compressed, as torch.save writes no file"
            bad = archive.testzip()
    except Exception as error:  # damaged fields of an archive may raise anything
        return str(error) or type(error).__name__
    return f"the checksum of its part {bad} is wrong" if bad else ""


def _hash(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    total = hashlib.sha256(digest(about).encode())
    for name in sorted(tensors):
        value = tensors[name]
        total.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        total.update(value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
