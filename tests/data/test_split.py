import numpy as np
import pytest
import torch

from unperturbed.data.split import array_split, hold_out, number_classes, select
from unperturbed.errors import InputError


def test_eight_bit_images_become_nchw_in_the_unit_interval() -> None:
    pixels = np.arange(2 * 5 * 4 * 3, dtype=np.uint8).reshape(2, 5, 4, 3)
    split = array_split(pixels, [0, 1])
    assert split.shape == (3, 5, 4)
    x = split.inputs(torch.tensor([1]))
    assert x.dtype == torch.float32
    torch.testing.assert_close(x[0], torch.from_numpy(pixels[1].transpose(2, 0, 1) / 255).float())


def test_eight_bit_images_stay_eight_bit_in_memory() -> None:
    split = array_split(np.zeros((2, 8, 8), dtype=np.uint8), [0, 1])
    assert split.eight_bit and split.stored.dtype == torch.uint8  # type: ignore[attr-defined]
    assert split.shape == (1, 8, 8)


def test_channels_first_images_are_left_alone() -> None:
    assert array_split(np.zeros((2, 3, 3, 3), dtype=np.uint8), [0, 1]).shape == (3, 3, 3)
    assert array_split(torch.zeros(2, 1, 3, 3, dtype=torch.uint8), [0, 1]).shape == (1, 3, 3)


def test_eight_bit_vectors_are_numbers_not_images() -> None:
    split = array_split(np.array([[0, 1], [1, 1]], dtype=np.uint8), [0, 1])
    assert split.inputs(torch.arange(2)).tolist() == [[0.0, 1.0], [1.0, 1.0]]
    assert not split.eight_bit


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, bool])
def test_other_numbers_become_float32(dtype: type) -> None:
    assert array_split(np.ones((3, 2), dtype=dtype), [0, 1, 0]).inputs(torch.arange(3)).dtype == torch.float32


def test_labels_may_be_a_column() -> None:
    assert array_split(np.ones((2, 1)), np.array([[1], [0]], dtype=np.uint8)).labels.tolist() == [1, 0]


def test_the_callers_array_is_neither_changed_nor_needs_to_be_writable() -> None:
    x = np.ones((3, 2), dtype=np.float32)
    x.flags.writeable = False
    split = array_split(x, [0, 1, 0])
    split.inputs(torch.arange(3)).zero_()
    assert (x == 1).all() and bool((split.inputs(torch.arange(3)) == 1).all())


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((3, 2)), [0, 1], "3 inputs and 2 labels"),
        (np.ones((2, 2)), [0.5, 1.0], "not integers"),
        (np.ones((2, 2)), torch.tensor([1.0, 0.0]), "not integers"),
        (np.ones((2, 2)), [[0, 1], [1, 0]], "argmax"),
        (np.ones((2, 2)), ["cat", "dog"], "number the classes from 0"),
        (np.array([["a"], ["b"]]), [0, 1], "must be numbers"),
        (np.ones((0, 2)), [], "not integers"),
        (np.ones((0, 2)), np.zeros(0, dtype=int), "no examples"),
        (3.0, [0], "float"),
        ([[1.0], [1.0, 2.0]], [0, 1], "no array"),
    ],
)
def test_what_is_no_data_is_refused(x: object, y: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        array_split(x, y)


def test_select_has_positions_of_its_own_and_nests() -> None:
    split = array_split(np.arange(10.0)[:, None], np.arange(10))
    some = select(select(split, torch.tensor([7, 3, 5])), torch.tensor([2, 0]))
    assert len(some) == 2 and some.shape == (1,)
    assert some.labels.tolist() == [5, 7]
    assert some.inputs(torch.tensor([1, 0])).tolist() == [[7.0], [5.0]]


@pytest.mark.parametrize("wrong", [-1, 10])
def test_select_refuses_positions_that_are_not_there(wrong: int) -> None:
    with pytest.raises(InputError, match="there are 10"):
        select(array_split(np.ones((10, 1)), np.arange(10)), torch.tensor([0, wrong]))


def test_hold_out_divides_every_class_and_always_in_the_same_way() -> None:
    labels = torch.tensor([0] * 50 + [1] * 20 + [0] * 50)
    train, test = hold_out(labels, 0.2)
    assert sorted(train.tolist() + test.tolist()) == list(range(120))
    assert torch.bincount(labels[test]).tolist() == [20, 4]
    assert train.tolist() == sorted(train.tolist()) and test.tolist() == sorted(test.tolist())
    assert torch.equal(hold_out(labels, 0.2)[1], test)
    assert (test[:20] != torch.arange(20)).any()  # drawn, not the first ones


def test_classes_without_names_are_numbered_to_the_largest_label_of_any_split() -> None:
    train, test = array_split(np.ones((2, 1)), [0, 1]), array_split(np.ones((1, 1)), [3])
    assert number_classes(train, test) == ("0", "1", "2", "3")
    assert number_classes(train, None) == ("0", "1")
