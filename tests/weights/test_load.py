"""Models by name and import path, and what they return."""

import sys
from collections import OrderedDict, namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from unperturbed.architectures.mlp import MLP
from unperturbed.errors import InputError
from unperturbed.runs import BEST, CONFIG, write_yaml
from unperturbed.weights.files import LogitsOnly, as_classifier, build_model, output_logits, save_weights
from unperturbed.weights.rebuild import load_run

USER_MODULE = """
import torch

class Plain(torch.nn.Module):
    def __init__(self, input_shape, classes, mean=None, width=4):
        super().__init__()
        self.seen = (input_shape, classes, mean, width)
        self.layer = torch.nn.Linear(input_shape[0], classes)
    def forward(self, x):
        return self.layer(x)

class Outer:
    class Inner(Plain):
        pass

def make(**options):
    model = torch.nn.Linear(2, 2)
    model.options = options
    return model

def broken(depth):
    raise ValueError("a fault of its own")

def wrong():
    return "no module"

built = torch.nn.Linear(2, 2)
"""


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "users_models.py").write_text(USER_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "users_models"
    sys.modules.pop("users_models", None)


def build(spec: str, **arguments: object) -> nn.Module:
    return build_model(spec, arguments, (29,), 3, (0.5,), (2.0,))


def test_a_run_folder_gives_its_network_with_the_best_weights(tmp_path: Path) -> None:
    made, rows = build("mlp", hidden=[8]), torch.rand(5, 29)
    described = {"class_path": "mlp", "init_args": {"input_shape": [29], "classes": 3, "mean": [0.5], "std": [2.0]}}
    described["init_args"] |= {"hidden": [8], "activation": "relu"}
    with pytest.raises(InputError, match="is no run folder"):
        load_run(tmp_path)
    write_yaml(tmp_path / CONFIG, {"model": described, "threat": "Linf:0.1", "bounds": None})
    save_weights(made, tmp_path / BEST)
    model = load_run(tmp_path)
    assert not model.training and torch.equal(model(rows), made.eval()(rows))
    write_yaml(tmp_path / CONFIG, {"threat": "Linf:0.1", "bounds": None})
    with pytest.raises(InputError, match="has no specification of its network: build it, and load_weights"):
        load_run(str(tmp_path))


def test_a_file_in_place_of_a_module_is_told() -> None:
    with pytest.raises(InputError, match="name the module, not its file: nets.mine:Net"):
        build("nets/mine.py:Net")


def test_a_name_is_built_for_the_data() -> None:
    model = build("mlp", hidden=[8])
    assert isinstance(model, MLP)
    assert model(torch.rand(2, 29)).shape == (2, 3)
    assert model.normalise.mean.tolist() == [0.5] * 29 and model.normalise.std.tolist() == [2.0] * 29
    assert model.layers[1].out_features == 8


def test_given_arguments_win_over_the_data() -> None:
    model = build("mlp", mean=(0.0,), classes=5)
    assert model.normalise.mean.tolist() == [0.0] * 29
    assert model(torch.rand(2, 29)).shape == (2, 5)


@pytest.mark.parametrize("path", ["{}:Plain", "{}.Plain", "{}:Outer.Inner"])
def test_a_users_class_gets_what_its_signature_names(user_module: str, path: str) -> None:
    assert build(path.format(user_module), width=6).seen == ((29,), 3, (0.5,), 6)


def test_a_function_with_open_keywords_gets_the_users_arguments_alone(user_module: str) -> None:
    assert build(f"{user_module}:make", depth=3).options == {"depth": 3}


@pytest.mark.parametrize(
    ("spec", "arguments", "told"),
    [
        ("smal-cnn", {}, "Did you mean 'small-cnn'?"),
        ("zzz", {}, "Known are: mlp, preact-resnet, small-cnn, wide-resnet"),
        ("no_such_package.models:Net", {}, "cannot import 'no_such_package.models'"),
        ("users_models:Plane", {}, "has no 'Plane'. Did you mean 'Plain'?"),
        (":Net", {}, "cannot import ''"),
        ("users_models:built", {}, "is a Linear: name a class"),
        ("users_models:wrong", {}, "returned a str"),
        ("users_models:broken", {}, "missing a required argument: 'depth'"),
        ("users_models:Plain", {"widht": 3}, "has no argument 'widht'. Did you mean 'width'?"),
        ("mlp", {"depth": 3}, "Known are: activation, classes, hidden, input_shape, mean, std"),
    ],
)
def test_what_cannot_be_built_is_told(user_module: str, spec: str, arguments: dict[str, object], told: str) -> None:
    with pytest.raises(InputError) as error:
        build(spec, **arguments)
    assert told in str(error.value)


def test_a_fault_within_the_users_code_is_named_with_its_place(user_module: str) -> None:
    with pytest.raises(InputError, match=rf"ValueError: a fault of its own at {user_module}\.py:\d+") as error:
        build(f"{user_module}:broken", depth=1)
    assert isinstance(error.value.__cause__, ValueError)


LOGITS = torch.arange(6.0).view(2, 3)


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        (LOGITS, "latent"),
        [LOGITS],
        ((LOGITS, "latent"), "input"),
        SimpleNamespace(logits=LOGITS, loss=None),
        OrderedDict(loss=None, logits=LOGITS),
        namedtuple("Output", "loss logits")(None, LOGITS),
    ],
    ids=lambda output: type(output).__name__,
)
def test_logits_are_found(output: object) -> None:
    assert output_logits(output) is LOGITS


@pytest.mark.parametrize("output", [None, (), {"loss": LOGITS}, "text"])
def test_outputs_without_logits_are_refused(output: object) -> None:
    with pytest.raises(InputError, match=type(output).__name__):
        output_logits(output)


class Returns(nn.Module):
    """A linear model with dropout, batch norm and a counter, whose output is dressed up."""

    def __init__(self, dress: object) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(4), nn.Linear(4, 3))
        self.layers[0].eval()
        self.register_buffer("calls", torch.zeros(()))
        self.dress = dress

    def forward(self, x: Tensor) -> object:
        self.calls += 1
        torch.rand(1)
        return self.dress(self.layers(x))


def test_a_model_of_tensors_is_returned_as_it_is() -> None:
    model = Returns(lambda logits: logits)
    assert as_classifier(model, torch.rand(2, 4)) is model


@pytest.mark.parametrize("dress", [lambda z: (z, 1), lambda z: SimpleNamespace(logits=z)])
def test_a_model_of_anything_else_is_wrapped(dress: object) -> None:
    model = Returns(dress).eval()
    classifier = as_classifier(model, torch.rand(2, 4))
    assert isinstance(classifier, LogitsOnly) and classifier.module is model
    x = torch.rand(5, 4)
    torch.testing.assert_close(classifier(x), model.layers(x))


@pytest.mark.parametrize("fails", [False, True])
def test_the_trial_leaves_no_trace(fails: bool) -> None:
    model = Returns(lambda z: z @ z if fails else z)
    model.layers.eval()
    model.train(True)
    model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    if fails:
        with pytest.raises(InputError, match=r"fails on an input of shape \(1, 4\)"):
            as_classifier(model, torch.rand(2, 4, generator=torch.Generator()))
    else:
        as_classifier(model, torch.rand(2, 4, generator=torch.Generator()))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize(
    ("dress", "told"),
    [
        (lambda z: z.flatten(), "(3,)"),
        (lambda z: z[..., None], "(1, 3, 1)"),
        (lambda z: z.argmax(1, keepdim=True), "int64"),
        (lambda z: None, "NoneType"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(dress: object, told: str) -> None:
    with pytest.raises(InputError) as error:
        as_classifier(Returns(dress), torch.rand(2, 4))
    assert told in str(error.value)
