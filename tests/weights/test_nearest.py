"""On a mismatch, the message names the architecture of the file, or the nearest one by its shapes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unperturbed.architectures.mlp import MLP
from unperturbed.architectures.preact_resnet import PreActResNet
from unperturbed.architectures.small_cnn import SmallCNN
from unperturbed.architectures.wide_resnet import WideResNet
from unperturbed.errors import InputError
from unperturbed.weights.files import load_weights, named_models
from unperturbed.weights.nearest import belonging


@pytest.mark.parametrize(("model", "options"), [
    (WideResNet(depth=16, width=2, classes=3), "wide-resnet --model.depth 16 --model.width 2, for 3 channels and 3 "),
    (PreActResNet((1, 28, 28), depth=10, width=4), "preact-resnet --model.depth 10 --model.width 4, for 1 channel and"),
    (SmallCNN((3, 32, 32), 7, width=4), "small-cnn --model.width 4, for 3 channels and 7 classes"),
    (MLP((5,), 3, hidden=(8, 6)), r"mlp --model.hidden \[8,6\], for 5 features and 3 classes"),
])  # fmt: skip
def test_the_message_names_the_network_of_the_file(model: nn.Module, options: str, tmp_path: Path) -> None:
    weights = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=f"are those of --model {options}"):
        load_weights(SmallCNN(), tmp_path / "w.pt")


def test_other_networks_are_not_named() -> None:
    for weights in ({f"{name}.weight": torch.zeros(9, 9) for name in "qkv"}, {"conv1.weight": torch.zeros(2)}):
        assert belonging(weights, named_models()) == ""


@pytest.mark.slow
def test_the_nearest_network_is_named_as_another_one() -> None:
    """The post-activation ResNet-18 of the CIFAR code shares the convolutions of the pre-activation one."""
    nearest = belonging(post_activation_resnet(8), named_models())
    assert "No network of this package has these names and shapes" in nearest
    assert "preact-resnet --model.depth 18 --model.width 8, for 3 channels and 10 classes" in nearest
    assert "of the 102 shapes in the file, 90 are among its 90" in nearest and "package.module:Class" in nearest
    changed = WideResNet(depth=10, width=1).state_dict() | {"extra.weight": torch.zeros(2)}
    assert "nearest is --model wide-resnet --model.depth 10 --model.width 1" in belonging(changed, named_models())


def post_activation_resnet(width: int) -> dict[str, Tensor]:
    """Return weights with the names and shapes of the ResNet-18 of TRADES, MART and others."""
    roles = ("weight", "bias", "running_mean", "running_var")
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (width, 3, 3, 3)}
    shapes |= {f"bn1.{role}": (width,) for role in roles}
    before = width
    for stage in (1, 2, 3, 4):
        channels = width * 2 ** (stage - 1)
        for block in (0, 1):
            place = f"layer{stage}.{block}"
            for part, inputs in ((1, before), (2, channels)):
                shapes[f"{place}.conv{part}.weight"] = (channels, inputs, 3, 3)
                shapes |= {f"{place}.bn{part}.{role}": (channels,) for role in roles}
            if before != channels:
                shapes[f"{place}.shortcut.0.weight"] = (channels, before, 1, 1)
                shapes |= {f"{place}.shortcut.1.{role}": (channels,) for role in roles}
            before = channels
    shapes |= {"linear.weight": (10, before), "linear.bias": (10,)}
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


@pytest.mark.slow
def test_residual_networks_of_torchvision_are_named() -> None:
    weights = {"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.weight": torch.zeros(10, 512)}
    for stage, blocks in zip((1, 2, 3, 4), (3, 4, 6, 3), strict=True):
        weights |= {f"layer{stage}.{block}.conv1.weight": torch.zeros(64, 64, 3, 3) for block in range(blocks)}
    assert "--model torchvision:resnet34, or timm:resnet34" in belonging(weights, named_models())
    deeper = weights | {"layer1.0.conv3.weight": torch.zeros(256, 64, 1, 1)}
    assert "torchvision:resnet50" in belonging(deeper, named_models())
    assert "torchvision" not in belonging(weights | {"conv1.weight": torch.zeros(64, 3, 3, 3)}, named_models())
