"""A network that fits the data: its shape and numbers from the data, its weights from the seed."""

import pytest
import torch

import unperturbed as un
from unperturbed.data.split import Data, array_split


def test_images_get_a_small_cnn_and_vectors_an_mlp() -> None:
    digits = un.load_data("digits")
    model = un.model_for(digits, width=3)
    assert isinstance(model, un.architectures.SmallCNN) and model(digits.train.x[:2]).shape == (2, 10)
    split = array_split(torch.rand(8, 5), torch.arange(8) % 3)
    vectors = un.model_for(Data("vectors", split, split, ("a", "b", "c")))
    assert isinstance(vectors, un.architectures.MLP) and vectors(split.x).shape == (8, 3)


def test_the_first_layer_normalises_the_training_data() -> None:
    digits = un.load_data("digits")
    normalised = un.model_for(digits).get_submodule("normalise")(digits.train.x)
    assert abs(float(normalised.mean())) < 1e-4 and abs(float(normalised.std()) - 1) < 1e-3


def test_weights_follow_the_seed_and_nothing_else() -> None:
    digits, before = un.load_data("digits"), torch.get_rng_state()
    first, again, other = (un.model_for(digits, seed=seed).get_parameter("layers.0.weight") for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_unknown_names_and_options_are_refused() -> None:
    digits = un.load_data("digits")
    with pytest.raises(un.InputError, match="small-cn"):
        un.model_for(digits, "small-cn")
    with pytest.raises(un.InputError, match="widht"):
        un.model_for(digits, widht=3)
