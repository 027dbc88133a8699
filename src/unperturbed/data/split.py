"""A split: labelled examples in file order, by random access; and the forms of data in memory that become one."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unperturbed.errors import InputError
from unperturbed.noise import Noise
from unperturbed.reading import check_memory
from unperturbed.types import Bounds, Inputs, Labels, Rows

MOST_CLASSES = 100_000
"""The largest number of classes that labels may imply: every class gets a name, and a logit of networks."""
LONGEST_CLASS = 500
"""Characters of a class name."""


class Split(ABC):
    """Labelled examples in file order, by random access.

    `split[3]` is one example and its label, `split[10:20]` or `split[ids]` is a split, `split.x` and `split.y` are all
    inputs and labels as tensors.

    Attributes:
        shape: of one example; images are (channels, height, width).
        labels: all of them, int64, on the CPU.
        eight_bit: whether the inputs are 8-bit images divided by 255, hence finite and within [0, 1] unread.
        in_memory: whether the examples are in memory, so that prefetching has no benefit.
        notes: warnings for every result on these examples, such as the way of their selection.
    """

    shape: tuple[int, ...]
    labels: Labels
    eight_bit: bool = False
    in_memory: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        kinds = len(torch.unique(self.labels))
        size = "x".join(map(str, self.shape))
        return f"{type(self).__name__}({len(self):,} examples of {size}, {kinds} classes)"

    @property
    def x(self) -> Inputs:
        """All inputs, float32 of shape (n, *shape); read again at every access if memory does not hold them.

        Raises InputError if they exceed the memory.
        """
        size = 4 * len(self) * math.prod(self.shape)
        check_memory(size, f"The inputs of {self!r}", "take a part, such as split[:1000].x")
        return self.inputs(torch.arange(len(self)))

    @property
    def y(self) -> Labels:
        """All labels, int64."""
        return self.labels

    def __getitem__(self, key: Any) -> Any:
        """Return an example and its label, or the split of a slice, a list of positions or a mask.

        Raises:
            IndexError: for positions out of range.
            InputError: for keys of other types.
        """
        ids = torch.arange(len(self))
        if isinstance(key, int | np.integer) and not isinstance(key, bool):
            position = ids[int(key)]
            return self.inputs(position[None])[0], int(self.labels[position])
        try:
            positions = ids[key if isinstance(key, slice) else torch.as_tensor(key)]
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{key!r:.80} is no position: give a whole number, a slice, or a list of them.") from error
        return select(self, positions.reshape(-1))

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        """Yield every example with its label."""
        return (self[i] for i in range(len(self)))

    def names(self) -> Rows:
        """Return the ids of the examples for results and random numbers, the same in every selection.

        An id is the position in the original split.
        """
        return torch.arange(len(self))

    @abstractmethod
    def inputs(self, ids: Rows) -> Inputs:
        """Return the examples at these positions, float32 of shape (len(ids), *shape), on the CPU."""

    def read(self, ids: Rows) -> None:  # noqa: B027
        """Decode the examples at these positions, if the split keeps them; damaged examples raise here."""


class ArraySplit(Split):
    """Examples in memory; 8-bit images stay 8-bit and are divided by 255 at access."""

    in_memory = True

    def __init__(self, stored: Tensor, labels: Labels) -> None:
        self.stored, self.labels = stored, labels
        self.shape = tuple(stored.shape[1:])
        self.eight_bit = stored.dtype == torch.uint8

    def inputs(self, ids: Rows) -> Inputs:
        """Return the examples at these positions, float32 of shape (len(ids), *shape)."""
        x = self.stored[ids]
        return x.float().div_(255) if self.eight_bit else x


class SelectedSplit(Split):
    """Some examples of another split, with new positions."""

    def __init__(self, split: Split, ids: Rows, notes: tuple[str, ...] = ()) -> None:
        self.split, self.ids, self.notes = split, ids, notes
        self.shape, self.eight_bit, self.in_memory = split.shape, split.eight_bit, split.in_memory
        self.labels = split.labels[ids]

    def names(self) -> Rows:
        """Return the positions in the original split."""
        return self.split.names()[self.ids]

    def inputs(self, ids: Rows) -> Inputs:
        """Return the examples at these positions, float32 of shape (len(ids), *shape)."""
        return self.split.inputs(self.ids[ids])

    def read(self, ids: Rows) -> None:
        """Decode the examples at these positions."""
        self.split.read(self.ids[ids])


@dataclass(frozen=True, eq=False)
class Data:
    """A dataset: the training and test splits, the names of the classes, and the bounds of inputs."""

    name: str
    train: Split
    test: Split | None
    classes: tuple[str, ...]
    bounds: Bounds = (0.0, 1.0)
    place: str | None = None
    """The argument for `load_data`, valid in any folder; None if it was built otherwise."""
    features: tuple[str, ...] | None = None
    """Names of the features of a table, in their order."""

    def __repr__(self) -> str:
        """Return a line with its name and sizes."""
        tested = "no test split" if self.test is None else f"{len(self.test):,} test"
        size = "x".join(map(str, self.train.shape))
        return f"Data({self.name!r}: {len(self.train):,} training and {tested}, {size}, {len(self.classes)} classes)"


def select(split: Split, ids: Rows) -> Split:
    """Return the examples at these positions as a new split, at positions 0 to len(ids) - 1."""
    if len(ids) and not (0 <= int(ids.min()) and int(ids.max()) < len(split)):
        raise InputError(f"Examples {int(ids.min())} to {int(ids.max())} were requested, but there are {len(split)}.")
    return SelectedSplit(split, ids, split.notes)


def hold_out(labels: Labels, share: float) -> tuple[Tensor, Tensor]:
    """Return the remaining and the held-out positions: `share` of every class, always the same."""
    order = Noise.of(0, torch.arange(len(labels))).uniform((1,)).flatten().argsort()
    out = torch.zeros(len(labels), dtype=torch.bool)
    for label in torch.unique(labels):
        members = order[labels[order] == label]
        out[members[: round(share * len(members))]] = True
    return (~out).nonzero().flatten(), out.nonzero().flatten()


def number_classes(*splits: Split | None) -> tuple[str, ...]:
    """Return the default names of classes: "0" to the largest label.

    Raises InputError for labels that are negative, or too large for class numbers.
    """
    labels = [s.labels for s in splits if s is not None]
    least, highest = min(int(y.min()) for y in labels), max(int(y.max()) for y in labels)
    if least < 0 or highest >= MOST_CLASSES:
        raise InputError(
            f"Labels range from {least} to {highest}, but must be class numbers from 0 to at most {MOST_CLASSES - 1}: "
            "number the classes from 0, for instance by numpy.unique(labels, return_inverse=True)."
        )
    return tuple(str(k) for k in range(1 + highest))


def array_split(x: object, y: object) -> Split:
    """Return arrays or tensors (n, ...) and (n,) as a split.

    8-bit arrays are images, (n, h, w), (n, h, w, c) or (n, c, h, w) with 1 or 3 channels, and become NCHW in [0, 1];
    other arrays become float32. Raises InputError for labels that are not integers, and for unequal lengths.
    """
    inputs, labels = as_inputs(_array(x, "inputs")), as_labels(_array(y, "labels"))
    if len(inputs) != len(labels):
        raise InputError(f"There are {len(inputs)} inputs and {len(labels)} labels: give one label for each input.")
    if len(inputs) == 0:
        raise InputError("The data holds no examples: give at least one.")
    if inputs.ndim < 2 or 0 in inputs.shape:
        raise InputError(
            f"The inputs have shape {tuple(inputs.shape)}, but need one dimension or more for an example, none of them "
            "empty: x[:, None] makes vectors of single numbers."
        )
    return ArraySplit(inputs, labels)


def named_labels(*labels: Any) -> tuple[list[Labels], tuple[str, ...]] | None:
    """Return text labels as class numbers, and the names in alphabetical order; None for numeric labels.

    Raises InputError for a mixture of texts and other labels.
    """
    arrays = [np.asarray(y) if not isinstance(y, Tensor) else np.zeros(0) for y in labels]
    texts = [a.size > 0 and any(isinstance(value, str) for value in a.flat[:1000]) for a in arrays]
    if not any(texts):
        return None
    if not all(texts) or not all(isinstance(value, str) for a in arrays for value in a.flat):
        raise InputError("Some labels are texts and others are not: give all of them as texts, or as class numbers.")
    distinct = {value for a in arrays for value in a.flat}
    if len(distinct) > MOST_CLASSES:
        raise InputError(f"The labels are {len(distinct):,} different texts, but at most {MOST_CLASSES:,} classes fit.")
    names = tuple(sorted(map(str, distinct)))
    if (length := max(map(len, names))) > LONGEST_CLASS:
        raise InputError(
            f"A label is a text of {length:,} characters, but a class has at most {LONGEST_CLASS} to name it."
        )
    codes = {name: code for code, name in enumerate(names)}
    return [torch.tensor([codes[str(value)] for value in a.flat], dtype=torch.int64) for a in arrays], names


def as_inputs(x: "np.ndarray | Tensor") -> Tensor:
    """Return inputs as 8-bit NCHW images or as float32, without a copy if possible."""
    if isinstance(x, np.ndarray):
        if x.dtype.kind not in "fiub":
            raise InputError(f"The inputs are of type {x.dtype}, but must be numbers: convert them to float32.")
        x = torch.from_numpy(
            np.require(x if x.dtype == np.uint8 else x.astype(np.float32, copy=False), None, ("C", "W"))
        )
    check_dense(x, "inputs")
    x = x.detach().cpu()
    return _channels_first(x) if x.dtype == torch.uint8 and x.ndim > 2 else x.float()


def check_dense(values: Tensor, role: str) -> None:
    """Raise InputError for a sparse, nested, quantised, meta or complex tensor."""
    if values.layout != torch.strided or values.is_nested or values.is_quantized or values.device.type == "meta":
        raise InputError(
            f"The {role} are a sparse, nested, quantised or meta tensor: give an ordinary one (x.to_dense())."
        )
    if values.is_complex():
        raise InputError(f"The {role} are of type {values.dtype}, but must be real numbers.")


def as_labels(y: "np.ndarray | Tensor", role: str = "labels") -> Labels:
    """Return labels (or other integers, by `role`) as int64 of shape (n,); a trailing dimension of 1 is dropped."""
    values = (
        torch.from_numpy(np.require(y, y.dtype.newbyteorder("="), ("C", "W")))
        if isinstance(y, np.ndarray) and y.dtype.kind in "fiub"
        else y
    )
    if not isinstance(values, Tensor):
        raise InputError(
            f"The {role} are of type {values.dtype} (first: {values.flat[0] if values.size else ''!r}), but must be "
            "integers: number the classes from 0, by numpy.unique(labels, return_inverse=True)[1]."
        )
    check_dense(values, role)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        shape = tuple(values.shape)
        raise InputError(f"The {role} have shape {shape}, but must be one integer an example: y.argmax(1) of one-hot.")
    if values.is_floating_point():
        first = values[0].item() if len(values) else ""
        raise InputError(f"The {role} are {values.dtype} (first: {first}), not integers: convert them to int64.")
    return values.detach().cpu().long()


def _array(values: object, role: str) -> "np.ndarray | Tensor":
    if isinstance(values, Tensor):
        if values.ndim == 0:
            raise InputError(f"The {role} are a single number, {values!r:.80}: give a tensor of shape (n, ...).")
        return values
    if np.ma.isMaskedArray(values):
        if (hidden := int(np.ma.getmaskarray(values).sum())) > 0:
            raise InputError(f"The {role} are a masked array with {hidden} masked values: fill them in, or leave out.")
        values = np.ma.getdata(values)
    try:
        if isinstance(values, list | tuple) and values and all(isinstance(value, Tensor) for value in values):
            return torch.stack([value.detach() for value in values])
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"The {role} are no array: {error}. Give a NumPy array or a tensor.") from error
    if array.ndim == 0:
        raise InputError(f"The {role} are a {type(values).__name__}: give a NumPy array or a tensor.")
    return array


def _channels_first(images: Tensor) -> Tensor:
    """Return 8-bit images as NCHW, from any order."""
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        return images.permute(0, 3, 1, 2).contiguous()
    return images
