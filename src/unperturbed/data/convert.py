"""Arrays, tensors, PyTorch datasets and pairs of them as a Split or as Data."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from unperturbed.data import pictures
from unperturbed.data.split import ArraySplit, Data, Split, array_split, as_inputs, named_labels, number_classes
from unperturbed.errors import InputError
from unperturbed.reading import check_memory
from unperturbed.types import Inputs, Labels, Rows

_FORMS = "give a Split, a pair (x, y) of arrays or tensors, or a PyTorch Dataset with a length and items (x, y)"


def as_split(data: object) -> Split:
    """Return data as a Split.

    Takes a Split (returned unchanged), a pair (x, y) of arrays or tensors, or a map-style PyTorch Dataset whose items
    are (x, y) tuples or dictionaries with one input and one integer. 8-bit images become float32 in [0, 1], float64
    becomes float32. A Dataset is read once, into memory if it fits: augmentation belongs in the recipe. Raises
    InputError for anything else.
    """
    if isinstance(data, Split):
        return data
    if isinstance(data, Data):
        raise InputError(f"This is {data!r}: give one of its splits, data.train or data.test.")
    if isinstance(data, str | bytes):
        raise InputError(f"The data is the text {data!r:.80}: load it first, by load_data({data!r:.80}).")
    if isinstance(data, TensorDataset):
        data = data.tensors
    if _holds_examples(data):
        return _dataset_split(data)
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return array_split(data[0], data[1])
    if isinstance(data, DataLoader):
        raise InputError("The data is a DataLoader, which gives no random access: pass its dataset (loader.dataset).")
    if np.ma.isMaskedArray(data):
        raise InputError(f"The data is a masked array: {_FORMS}.")
    if isinstance(data, IterableDataset) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise InputError(f"The data is of type {type(data).__name__}: {_FORMS}.")
    return _dataset_split(data)


def as_data(data: object, name: str = "data") -> Data:
    """Return data as a Data: from a Data, a form for `as_split`, or a pair (train, test) of such forms.

    Labels in pairs of arrays may be texts, which become the classes' names.
    """
    if isinstance(data, Data):
        return data
    labelled = None if _holds_examples(data) else _with_class_names(data)
    if labelled is not None:
        data, classes = labelled
        converted = as_data(data, name)
        return replace(converted, classes=classes)
    if isinstance(data, (tuple, list)) and len(data) == 2 and not _is_array(data[0]) and not _holds_examples(data):
        train, test = as_split(data[0]), as_split(data[1])
        if train.shape != test.shape:
            raise InputError(f"Examples have shape {train.shape} in training and {test.shape} in the test split.")
        return Data(name, train, test, number_classes(train, test))
    train = as_split(data)
    return Data(name, train, None, number_classes(train))


def _holds_examples(data: object) -> bool:
    """Tell a list of two examples, `[(x0, 0), (x1, 1)]`, from a pair of arrays or of splits: its labels are scalars."""

    def is_example(item: object) -> bool:
        if not isinstance(item, tuple | list) or len(item) != 2:
            return False
        x, y = item
        is_input = _is_input(x) or isinstance(x, list | tuple)
        return is_input and (isinstance(y, int | float | str) or getattr(y, "ndim", None) == 0)

    return isinstance(data, list | tuple) and len(data) == 2 and all(map(is_example, data))


def _with_class_names(data: object) -> tuple[object, tuple[str, ...]] | None:
    """Return one or two pairs (x, y) with class numbers instead of texts, and the classes' names."""
    if not isinstance(data, tuple | list) or len(data) != 2 or isinstance(data[1], Split | Dataset):
        return None
    if isinstance(data[0], tuple) and isinstance(data[1], tuple) and len(data[0]) == len(data[1]) == 2:
        classes = _texts(data[0][1], data[1][1])
        return None if classes is None else (((data[0][0], classes[0][0]), (data[1][0], classes[0][1])), classes[1])
    classes = _texts(data[1])
    return None if classes is None else ((data[0], classes[0][0]), classes[1])


def _texts(*labels: object) -> tuple[list[Labels], tuple[str, ...]] | None:
    try:
        return named_labels(*labels)
    except (ValueError, TypeError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        return None  # not an array: the next check raises


AGAIN = 4
"""Examples of a dataset that are read again, to see whether they change."""


class DatasetSplit(Split):
    """A PyTorch dataset too large for memory, read on demand."""

    def __init__(self, dataset: Any, shape: tuple[int, ...], labels: Labels, eight_bit: bool) -> None:
        self.dataset, self.shape, self.labels, self.eight_bit = dataset, shape, labels, eight_bit

    def inputs(self, ids: Rows) -> Inputs:
        """Return the examples at these positions, float32 of shape (len(ids), *shape)."""
        x = (
            torch.stack([_pair(_item(self.dataset, i), i)[0] for i in ids.tolist()])
            if len(ids)
            else torch.empty(0, *self.shape)
        )
        return x.float().div_(255) if self.eight_bit else x


def _is_array(value: object) -> bool:
    """Tell arrays and lists of values from splits, datasets and pairs."""
    nested = isinstance(value, (Split, tuple)) or isinstance(value, torch.utils.data.Dataset)
    return not nested


def _dataset_split(dataset: Any) -> Split:
    n = _length(dataset)
    if n == 0:
        raise InputError("The data holds no examples: give at least one.")
    first, _ = _pair(_item(dataset, 0), 0)
    shape, eight_bit = tuple(first.shape), first.dtype == torch.uint8
    check_memory(8 * n, f"The labels of {n:,} examples", "is the dataset's __len__ right?")
    labels = torch.empty(n, dtype=torch.int64)
    fits = n * math.prod(shape) * first.element_size() <= pictures.MEMORY_LIMIT
    inputs = torch.empty(n if fits else 0, *shape, dtype=first.dtype)
    for i in range(n):
        x, y = _pair(_item(dataset, i), i)
        if x.shape != first.shape or x.dtype != first.dtype:
            raise InputError(
                f"Example {i} is {x.dtype} of shape {tuple(x.shape)} and example 0 is {first.dtype} of shape {shape}: "
                "make all examples alike, for instance by resizing them."
            )
        labels[i] = y
        if fits:
            inputs[i] = x
    split = ArraySplit(inputs, labels) if fits else DatasetSplit(dataset, shape, labels, eight_bit)
    if fits and any(not _alike(_pair(_item(dataset, i), i)[0], inputs[i]) for i in range(min(n, AGAIN))):
        split.notes = (
            "The dataset returns other inputs at every reading (random augmentation?): results are of one reading, and "
            "no other one resumes them. Leave random transforms out; augmentation belongs in the recipe.",
        )
    return split


def _alike(first: Tensor, second: Tensor) -> bool:
    """Tell whether two inputs are equal; NaN equals NaN."""
    return torch.equal(first.nan_to_num(), second.nan_to_num())


def _length(dataset: Any) -> int:
    try:
        return len(dataset)
    except Exception as error:  # a user's dataset may raise anything, and Python raises for an invalid length
        kind = type(dataset).__name__
        raise InputError(
            f"The length of the {kind} cannot be read ({type(error).__name__}: {error}): mend its __len__, or {_FORMS}."
        ) from error


def _item(dataset: Any, i: int) -> Any:
    try:
        return dataset[i]
    except InputError:
        raise
    except Exception as error:  # a user's dataset may raise anything
        kind = type(dataset).__name__
        raise InputError(
            f"Example {i} of the {kind} cannot be read ({type(error).__name__}: {error}): mend its __getitem__, or "
            f"{_FORMS}."
        ) from error


def _pair(item: Any, i: int) -> tuple[Tensor, int]:
    """Return one item of a dataset as its input and its label."""
    if isinstance(item, Mapping):
        x, y = _only(item, _is_input, "input", i), _only(item, _is_label, "integer label", i)
    elif isinstance(item, (tuple, list)) and len(item) == 2:
        x, y = item
    else:
        raise InputError(f"Example {i} is of type {type(item).__name__}: items must be pairs (x, y) or dictionaries.")
    if not _is_label(y):
        hint = "give y.argmax() of one-hot labels" if getattr(y, "ndim", 0) else "number the classes from 0"
        raise InputError(f"The label of example {i} is {y!r:.80}, not an integer: {hint}.")
    label = int(y.reshape(-1)[0]) if isinstance(y, Tensor | np.ndarray) else int(y)
    if not -(2**63) <= label < 2**63:
        raise InputError(f"The label of example {i} is {label}: number the classes from 0.")
    try:
        return _input(x), label
    except (ValueError, TypeError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise InputError(f"Example {i}: {error}") from error
        raise InputError(f"The input of example {i} is a {type(x).__name__}, no array: give numbers.") from error


def _only(item: Mapping[str, Any], matches: Any, role: str, i: int) -> Any:
    keys = [key for key, value in item.items() if matches(value)]
    if len(keys) != 1:
        names = ", ".join(keys) or "none"
        raise InputError(f"Example {i} must hold exactly one {role}, but has {names} (keys: {', '.join(item)}).")
    return item[keys[0]]


def _is_input(value: Any) -> bool:
    return pictures.is_image(value) or (isinstance(value, (Tensor, np.ndarray)) and value.ndim > 0)


def _is_label(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_floating_point() and not value.is_complex()
    if isinstance(value, np.ndarray):
        return value.size == 1 and value.dtype.kind in "iub"
    return isinstance(value, (int, np.integer, np.bool_))


def _input(value: Any) -> Tensor:
    if pictures.is_image(value):
        return torch.from_numpy(pictures.pixels(value, "L" if value.mode in pictures.GREY else "RGB"))
    if np.ma.isMaskedArray(value) and bool(np.ma.getmaskarray(value).any()):
        raise InputError("the input is a masked array with masked values: fill them in, or leave the example out.")
    return as_inputs((value if isinstance(value, Tensor) else np.asarray(value))[None])[0]
