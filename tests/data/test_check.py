import numpy as np
import pytest
import torch

from unperturbed.data.check import check, mean_std, repeated, uneven_features
from unperturbed.data.split import Split, array_split
from unperturbed.errors import InputError
from unperturbed.types import Inputs, Rows


class Unread(Split):
    """8-bit images that must not be read."""

    eight_bit = True
    shape = (1, 2, 2)
    labels = torch.tensor([0, 1])

    def inputs(self, ids: Rows) -> Inputs:
        raise AssertionError("read")


def test_good_data_passes() -> None:
    split = array_split(np.random.default_rng(0).random((3000, 2)), np.arange(3000) % 3)
    check(split, (0.0, 1.0), 3)
    check(split, None, 3)
    check(split, (torch.zeros(2), torch.ones(2)), 3)


def test_rounding_at_the_bounds_passes() -> None:
    check(array_split([[1 + 5e-7, -5e-7]], [0]), (0.0, 1.0), 1)
    check(array_split([[1e6 + 0.5]], [0]), (0.0, 1e6), 1)
    with pytest.raises(InputError):
        check(array_split([[1 + 1e-5, 0.0]], [0]), (0.0, 1.0), 1)


def test_eight_bit_images_need_no_reading_within_wide_bounds_only() -> None:
    check(Unread(), (0.0, 1.0), 2)
    check(Unread(), None, 2)
    with pytest.raises(AssertionError, match="read"):
        check(Unread(), (0.0, 0.5), 2)


def test_missing_values_are_counted_in_all_blocks() -> None:
    x = np.zeros((3000, 2))
    x[7, 1], x[2500, 0] = np.nan, np.inf
    with pytest.raises(InputError, match=r"2 of 3000 inputs hold NaN or infinite values \(first: example 7, 2500\)"):
        check(array_split(x, np.zeros(3000, dtype=int)), (0.0, 1.0), 1)


def test_normalised_data_is_told_where_normalisation_belongs() -> None:
    x = np.zeros((3000, 2))
    x[2, 0], x[2999, 1] = -2.12, 2.64
    with pytest.raises(InputError, match=r"from -2.12 to 2.64, outside the bounds 0 to 1 \(2 of 3000.*in the model"):
        check(array_split(x, np.zeros(3000, dtype=int)), (0.0, 1.0), 1)


def test_undivided_pixels_are_told_to_be_divided() -> None:
    with pytest.raises(InputError, match="divide them by 255"):
        check(array_split(np.array([[0.0, 254.0]]), [0]), (0.0, 1.0), 1)


@pytest.mark.parametrize("values", [[0.5, 254.0], [18.0, 80.0]])
def test_other_numbers_are_not_called_pixels(values: list[float]) -> None:
    with pytest.raises(InputError, match="declare the bounds") as raised:
        check(array_split(np.array([values]), [0]), (0.0, 1.0), 1)
    assert "255" not in str(raised.value)


def test_bounds_of_each_feature_are_compared_with_that_feature() -> None:
    low, high = torch.tensor([0.0, 10.0]), torch.tensor([1.0, 20.0])
    check(array_split([[0.5, 15.0]], [0]), (low, high), 1)
    with pytest.raises(InputError, match="bounds of their features"):
        check(array_split([[15.0, 15.0]], [0]), (low, high), 1)
    with pytest.raises(InputError, match=r"bounds have shape \(2,\), but an example has shape \(3,\)"):
        check(array_split([[0.5, 15.0, 0.0]], [0]), (low, high), 1)


@pytest.mark.parametrize("labels", [[1, 2, 3], [0, -1, 2]])
def test_labels_out_of_range(labels: list[int]) -> None:
    message = f"from {min(labels)} to {max(labels)}, but with 3 classes they must be 0 to 2"
    with pytest.raises(InputError, match=message):
        check(array_split(np.ones((3, 1)), labels), (0.0, 1.0), 3)


def test_labels_of_another_type() -> None:
    split = array_split(np.ones((3, 1)), [0, 1, 2])
    split.labels = split.labels.float()
    with pytest.raises(InputError, match="not integers"):
        check(split, (0.0, 1.0), 3)


@pytest.mark.parametrize(("shape", "axes"), [((4,), (0,)), ((3, 5, 2), (0, 2, 3)), ((6, 2), (0, 1, 2))])
def test_mean_and_spread_are_numpys(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).normal(3, 2, (2500, *shape)).astype(np.float32)
    mean, std = mean_std(array_split(x, np.zeros(2500, dtype=int)))
    np.testing.assert_allclose(mean, np.atleast_1d(x.mean(axes, dtype=np.float64)), rtol=1e-9)
    np.testing.assert_allclose(std, np.atleast_1d(x.std(axes, dtype=np.float64)), rtol=1e-9)


def test_constant_features_are_not_magnified() -> None:
    assert mean_std(array_split([[0.1, 0.0, 1e-9], [0.1, 0.0, 3e-9]], [0, 1]))[1] == pytest.approx((1.0, 1.0, 1e-9))


def test_a_limit_is_spread_over_sorted_data() -> None:
    mean, _ = mean_std(array_split(np.arange(1000.0)[:, None], np.zeros(1000, dtype=int)), limit=10)
    assert mean == (450.0,)


def features(*widths: float, n: int = 200) -> Split:
    """Return vectors whose features are spread evenly over these widths."""
    return array_split(np.linspace(0, 1, n)[:, None] * np.array(widths), np.zeros(n, dtype=int))


def test_the_narrowest_and_the_widest_feature_are_named_from_a_ratio_of_100_on() -> None:
    uneven = uneven_features(features(1, 50_000, 0.5, 30))
    assert uneven is not None
    narrow, wide = uneven
    assert (narrow.index, narrow.low, narrow.high) == (2, 0.0, 0.5)
    assert (wide.index, wide.low, wide.high) == (1, 0.0, 50_000.0)
    assert uneven_features(features(1, 100.1)) is not None and uneven_features(features(1, 99)) is None


def test_constant_and_rarely_varying_features_and_images_are_not_uneven() -> None:
    split = features(1, 0)
    assert uneven_features(split) is None
    margin = np.zeros((200, 784))
    margin[:, 0], margin[:15, 1] = np.linspace(0, 1, 200), 1 / 255
    assert uneven_features(array_split(margin, np.zeros(200, dtype=int))) is None
    images = np.linspace(0, 1, 200)[:, None, None, None] * np.array([[[1e-3, 1.0]]])
    assert uneven_features(array_split(images.astype(np.float32), np.zeros(200, dtype=int))) is None


def test_examples_that_repeat_earlier_ones_are_counted() -> None:
    x = np.random.default_rng(0).random((10, 3))
    assert repeated(array_split(x, np.zeros(10, int))) == 0
    assert repeated(array_split(x[[0, 1, 0, 2, 1, 0]], np.arange(6))) == 3
    assert repeated(Unread()) == 0
