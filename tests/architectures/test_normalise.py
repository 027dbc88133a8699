import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from unperturbed.architectures.normalise import Normalise, normalise_inputs
from unperturbed.errors import InputError


@given(
    channels=st.integers(1, 4),
    rest=st.lists(st.integers(1, 3), max_size=3),
    seed=st.integers(0, 2**16),
)
def test_every_channel_or_feature_is_shifted_and_scaled_by_its_own_numbers(
    channels: int, rest: list[int], seed: int
) -> None:
    torch.manual_seed(seed)
    mean, std = torch.randn(channels).tolist(), (torch.rand(channels) + 0.1).tolist()
    x = torch.randn(5, channels, *rest)
    z = Normalise(mean, std)(x)
    for c in range(channels):
        torch.testing.assert_close(z[:, c], (x[:, c] - mean[c]) / std[c])


def test_the_numbers_are_saved_with_the_weights() -> None:
    layer = Normalise((0.1, 0.2), (0.3, 0.4))
    assert {name: buffer.tolist() for name, buffer in layer.double().state_dict().items()} == {
        "mean": pytest.approx([0.1, 0.2]),
        "std": pytest.approx([0.3, 0.4]),
    }
    assert not list(layer.parameters())


def test_one_number_stands_for_all_channels() -> None:
    layer = normalise_inputs((3, 8, 8), (0.5,), (0.25,))
    assert layer.mean.tolist() == [0.5] * 3 and layer.std.tolist() == [0.25] * 3


@pytest.mark.parametrize(
    ("mean", "std", "told"),
    [
        ((0.0,), (0.0,), "std (0.0,)"),
        ((0.0,), (-1.0,), "not positive"),
        ((0.0,), (float("nan"),), "not positive"),
        ((float("inf"),), (1.0,), "mean (inf,)"),
        ((0.0, 0.0), (1.0,), "2 numbers and std 1"),
        ((), (), "mean has 0 numbers"),
    ],
)
def test_impossible_numbers_are_refused(mean: tuple[float, ...], std: tuple[float, ...], told: str) -> None:
    with pytest.raises(InputError) as error:
        Normalise(mean, std)
    assert told in str(error.value)


def test_numbers_for_other_channels_are_refused() -> None:
    with pytest.raises(InputError, match=r"mean has 3 numbers.*need 1 or 1"):
        normalise_inputs((1, 28, 28), (0.4, 0.5, 0.6), (1.0,))
