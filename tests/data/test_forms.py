"""Forms in which people hold examples and labels: each works, or is refused with what it is and what to do."""

import io
import os
import zipfile
import zlib
from pathlib import Path
from struct import pack
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from unperturbed.data.convert import as_data, as_split
from unperturbed.data.forms.npz import load_npz
from unperturbed.data.sources import load_data
from unperturbed.data.split import Data, array_split, number_classes
from unperturbed.errors import InputError

X = np.arange(6, dtype=np.float32).reshape(3, 2) / 10
Y = [0, 1, 2]


class Items(Dataset[Any]):
    def __init__(self, labels: list[Any], x: Any = None) -> None:
        self.labels, self.input = labels, X[0] if x is None else x

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Any:
        return self.input, self.labels[i]


LABELS = {
    "arrays of one": [np.array([y]) for y in Y],
    "columns of one": [np.array([[y]]) for y in Y],
    "arrays without dimension": [np.array(y) for y in Y],
    "numpy integers": [np.uint8(y) for y in Y],
    "tensors of one": [torch.tensor([y]) for y in Y],
    "tensors": [torch.tensor(y) for y in Y],
    "integers": Y,
}


@pytest.mark.parametrize("form", LABELS)
def test_a_label_may_come_in_any_form_of_one_integer(form: str) -> None:
    """NumPy from 2.4 on has no int(array of one): datasets such as MedMNIST's give their labels so."""
    assert as_split(Items(LABELS[form])).labels.tolist() == Y


def test_truth_values_are_classes_0_and_1() -> None:
    for labels in ([True, False], [np.bool_(True), np.bool_(False)], [torch.tensor(True), torch.tensor(False)]):
        assert as_split(Items(labels)).labels.tolist() == [1, 0]
    assert as_split((X[:2], np.array([True, False]))).labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    "label", [None, "cat", 0.5, float("nan"), np.array([0, 1]), torch.tensor([0.0, 1.0]), [1], {}, 10**30, 1j, b"1"]
)
def test_a_label_that_is_no_integer_is_refused_with_its_value(label: Any) -> None:
    with pytest.raises(InputError, match="label of example 0 is"):
        as_split(Items([label]))


@pytest.mark.parametrize("x", [None, "text", object(), [[1.0], [1.0, 2.0]], {}, np.array(["a"]), 1j, np.array([1j])])
def test_an_input_that_is_no_array_is_refused(x: Any) -> None:
    class One(Dataset[Any]):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, i: int) -> Any:
            return x, 0

    with pytest.raises(InputError, match=r"[Ee]xample 0"):
        as_split(One())


def masked(values: Any) -> Any:
    array = np.ma.masked_array(values, mask=False)
    array[1] = np.ma.masked
    return array


REFUSED = {
    "masked inputs": (masked(X.copy()), Y),
    "masked labels": (X, masked(np.array(Y))),
    "objects": (np.array([[None, 1]] * 3, dtype=object), Y),
    "labels as objects": (X, np.array([0, None, 2], dtype=object)),
    "one-hot labels": (X, np.eye(3, dtype=int)),
    "float labels": (X, np.array([0.0, 1.0, 2.0])),
    "labels without a number": (X, np.array([0, np.nan, 2])),
    "texts": (X, ["a", "b", "c"]),
    "no dimension of an example": (X[:, 0], Y),
    "an empty dimension": (X[:, :0], Y),
    "no examples": (X[:0], np.zeros(0, int)),
    "dates": (X.astype("datetime64[s]"), Y),
    "sparse": (torch.eye(3).to_sparse(), Y),
    "meta": (torch.empty(3, 2, device="meta"), Y),
    "sparse labels": (X, torch.eye(3)[0].long().to_sparse()),
    "a generator": ((x for x in X), Y),
    "labels from a generator": (X, (y for y in Y)),
    "a set of labels": (X, {0, 1, 2}),
    "nothing": (None, None),
    "tensors of several shapes": ([torch.ones(1), torch.ones(2)], [0, 1]),
    "a mapping": {"x": X, "y": Y},
    "an array alone": X,
    "a name": "digits",
    "none": None,
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_is_no_data_is_refused_in_words(form: str) -> None:
    with pytest.raises(InputError):
        as_split(REFUSED[form])


TAKEN = {
    "list of tensors": ([torch.tensor(x) for x in X], Y),
    "list of arrays": (list(X), [np.int64(y) for y in Y]),
    "tuple of tensors": (tuple(torch.tensor(x) for x in X), torch.tensor(Y)),
    "masked array without a mask": (np.ma.masked_array(X), np.ma.masked_array(Y)),
    "float64": (X.astype(np.float64), np.array(Y, np.uint64)),
    "bfloat16": (torch.tensor(X).bfloat16().float().bfloat16(), Y),
    "with a gradient": (torch.tensor(X, requires_grad=True), Y),
    "Fortran order": (np.asfortranarray(X), np.array([[0], [1], [2]])),
    "big endian": (X.astype(">f4"), np.array(Y, ">i8")),
    "reversed view": (X[::-1][::-1], np.array(Y[::-1])[::-1]),
}


@pytest.mark.parametrize("form", TAKEN)
def test_forms_that_are_taken(form: str) -> None:
    split = as_split(TAKEN[form])
    assert split.labels.tolist() == Y and split.labels.dtype == torch.int64 and split.x.dtype == torch.float32
    torch.testing.assert_close(split.x, torch.tensor(X), atol=2e-3, rtol=1e-2)


def test_a_dataset_that_raises_is_named_with_the_example() -> None:
    class Broken(Items):
        def __getitem__(self, i: int) -> Any:
            raise KeyError("file.png")

    with pytest.raises(InputError, match=r"Example 0 of the Broken cannot be read .*file\.png"):
        as_split(Broken([0]))


def test_texts_name_the_classes_alike_in_both_splits(tmp_path: Path) -> None:
    data = as_data((X, ["dog", "cat", "dog"]))
    assert data.classes == ("cat", "dog") and data.train.labels.tolist() == [1, 0, 1]
    data = as_data(((X, np.array(["dog", "emu", "dog"])), (X[:2], ["cat", "emu"])))
    assert data.classes == ("cat", "dog", "emu") and data.test is not None and data.test.labels.tolist() == [0, 2]
    np.savez(tmp_path / "named.npz", x_train=X, y_train=np.array(["b", "a", "b"]), x_test=X[:1], y_test=np.array(["b"]))
    data = load_npz(tmp_path / "named.npz")
    assert data.classes == ("a", "b") and data.train.labels.tolist() == [1, 0, 1]
    with pytest.raises(InputError, match="Some labels are texts"):
        as_data((X, np.array(["a", 1, "b"], dtype=object)))


@pytest.mark.parametrize("labels", [[0, 10**9], [0, -1], [-1, -1], [0, 2**62], [100_000, 0]])
def test_labels_that_are_no_class_numbers_fill_no_memory(labels: list[int]) -> None:
    with pytest.raises(InputError, match="number the classes from 0"):
        number_classes(array_split(X[:2], labels))


# In a notebook


def test_data_can_be_looked_at() -> None:
    data = Data("mine", array_split(X, Y), None, ("0", "1", "2"))
    assert repr(data) == "Data('mine': 3 training and no test split, 2, 3 classes)"
    assert repr(data.train) == "ArraySplit(3 examples of 2, 3 classes)"
    assert len(data.train) == 3 and data.train.y.tolist() == Y and torch.equal(data.train.x, torch.tensor(X))
    x, y = data.train[-1]
    assert torch.equal(x, torch.tensor(X[2])) and y == 2 and isinstance(y, int)
    assert [y for _, y in data.train] == Y and torch.equal(torch.stack([x for x, _ in data.train]), torch.tensor(X))
    for key in (slice(1, 3), [1, 2], np.array([1, 2]), torch.tensor([1, 2]), torch.tensor([False, True, True])):
        part = data.train[key]
        assert part.y.tolist() == [1, 2] and part.names().tolist() == [1, 2]
    with pytest.raises(IndexError):
        data.train[3]
    with pytest.raises(InputError, match="no position"):
        data.train["first"]  # type: ignore[index]


def test_eight_bit_images_are_seen_as_networks_see_them() -> None:
    split = array_split(np.full((2, 4, 4), 255, dtype=np.uint8), [0, 1])
    assert split.x.shape == (2, 1, 4, 4) and float(split.x.max()) == 1


def test_inputs_beyond_the_memory_are_not_made() -> None:
    split = array_split(torch.zeros(1, 1).expand(2, 1), [0, 1])
    split.shape = (2**50,)
    with pytest.raises(InputError, match="would take"):
        _ = split.x


# Files that claim more than they hold


def npy(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    stream = io.BytesIO()
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


@pytest.mark.parametrize("shape", [(2**40, 8), (2**62,), (2**31, 2**31), (1000,)])
def test_an_archive_that_claims_terabytes_is_refused_unread(shape: tuple[int, ...], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "big.npz", "w") as archive:
        archive.writestr("x.npy", npy(shape))
        archive.writestr("y.npy", npy((2,), "<i8") + bytes(16))
    with pytest.raises(InputError, match=r"x\.npy of .* claims"):
        load_npz(tmp_path / "big.npz")


def test_what_is_not_asked_for_in_an_archive_is_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "more.npz", "w") as archive:
        for name, array in (("x", X), ("y", np.array(Y))):
            stream = io.BytesIO()
            np.save(stream, array)
            archive.writestr(f"{name}.npy", stream.getvalue())
        archive.writestr("bomb.npy", npy((2**40,)))
    assert len(load_npz(tmp_path / "more.npz").train) == 3


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "whole.npz", x=np.random.default_rng(0).random((50, 4)), y=np.arange(50) % 2)
    whole, rng = (tmp_path / "whole.npz").read_bytes(), np.random.default_rng(0)
    for number in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(0, 256)
        path = tmp_path / f"{number}.npz"
        path.write_bytes(bytes(damaged))
        try:
            load_npz(path)
        except InputError as error:
            assert path.name in str(error) or "abels" in str(error) or "inputs" in str(error), error


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return pack(">I", len(body)) + kind + body + pack(">I", zlib.crc32(kind + body))

    header = pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(100_000, 100_000), (2**31 - 1, 2**31 - 1), (10_000, 10_000), (0, 5)])
def test_a_picture_that_claims_to_fill_the_memory_is_named_and_not_decoded(
    size: tuple[int, int], tmp_path: Path
) -> None:
    (tmp_path / "pictures/a").mkdir(parents=True)
    (tmp_path / "pictures/a/huge.png").write_bytes(png(*size))
    with pytest.raises(InputError, match=r"huge\.png"):
        load_data(str(tmp_path / "pictures"))


def test_a_damaged_picture_is_named_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "p/a").mkdir(parents=True)
    for k in range(6):
        Image.new("L", (8, 8), k).save(tmp_path / f"p/a/{k}.png")
    whole = (tmp_path / "p/a/3.png").read_bytes()
    (tmp_path / "p/a/3.png").write_bytes(whole[:-30])
    with pytest.warns(UserWarning, match="no train and test folders"), pytest.raises(InputError, match=r"a/3\.png"):
        data = load_data(str(tmp_path / "p"))
        _ = data.train.x, data.test and data.test.x


def test_what_is_no_file_or_folder_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/self").symlink_to(tmp_path / "deep")
    for name in ("pipe.npz", "loop", "deep"):
        with pytest.raises(InputError, match=name):
            load_data(str(tmp_path / name))
