"""Wide residual networks, the usual large models of the field."""

import math
from typing import ClassVar

from torch import Tensor, nn

from unperturbed.architectures.normalise import normalise_inputs
from unperturbed.architectures.parts import activation_named, check_image_shape, keeps_arguments
from unperturbed.errors import InputError
from unperturbed.types import Inputs, Logits


class _Block(nn.Module):
    forward_mode: ClassVar[bool] = True

    def __init__(self, channels: int, width: int, stride: int, dropout: float, activation: str) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.activation = activation_named(activation)
        # the odd spelling is that of the public checkpoints
        self.convShortcut: nn.Conv2d | None = None
        if channels != width:
            self.convShortcut = nn.Conv2d(channels, width, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.activation(self.bn1(x))
        shortcut: Tensor = x if self.convShortcut is None else self.convShortcut(h)
        h = self.dropout(self.activation(self.bn2(self.conv1(h))))
        h = self.conv2(h)
        return h + shortcut


class _Stage(nn.Module):
    forward_mode: ClassVar[bool] = True

    def __init__(self, channels: int, width: int, stride: int, blocks: int, dropout: float, activation: str) -> None:
        super().__init__()
        rest = (_Block(width, width, 1, dropout, activation) for _ in range(blocks - 1))
        self.layer = nn.Sequential(_Block(channels, width, stride, dropout, activation), *rest)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.layer(x)
        return h


@keeps_arguments
class WideResNet(nn.Module):
    """Wide residual network WRN-`depth`-`width`, for small images (WRN-28-10 by default).

    Three stages of (depth - 4) / 6 blocks with 16, 32 and 64 times `width` channels (Zagoruyko & Komodakis, 2016,
    https://arxiv.org/abs/1605.07146); `dropout` is the probability between a block's convolutions. Maps
    (n, *input_shape) to logits (n, classes). Weights are named and started as in TRADES, so that its checkpoints, and
    RobustBench's of that architecture, load. Raises `InputError` on a depth that is not 6k + 4, a dropout outside
    [0, 1), an unknown activation, a size below 1, or inputs that are not images.
    """

    name: ClassVar[str] = "wide-resnet"
    forward_mode: ClassVar[bool] = True

    def __init__(
        self,
        input_shape: tuple[int, ...] = (3, 32, 32),
        classes: int = 10,
        mean: tuple[float, ...] = (0.0,),
        std: tuple[float, ...] = (1.0,),
        depth: int = 28,
        width: int = 10,
        dropout: float = 0.0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        shape = check_image_shape(input_shape)
        if depth < 10 or (depth - 4) % 6:
            raise InputError(f"wide-resnet has no depth {depth}: it must be 6k + 4, such as 10, 16, 28, 34 or 70")
        blocks = (depth - 4) // 6
        self.normalise = normalise_inputs(shape, mean, std)
        self.conv1 = nn.Conv2d(shape[0], 16, 3, padding=1, bias=False)
        self.block1 = _Stage(16, 16 * width, 1, blocks, dropout, activation)
        self.block2 = _Stage(16 * width, 32 * width, 2, blocks, dropout, activation)
        self.block3 = _Stage(32 * width, 64 * width, 2, blocks, dropout, activation)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.activation = activation_named(activation)
        self.fc = nn.Linear(64 * width, classes)
        self.apply(_start)

    def forward(self, x: Inputs) -> Logits:
        """Return the logits."""
        h: Tensor = self.conv1(self.normalise(x))
        h = self.block3(self.block2(self.block1(h)))
        h = self.activation(self.bn1(h)).mean((2, 3))
        logits: Tensor = self.fc(h)
        return logits


def _start(module: nn.Module) -> None:
    """Draw convolutions with variance 2 / fan-out; the last bias starts at zero."""
    if isinstance(module, nn.Conv2d):
        fan_out = module.out_channels * math.prod(module.kernel_size)
        nn.init.normal_(module.weight, 0.0, math.sqrt(2 / fan_out))
    elif isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
