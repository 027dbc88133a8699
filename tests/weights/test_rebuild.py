"""A run folder gives back the network that was trained, or says that it cannot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from unperturbed.architectures.mlp import MLP
from unperturbed.architectures.preact_resnet import PreActResNet
from unperturbed.architectures.small_cnn import SmallCNN
from unperturbed.architectures.wide_resnet import WideResNet
from unperturbed.errors import InputError
from unperturbed.imports import Trust
from unperturbed.reading import free_memory, memory
from unperturbed.runs import BEST, CONFIG
from unperturbed.runs.record import SCHEMA, ModelSpec, RunRecord, plain
from unperturbed.weights.files import build_model, save_weights
from unperturbed.weights.rebuild import architecture, build_from, load_run, network_of, spec_of

BUILT: list[Callable[[], nn.Module]] = [
    lambda: SmallCNN((1, 8, 8), activation="softplus", width=3),
    lambda: MLP((5,), 4, (0.1,) * 5, (2.0,), hidden=(3, 2), activation="silu"),
    lambda: PreActResNet(depth=10, width=2, classes=3),
    lambda: WideResNet((3, 8, 8), depth=10, width=1, dropout=0.5),
]


@pytest.mark.parametrize("build", BUILT)
def test_arguments_from_python_build_the_same_network(build: Callable[[], nn.Module]) -> None:
    model = build()
    spec = spec_of(model)
    assert spec is not None
    arguments = yaml.safe_load(yaml.safe_dump(plain(spec)))["init_args"]
    again = build_model(spec.class_path, arguments, (), 0, (), ())
    again.load_state_dict(model.state_dict())
    x = torch.rand(2, *arguments["input_shape"])
    assert torch.equal(again.eval()(x), model.eval()(x)) and architecture(again) == architecture(model)


def test_to_look_at_a_network_draws_no_random_numbers() -> None:
    model = SmallCNN()
    before = torch.get_rng_state()
    spec_of(model)
    assert torch.equal(torch.get_rng_state(), before)


class Derived(SmallCNN):
    pass


def test_what_was_changed_or_derived_is_not_known() -> None:
    model = SmallCNN()
    model.layers[1] = nn.Softplus()
    assert spec_of(model) is None and spec_of(Derived()) is None and spec_of(nn.Linear(2, 2)) is None


class Own(nn.Module):
    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels, self.calls, self.layer = levels, 0, nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        logits: torch.Tensor = self.layer((x * self.levels).round() / self.levels)
        return logits


def test_networks_with_weights_of_the_same_shapes_are_told_apart() -> None:
    relu, softplus = SmallCNN(), SmallCNN(activation="softplus")
    assert architecture(relu) == architecture(SmallCNN(mean=(0.5,))) != architecture(softplus)  # normalised otherwise
    assert architecture(nn.Dropout(0.1)) != architecture(nn.Dropout(0.2))
    used, fresh = Own(3), Own(3)
    used(torch.rand(1, 2))
    assert architecture(used) == architecture(fresh) != architecture(Own(4))


def folder(path: Path, network: nn.Module, **changes: Any) -> None:
    save_weights(network, path / BEST)
    record = RunRecord("Linf:0.1", None, model=spec_of(network), network=network_of(network), schema=SCHEMA)
    (path / CONFIG).write_text(yaml.safe_dump(record.plain() | changes))


def test_a_run_of_another_activation_is_not_rebuilt(tmp_path: Path) -> None:
    model = MLP((5,), hidden=(3,), activation="softplus")
    folder(tmp_path, model)
    x = torch.rand(3, 5)
    assert torch.equal(load_run(tmp_path)(x), model.eval()(x))
    given = {"input_shape": [5], "classes": 2, "mean": [0.0], "std": [1.0], "hidden": [3], "activation": "relu"}
    folder(tmp_path, model, model={"class_path": "mlp", "init_args": given})
    with pytest.raises(InputError, match="another network than the unperturbed.architectures.mlp.MLP"):
        load_run(tmp_path)
    folder(tmp_path, Own(3))
    with pytest.raises(InputError, match="has no specification of its network"):
        load_run(tmp_path)


def test_the_code_of_a_folder_runs_where_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("UNPERTURBED_TRUST", raising=False)
    folder(tmp_path, Own(3), model={"class_path": f"{__name__}:Own", "init_args": {"levels": 3}})
    with pytest.raises(InputError, match="trust=True"):
        load_run(tmp_path)
    assert isinstance(load_run(tmp_path, trust=True), Own)
    monkeypatch.setenv("UNPERTURBED_TRUST", "1")
    assert isinstance(load_run(tmp_path), Own)
    monkeypatch.delenv("UNPERTURBED_TRUST")
    (tmp_path / "home/unperturbed").mkdir(parents=True)
    (tmp_path / "home/unperturbed/trusted").write_text(f"{tmp_path.parent}\n")
    assert isinstance(load_run(tmp_path), Own)


def test_a_network_beyond_the_memory_is_refused_before_its_memory_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer alone can be reserved; a system that promises more than it has would end the process."""
    monkeypatch.setattr("unperturbed.reading.memory", lambda: 2**22)
    arguments = {"input_shape": [4], "classes": 2, "mean": [0.0], "std": [1.0]}
    with pytest.raises(InputError, match="weights of the model mlp would take 4.*smaller sizes"):
        build_from(ModelSpec("mlp", arguments | {"hidden": [512] * 8}), "config.yaml", Trust())
    build_from(ModelSpec("mlp", arguments | {"hidden": [512] * 3}), "config.yaml", Trust())


def test_a_layer_beyond_the_free_memory_is_refused_before_it_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unperturbed.weights.files.LARGE", 2**10)
    monkeypatch.setattr("unperturbed.weights.files.free_memory", lambda: 2**20)
    arguments = {"input_shape": [4], "classes": 2, "mean": [0.0], "std": [1.0]}
    with pytest.raises(InputError, match="would take 4 MiB of memory, but 1 MiB are free"):
        build_from(ModelSpec("mlp", arguments | {"hidden": [1024] * 2}), "config.yaml", Trust())
    build_from(ModelSpec("mlp", arguments | {"hidden": [256] * 2}), "config.yaml", Trust())
    assert 0 < free_memory() <= memory()
