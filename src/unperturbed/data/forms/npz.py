"""NumPy's .npz files."""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from unperturbed.data.forms.base import Form
from unperturbed.data.split import Data, array_split, named_labels, number_classes
from unperturbed.errors import InputError
from unperturbed.reading import check_memory, in_words
from unperturbed.types import Bounds

_READ = ("x_train", "y_train", "x", "y", "image", "label", "x_test", "y_test", "low", "high")
_TRAIN = (("x_train", "y_train"), ("x", "y"), ("image", "label"))


def load_npz(path: Path) -> Data:
    """Return the arrays of a file as Data: x_train, y_train (or x, y; or image, label) and, if there, x_test, y_test.

    `low` and `high` in the file (numbers, or arrays of one example's shape) become the bounds. Pickled objects are
    never loaded. Raises InputError for missing arrays and for files that are no .npz.
    """
    arrays = _read(path)
    names = next((pair for pair in _TRAIN if pair[0] in arrays and pair[1] in arrays), None)
    if names is None:
        raise InputError(f"{path} holds {', '.join(arrays) or 'nothing'}, but needs x_train and y_train (or x and y).")
    lone = [name for name in ("x_test", "y_test") if name in arrays]
    if len(lone) == 1:
        raise InputError(f"{path} holds {lone[0]} alone, but a test split is x_test and y_test: give both, or neither.")
    pairs = [names, *([("x_test", "y_test")] if "x_test" in arrays and "y_test" in arrays else [])]
    labelled = named_labels(*(arrays[y] for _, y in pairs))
    labels = [arrays[y] for _, y in pairs] if labelled is None else labelled[0]
    train, *tests = (array_split(arrays[x], y) for (x, _), y in zip(pairs, labels, strict=True))
    test = tests[0] if tests else None
    if test is not None and test.shape != train.shape:
        raise InputError(f"Examples of {path} have shape {train.shape} in training and {test.shape} in the test split.")
    classes = number_classes(train, test) if labelled is None else labelled[1]
    bounds = _bounds(arrays, train.shape, path)
    if "high" in arrays and arrays[names[0]].dtype == np.uint8 and float(arrays["high"].max()) > 1:
        raise InputError(
            f"high of {path} is above 1, but its inputs are bytes, which are divided by 255: give low and high after "
            "the division, such as 0 and 1, or leave them out."
        )
    return Data(path.stem, train, test, classes, bounds)


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as stream:
            _check_sizes(stream, path)
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as file:
                return {name: file[name] if name in _READ else np.zeros(0) for name in file.files}
    except InputError:
        raise
    except Exception as error:  # decompressors and damaged headers raise anything
        raise InputError(f"{path} cannot be read as .npz ({error}): write it with numpy.savez.") from error


def _check_sizes(stream: BinaryIO, path: Path) -> None:
    """Raise InputError, before reading, if headers claim another size than the archive, or more than memory holds."""
    total = 0
    with zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            if member.filename.removesuffix(".npy") not in _READ:
                continue
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, _, dtype = header[version](file) if version in header else ((), False, np.dtype(object))
                begins = file.tell()
            if dtype.hasobject:
                raise InputError(f"{path} holds Python objects, which are not loaded: save plain number arrays.")
            total += (size := math.prod(shape) * dtype.itemsize)
            if size != member.file_size - begins:
                raise InputError(
                    f"{member.filename} of {path} claims {in_words(size)} (shape {shape}), but the file holds "
                    f"{in_words(member.file_size - begins)} of it: write it again."
                )
    check_memory(total, f"The arrays of {path}", "give fewer examples, or 8-bit images")


def _bounds(arrays: Mapping[str, np.ndarray], shape: tuple[int, ...], path: Path) -> Bounds:
    if "low" not in arrays and "high" not in arrays:
        return (0.0, 1.0)
    if "low" not in arrays or "high" not in arrays:
        raise InputError(f"{path} holds only one of low and high: give both.")
    low, high = arrays["low"], arrays["high"]
    for name, limit in (("low", low), ("high", high)):
        if limit.dtype.kind not in "fiub":
            raise InputError(f"{name} of {path} is of type {limit.dtype}, but must be real numbers.")
        if limit.ndim and limit.shape != shape:
            raise InputError(f"{name} of {path} has shape {limit.shape}, but an example has shape {shape}.")
    if not bool(np.all(low <= high)):
        raise InputError(f"low exceeds high in {path}, or is NaN: the bounds must hold at least one value.")
    if low.ndim == 0 and high.ndim == 0:
        return (float(low), float(high))
    tensors = [torch.from_numpy(np.broadcast_to(limit, shape).astype(np.float32)) for limit in (low, high)]
    return (tensors[0], tensors[1])


NPZ: Form = Form(
    "an .npz file",
    "an .npz file (x_train, y_train, x_test, y_test)",
    fits=lambda place: Path(place).is_file() and Path(place).suffix == ".npz",
    load=lambda place, name, choice: load_npz(Path(place)),
    remedy=(
        "its arrays go by the names x_train, y_train, x_test, y_test (or x, y), so rename or resize them in the file"
    ),
)
