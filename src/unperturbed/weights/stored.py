"""The content of a weights file, read without running code in it."""

import argparse
import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.serialization import safe_globals

from unperturbed.errors import InputError
from unperturbed.reading import regular
from unperturbed.runs.tensors import DamagedError, damage_of_zip, read_tensors
from unperturbed.weights.layouts import StoredWeights, find_weights

_SCALAR: Any = np.float64(0).__reduce__()[0]
PLAIN: tuple[Any, ...] = (
    argparse.Namespace,
    *((PurePosixPath, f"pathlib{part}.PosixPath") for part in ("", "._local")),
    np.dtype,
    *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type) and issubclass(kind, np.dtype)),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(
        (OrderedDict, f"{package}.AttributeDict")
        for package in (
            *("lightning_fabric.utilities.data", "lightning.fabric.utilities.data"),
            *("pytorch_lightning.utilities.parsing", "lightning.pytorch.utilities.parsing"),
        )
    ),
)
"""Classes of plain values next to the weights in checkpoints of timm, Lightning and others: making them runs no code.

Options of a command, paths, NumPy's numbers and Lightning's settings.
"""


def read_stored(path: Path) -> StoredWeights:
    """Return the weights in a file under their stored names."""
    head = _head(path)
    _refuse_text(path, head)
    content = _read_safetensors(path) if head[8:9] == b"{" else _read_pickled(path, head)
    try:
        stored = find_weights(content)
    except RecursionError:
        raise InputError(f"{path} holds itself, or nests too deeply: save a model's state_dict() there") from None
    if stored is None:
        keys = f" with the keys {', '.join(map(str, content))}"[:200] if isinstance(content, Mapping) else ""
        kind = type(content).__name__
        raise InputError(f"{path} holds no weights but a {kind}{keys}: save a model's state_dict() there")
    for name, value in stored.weights.items():
        if value.is_nested or value.layout != torch.strided or value.is_quantized or value.device.type == "meta":
            raise InputError(
                f"{name:.200} of {path} is a sparse, nested, quantised or meta tensor: save ordinary weights"
            )
    return stored


def _head(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{path} is a folder: name the weights file in it (.safetensors, .pt, .pth, .ckpt or .bin)")
    try:
        with regular(path).open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise InputError(f"cannot read the weights {path} ({error.strerror}): check the path") from error
    if not head:
        raise InputError(f"{path} is empty: download or save it again")
    return head


def _refuse_text(path: Path, head: bytes) -> None:
    """Raise InputError for an HTML page or a Git LFS pointer, left by a failed download."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<!--", b"<?xml")):
        kind = "an XML" if start.startswith(b"<?xml") else "an HTML"
        raise InputError(
            f"{path} is {kind} page, not weights: the server sent a page (a login, a warning, an error) in place of the"
            " file; open the link in a browser and download the file itself"
        )
    if start.startswith(b"version https://git-lfs"):
        raise InputError(f"{path} is a Git LFS pointer, not weights: fetch the file itself with `git lfs pull`")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(path)[0]
    except DamagedError as error:
        raise InputError(
            f"{path} is a damaged or truncated safetensors file ({error}): download it again, or put back a copy"
        ) from error


def _read_pickled(path: Path, head: bytes) -> object:
    """Return the content of a file of `torch.save`, without running code in it."""
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise InputError(f"{path} is truncated: it ends before its table of contents; download it again")
    if damage := damage_of_zip(path) if head.startswith(b"PK") else "":
        raise InputError(f"{path} is damaged ({damage}): download it again, or put back a copy")
    try:
        # an open file: for a path, torch decides by the suffix; it warns of foreign pickles
        with warnings.catch_warnings(action="ignore"), safe_globals([*PLAIN]), path.open("rb") as file:
            content: object = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        if code := _code_in(path, str(error)):
            raise InputError(
                f"{path} holds more than tensors: {code}, which only running code could restore, so it was not read"
                " and nothing in it ran. If you trust the file, open it with the project that wrote it and save"
                " model.state_dict() alone"
            ) from None
        raise InputError(
            f"{path} is not a weights file, or it is damaged or truncated ({_reason(error)}): download it again"
        ) from error
    return content


def _code_in(path: Path, message: str) -> str | None:
    """Return the class or function that stopped the safe unpickler, or that a bare pickle would call."""
    if match := re.search(r"GLOBAL ([A-Za-z_][\w.]*)", message):
        return match[1]
    texts: list[str] = []
    with path.open("rb") as file, suppress(ValueError, MemoryError):  # a text may claim any length
        for code, argument, _ in pickletools.genops(file):  # parses the pickle without running it
            if code.name == "GLOBAL":
                return str(argument).replace(" ", ".")
            if code.name == "STACK_GLOBAL":
                return ".".join(texts[-2:])
            if isinstance(argument, str):
                texts.append(argument)
    return None


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip() and "weights_only" not in line]
    return lines[0].strip() if lines else type(error).__name__
