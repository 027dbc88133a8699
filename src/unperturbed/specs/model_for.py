"""Networks with the shape and classes of the data."""

import torch
from torch import nn

from unperturbed.checks import SEED, checked
from unperturbed.data.check import mean_std
from unperturbed.data.split import Data
from unperturbed.weights.files import build_model


@checked(seed=SEED)
def model_for(data: Data, name: str | None = None, *, seed: int = 0, **options: object) -> nn.Module:
    """Return a network for the data, with random weights, as `unperturbed train` does.

    The data give the network's `input_shape`, `classes`, `mean` and `std` where its constructor has arguments of these
    names. PyTorch's generator is restored.

    Args:
        data: from `load_data`.
        name: "small-cnn", "mlp", "preact-resnet" or "wide-resnet", a model of another library such as "timm:resnet18",
            or a class or function by import path, "package.module:Name"; None: "small-cnn" for images, "mlp" for
            vectors.
        seed: of the random weights.
        options: other arguments of the constructor, such as `width=16`.

    Raises:
        InputError: for an unknown name, option or value of an option.
    """
    shape = tuple(data.train.shape)
    mean, std = mean_std(data.train)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_model(
            name or ("small-cnn" if len(shape) == 3 else "mlp"), options, shape, len(data.classes), mean, std
        )
