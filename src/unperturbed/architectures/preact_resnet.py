"""Pre-activation residual networks, for images of about 32x32 pixels."""

from typing import ClassVar

from torch import Tensor, nn

from unperturbed.architectures.normalise import normalise_inputs
from unperturbed.architectures.parts import activation_named, check_image_shape, keeps_arguments
from unperturbed.errors import InputError
from unperturbed.types import Inputs, Logits

_BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 26: (3, 3, 3, 3), 34: (3, 4, 6, 3)}


class _Block(nn.Module):
    forward_mode: ClassVar[bool] = True

    def __init__(self, channels: int, width: int, stride: int, activation: str) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.activation = activation_named(activation)
        self.shortcut: nn.Sequential | None = None
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride=stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.activation(self.bn1(x))
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(h)
        h = self.conv2(self.activation(self.bn2(self.conv1(h))))
        return h + shortcut


@keeps_arguments
class PreActResNet(nn.Module):
    """Pre-activation residual network of basic blocks, for small images (PreActResNet-18 by default).

    A 3x3 stem without pooling, then four stages of `width`, 2, 4 and 8 `width` channels (He et al., 2016,
    https://arxiv.org/abs/1603.05027). `depth` counts the layers: 10, 18 and 26 have 1, 2 and 3 blocks a stage, 34 has
    3, 4, 6 and 3. Maps (n, *input_shape) to logits (n, classes). Weights are named as in the public CIFAR code that
    ends in a batch norm, so that its checkpoints load. Raises `InputError` on another depth, an unknown activation, a
    size below 1, or inputs that are not images.
    """

    name: ClassVar[str] = "preact-resnet"
    forward_mode: ClassVar[bool] = True

    def __init__(
        self,
        input_shape: tuple[int, ...] = (3, 32, 32),
        classes: int = 10,
        mean: tuple[float, ...] = (0.0,),
        std: tuple[float, ...] = (1.0,),
        depth: int = 18,
        width: int = 64,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        shape = check_image_shape(input_shape)
        if depth not in _BLOCKS:
            raise InputError(f"preact-resnet has no depth {depth}: choose one of {', '.join(map(str, _BLOCKS))}")
        self.normalise = normalise_inputs(shape, mean, std)
        self.conv1 = nn.Conv2d(shape[0], width, 3, padding=1, bias=False)
        first, second, third, fourth = _BLOCKS[depth]
        self.layer1 = _stage(width, width, 1, first, activation)
        self.layer2 = _stage(width, 2 * width, 2, second, activation)
        self.layer3 = _stage(2 * width, 4 * width, 2, third, activation)
        self.layer4 = _stage(4 * width, 8 * width, 2, fourth, activation)
        self.bn = nn.BatchNorm2d(8 * width)
        self.activation = activation_named(activation)
        self.linear = nn.Linear(8 * width, classes)

    def forward(self, x: Inputs) -> Logits:
        """Return the logits."""
        h: Tensor = self.conv1(self.normalise(x))
        h = self.layer4(self.layer3(self.layer2(self.layer1(h))))
        h = self.activation(self.bn(h)).mean((2, 3))
        logits: Tensor = self.linear(h)
        return logits


def _stage(channels: int, width: int, stride: int, blocks: int, activation: str) -> nn.Sequential:
    rest = (_Block(width, width, 1, activation) for _ in range(blocks - 1))
    return nn.Sequential(_Block(channels, width, stride, activation), *rest)
