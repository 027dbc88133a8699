"""NumPy's .npz files."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from unperturbed.data.split import Data, array_split, number_classes
from unperturbed.errors import InputError
from unperturbed.types import Bounds

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
    train = array_split(arrays[names[0]], arrays[names[1]])
    test = array_split(arrays["x_test"], arrays["y_test"]) if "x_test" in arrays and "y_test" in arrays else None
    if test is not None and test.shape != train.shape:
        raise InputError(f"Examples of {path} have shape {train.shape} in training and {test.shape} in the test split.")
    return Data(path.stem, train, test, number_classes(train, test), _bounds(arrays, train.shape, path))


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return dict(file)
    except ValueError as error:
        raise InputError(f"{path} holds Python objects, which are not loaded: save plain number arrays.") from error
    except (zipfile.BadZipFile, OSError, EOFError, TypeError) as error:
        raise InputError(f"{path} cannot be read as .npz ({error}): write it with numpy.savez.") from error


def _bounds(arrays: Mapping[str, np.ndarray], shape: tuple[int, ...], path: Path) -> Bounds:
    if "low" not in arrays and "high" not in arrays:
        return (0.0, 1.0)
    if "low" not in arrays or "high" not in arrays:
        raise InputError(f"{path} holds only one of low and high: give both.")
    low, high = arrays["low"], arrays["high"]
    for name, limit in (("low", low), ("high", high)):
        if limit.ndim and limit.shape != shape:
            raise InputError(f"{name} of {path} has shape {limit.shape}, but an example has shape {shape}.")
    if not bool(np.all(low <= high)):
        raise InputError(f"low exceeds high in {path}, or is NaN: the bounds must hold at least one value.")
    if low.ndim == 0 and high.ndim == 0:
        return (float(low), float(high))
    tensors = [torch.from_numpy(np.broadcast_to(limit, shape).astype(np.float32)) for limit in (low, high)]
    return (tensors[0], tensors[1])
