"""On a mismatch, the message names the architecture with all names and shapes of the file."""

from pathlib import Path

import pytest
import torch
from torch import nn

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
])  # fmt: skip
def test_the_message_names_the_network_of_the_file(model: nn.Module, options: str, tmp_path: Path) -> None:
    weights = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=f"are those of --model {options}"):
        load_weights(SmallCNN(), tmp_path / "w.pt")


def test_other_networks_are_not_named() -> None:
    changed = WideResNet(depth=10, width=1).state_dict() | {"extra.weight": torch.zeros(2)}
    for weights in (MLP((5,), 3).state_dict(), changed, {"conv1.weight": torch.zeros(2)}):
        assert belonging(weights, named_models()) == ""
