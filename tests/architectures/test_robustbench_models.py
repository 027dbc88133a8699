"""Architectures of RobustBench's zoo, with a small zoo in its form in place of the package."""

import sys
from collections import OrderedDict
from enum import Enum
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from unperturbed.architectures.by_name import needs_trust
from unperturbed.architectures.libraries.base import LibraryModel
from unperturbed.errors import InputError
from unperturbed.weights.files import build_model, load_weights

TEXT = "robustbench:cifar10/Linf/Small2020"


class Small(nn.Module):
    """A network of the zoo: its normalisation is a pair of buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 10))
        self.register_buffer("mu", torch.full((1, 3, 1, 1), 0.5))
        self.register_buffer("sigma", torch.full((1, 3, 1, 1), 0.25))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.body((x - self.mu) / self.sigma)
        return logits


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    data, threats = Enum("Data", {"cifar_10": "cifar10"}), Enum("Threats", {"Linf": "Linf"})
    models = OrderedDict(
        Small2020={"model": Small, "gdrive_id": "an id"}, Ensemble2021={"model": Small, "gdrive_id": ["a", "b"]}
    )
    module = ModuleType("robustbench.model_zoo.models")
    module.model_dicts = {data.cifar_10: {threats.Linf: models}}  # type: ignore[attr-defined]
    for name in ("robustbench", "robustbench.model_zoo"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)


def made(text: str = TEXT, classes: int = 10) -> LibraryModel:
    model = build_model(text, {}, (3, 4, 4), classes, (0.3,), (0.2,))
    assert isinstance(model, LibraryModel)
    return model.eval()


def test_a_checkpoint_of_the_zoo_gives_the_zoos_logits(zoo: None, tmp_path: Path) -> None:
    """With its own normalisation, once, and with names behind a wrapper."""
    network, x = Small(), torch.rand(5, 3, 4, 4)
    network.get_buffer("mu").fill_(0.4)
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in network.state_dict().items()}}, tmp_path / "w"
    )
    model = made()
    report = load_weights(model, tmp_path / "w")
    assert torch.equal(model(x), network(x)) and len(report.loaded) == 4
    assert not needs_trust(TEXT, ()) and needs_trust("robustbench:../x", ())


def test_a_checkpoint_without_the_normalisation_keeps_that_of_the_architecture(zoo: None, tmp_path: Path) -> None:
    network, x = Small(), torch.rand(5, 3, 4, 4)
    torch.save({name: value for name, value in network.state_dict().items() if "body" in name}, tmp_path / "w")
    model = made()
    load_weights(model, tmp_path / "w")
    assert torch.equal(model(x), network(x))


@pytest.mark.parametrize(
    ("text", "classes", "part"),
    [
        ("robustbench:cifar10/Linf/Smal2020", 10, "Did you mean 'cifar10/Linf/Small2020'"),
        (TEXT, 7, "has 10 classes, but the data have 7"),
        ("robustbench:cifar10/Linf/Ensemble2021", 10, "is an ensemble"),
    ],
)
def test_what_the_zoo_does_not_have_is_said(zoo: None, text: str, classes: int, part: str) -> None:
    with pytest.raises(InputError, match=part):
        made(text, classes)


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "robustbench", None)
    with pytest.raises(InputError, match="needs robustbench, which cannot be imported .*pip install git"):
        made()
