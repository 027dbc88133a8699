from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from unperturbed.data import pictures
from unperturbed.data.convert import DatasetSplit, as_data, as_split
from unperturbed.data.split import ArraySplit, Data, array_split
from unperturbed.errors import InputError

IDS = torch.tensor([2, 0])


class Items(Dataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.items[i]


class Long(Items):
    """A dataset whose length is what `__len__` of the user's makes of it."""

    def __init__(self, length: Any) -> None:
        super().__init__([(torch.ones(1), 0)] * 2)
        self.length = length

    def __len__(self) -> int:
        if isinstance(self.length, Exception):
            raise self.length
        return self.length  # type: ignore[no-any-return]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([(torch.ones(1), 0)])


def tuples() -> Items:
    return Items([(torch.full((2,), float(i)), i) for i in range(3)])


def test_a_split_stays_what_it_is() -> None:
    split = array_split(np.ones((2, 1)), [0, 1])
    assert as_split(split) is split


def test_pairs_of_lists_arrays_and_tensors() -> None:
    for x in ([[1.0], [2.0], [3.0]], np.array([[1.0], [2.0], [3.0]]), torch.tensor([[1.0], [2.0], [3.0]])):
        assert as_split((x, [0, 1, 0])).inputs(IDS).tolist() == [[3.0], [1.0]]


@pytest.mark.parametrize("limit", [2**30, 0])
def test_datasets_give_the_same_in_memory_and_streamed(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MEMORY_LIMIT", limit)
    dictionaries = Items([{"id": f"row {i}", "label": np.int64(i), "features": np.full(2, i)} for i in range(3)])
    for dataset in (tuples(), dictionaries):
        split = as_split(dataset)
        assert isinstance(split, ArraySplit if limit else DatasetSplit)
        assert split.labels.tolist() == [0, 1, 2] and split.shape == (2,)
        assert split.inputs(IDS).tolist() == [[2.0, 2.0], [0.0, 0.0]]
        assert split.inputs(IDS[:0]).shape == (0, 2)


@pytest.mark.parametrize("limit", [2**30, 0])
def test_datasets_of_pictures(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MEMORY_LIMIT", limit)
    split = as_split(Items([{"image": Image.new("RGB", (4, 2), (51 * i, 0, 255)), "label": i} for i in range(3)]))
    assert split.shape == (3, 2, 4)
    x = split.inputs(IDS)
    torch.testing.assert_close(x[0], torch.tensor([0.4, 0.0, 1.0])[:, None, None].expand(3, 2, 4))


def test_a_tensor_dataset_is_taken_whole() -> None:
    assert as_split(TensorDataset(torch.ones(2, 3), torch.tensor([1, 0]))).labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DataLoader(tuples()), "loader.dataset"),
        (Stream(), "type Stream"),
        (7, "type int"),
        (Items([]), "no examples"),
        (Long(OSError("disk gone")), r"length of the Long cannot be read \(OSError: disk gone\): mend its __len__"),
        (Long(-1), "mend its __len__"),
        (Long("many"), "mend its __len__"),
        (Long(2**62), "__len__ right"),
        (Long(3), "Example 2 of the Long cannot be read"),
        (Items([(torch.ones(1), 0, 0)] * 2), "pairs"),
        (Items([(torch.ones(1), 0.5)] * 2), "0.5"),
        (Items([(torch.ones(1), 0), (torch.ones(2), 0)]), r"shape \(2,\)"),
        (Items([{"a": torch.ones(1), "b": torch.ones(1), "label": 0}]), "exactly one input, but has a, b"),
        (Items([{"a": torch.ones(1), "coarse": 1, "fine": 0}]), "exactly one integer label, but has coarse, fine"),
    ],
)
def test_what_gives_no_examples_is_refused(data: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_split(data)


def test_as_data_tells_one_split_from_two() -> None:
    x, y = np.ones((2, 3)), [0, 1]
    assert as_data((x, y)).test is None
    assert as_data([x.tolist(), y]).test is None
    data = as_data(((x, y), (np.ones((1, 3)), [2])), "mine")
    assert data.test is not None and len(data.test) == 1
    assert data.classes == ("0", "1", "2") and data.name == "mine" and data.bounds == (0.0, 1.0)
    assert as_data(data) is data
    assert as_data((tuples(), tuples())).test is not None
    assert isinstance(as_data(as_split((x, y))), Data)


def test_splits_of_different_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(3,\) in training and \(4,\)"):
        as_data(((np.ones((2, 3)), [0, 1]), (np.ones((2, 4)), [0, 1])))


class Augmented(Items):
    def __getitem__(self, i: int) -> Any:
        return torch.rand(2), i


def test_a_dataset_that_changes_with_every_reading_is_told() -> None:
    assert as_split(tuples()).notes == ()
    assert as_split(Items([(torch.tensor([0.5, torch.nan]), 0)])).notes == ()
    (text,) = as_split(Augmented([0, 1, 2])).notes
    assert "other inputs at every reading" in text


@pytest.mark.parametrize("label", [int, np.int64, torch.tensor])
def test_a_list_of_two_examples_is_one_set_of_data_and_no_pair_of_arrays(label: Any) -> None:
    """A list of three examples was one already."""
    x = torch.rand(2, 4)
    data = [(x[0], label(0)), (x[1], label(1))]
    for split in (as_split(data), as_data(data).train):
        assert torch.equal(split.inputs(torch.arange(2)), x) and split.labels.tolist() == [0, 1]
    assert as_data(data).test is None


def test_pairs_of_arrays_and_of_splits_are_no_lists_of_examples() -> None:
    assert as_split(([[0.1], [0.2]], [0, 1])).shape == (1,)
    x, y = np.ones((2, 3)), [0, 1]
    both = as_data(((x, y), (x[:1], y[:1])))
    assert both.test is not None and (len(both.train), len(both.test)) == (2, 1)
    with pytest.raises(InputError, match="label of example 0 is 'a', not an integer"):
        as_data([(torch.rand(4), "a"), (torch.rand(4), "b")])
