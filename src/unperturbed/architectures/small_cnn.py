"""A small convolutional network for digits and quick experiments."""

from typing import ClassVar

from torch import Tensor, nn

from unperturbed.architectures.normalise import normalise_inputs
from unperturbed.architectures.parts import activation_named, check_image_shape, keeps_arguments
from unperturbed.types import Inputs, Logits


@keeps_arguments
class SmallCNN(nn.Module):
    """Two strided convolutions and two linear layers, for small images.

    Convolutions of `width` and 2 `width` channels (4x4, stride 2), then 100 hidden units: the small network of Wong &
    Kolter (2018, https://arxiv.org/abs/1711.00851). Maps (n, *input_shape) to logits (n, classes). Raises `InputError`
    on images under 4x4 pixels, an unknown activation, or a size below 1.
    """

    name: ClassVar[str] = "small-cnn"
    forward_mode: ClassVar[bool] = True

    def __init__(
        self,
        input_shape: tuple[int, ...] = (1, 28, 28),
        classes: int = 10,
        mean: tuple[float, ...] = (0.0,),
        std: tuple[float, ...] = (1.0,),
        width: int = 16,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        channels, height, breadth = check_image_shape(input_shape, smallest=4)
        self.normalise = normalise_inputs((channels, height, breadth), mean, std)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1),
            activation_named(activation),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            activation_named(activation),
            nn.Flatten(),
            nn.Linear(2 * width * (height // 4) * (breadth // 4), 100),
            activation_named(activation),
            nn.Linear(100, classes),
        )

    def forward(self, x: Inputs) -> Logits:
        """Return the logits."""
        logits: Tensor = self.layers(self.normalise(x))
        return logits
