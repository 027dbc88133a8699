"""A multi-layer perceptron for feature vectors."""

import math
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from unperturbed.architectures.normalise import normalise_inputs
from unperturbed.architectures.parts import activation_named, check_shape, keeps_arguments
from unperturbed.errors import InputError
from unperturbed.types import Inputs, Logits

_MOST_LAYERS = 1000


@keeps_arguments
class MLP(nn.Module):
    """Fully connected layers, for feature vectors; inputs of more dimensions are flattened.

    Maps (n, *input_shape) to logits (n, classes) through layers of `hidden` units. Raises `InputError` on an unknown
    activation or a size below 1.
    """

    name: ClassVar[str] = "mlp"
    forward_mode: ClassVar[bool] = True

    def __init__(
        self,
        input_shape: tuple[int, ...] = (29,),
        classes: int = 2,
        mean: tuple[float, ...] = (0.0,),
        std: tuple[float, ...] = (1.0,),
        hidden: tuple[int, ...] = (256, 256),
        activation: str = "relu",
    ) -> None:
        super().__init__()
        shape = check_shape(input_shape)
        if len(hidden) > _MOST_LAYERS:
            raise InputError(f"hidden has {len(hidden)} layers: give {_MOST_LAYERS} at most.")
        self.normalise = normalise_inputs(shape, mean, std)
        sizes = (math.prod(shape), *hidden)
        self.layers = nn.Sequential(nn.Flatten())
        for size, following in pairwise(sizes):
            self.layers.extend([nn.Linear(size, following), activation_named(activation)])
        self.layers.append(nn.Linear(sizes[-1], classes))

    def forward(self, x: Inputs) -> Logits:
        """Return the logits."""
        logits: Tensor = self.layers(self.normalise(x))
        return logits
