"""Programs of torch.export and TorchScript as models, and texts of libraries that are not installed."""

import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import unperturbed as un
from unperturbed.architectures.libraries.base import LibraryModel, normalisation, size_of
from unperturbed.cli.main import main
from unperturbed.errors import InputError
from unperturbed.imports import OWN, Trust
from unperturbed.runs.record import ModelSpec
from unperturbed.specs.trees import Tree, choose
from unperturbed.weights.files import build_model, save_weights
from unperturbed.weights.rebuild import build_from

SHAPE = (1, 8, 8)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(36, 10)
    ).eval()


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("programs") / "network.pt")
    with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated
        torch.jit.trace(network(), torch.rand(2, *SHAPE)).save(path)  # type: ignore[no-untyped-call]
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of a program for batches of any size."""
    path, batch = str(tmp_path_factory.mktemp("programs") / "network.pt2"), torch.export.Dim.DYNAMIC
    program = torch.export.export(network(), (torch.rand(2, *SHAPE),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return path


KINDS = pytest.mark.parametrize("kind", [pytest.param("exported", marks=pytest.mark.slow), "traced"])
"""To export a program, or to load one, takes seconds."""


@KINDS
def test_a_program_has_the_logits_and_gradients_of_its_network(kind: str, request: pytest.FixtureRequest) -> None:
    model = build_model(request.getfixturevalue(kind), {}, SHAPE, 10, (0.5,), (1.0,))
    assert isinstance(model, LibraryModel) and model.trained and model.evaluation_only
    x = torch.rand(5, *SHAPE, requires_grad=True)
    ours, theirs = model.train()(x), network()(x)  # the program stays in the mode that it was written in
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(logits[:, 3].sum(), x)[0] for logits in (ours, theirs)))


@pytest.mark.long
@pytest.mark.slow
@KINDS
def test_a_program_is_evaluated_as_its_network(kind: str, request: pytest.FixtureRequest) -> None:
    x = torch.rand(12, *SHAPE)
    y, threat = network()(x).argmax(1), un.Threat("Linf", 0.02)
    model = build_model(request.getfixturevalue(kind), {}, SHAPE, 10, (0.0,), (1.0,))
    ours, theirs = (un.evaluate(net, (x, y), threat, suite="APGD-CE") for net in (model, network()))
    assert ours.counts == theirs.counts and ours.clean_accuracy.value == 1


def test_a_program_is_not_trained(traced: str) -> None:
    data = un.load_data("digits")
    model = un.model_for(data, traced)
    with pytest.raises(InputError, match="evaluated but not trained"):
        un.train(model, data, un.Threat("Linf", 0.1), recipe=un.Recipe(epochs=1))


def test_a_normalisation_is_put_before_a_program(traced: str) -> None:
    model = build_model(traced, {"normalise": "0.5,0.25"}, SHAPE, 10, (0.0,), (1.0,))
    x = torch.rand(3, *SHAPE)
    torch.testing.assert_close(model(x), network()((x - 0.5) / 0.25))


def test_a_second_normalisation_is_refused(traced: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ("--model", traced, "--data", "digits", "--out", str(tmp_path / "out"), "--normalise", "0.5,0.25")
    assert main(["evaluate", *words]) == 2
    assert "give --model.normalise in place of --normalise" in capsys.readouterr().err


def test_weights_are_no_program(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "weights.pt")
    save_weights(network(), tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match="holds no program: give weights as --weights"):
        build_model(str(tmp_path / "weights.pt"), {}, SHAPE, 10, (0.0,), (1.0,))
    with pytest.raises(InputError, match="There is no file"):
        build_model(str(tmp_path / "absent.pt2"), {}, SHAPE, 10, (0.0,), (1.0,))


def test_a_broken_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.pt2"
    path.write_bytes(bytes(200))
    with pytest.raises(InputError, match="is no program"):
        build_model(str(path), {}, SHAPE, 10, (0.0,), (1.0,))


@pytest.mark.parametrize(
    "text", ["network.pt2", "hf-hub:owner/name", "local-dir:folder", "transformers:owner/name", "timm:hf_hub:a/b"]
)
def test_a_file_does_not_lead_to_the_hub_or_to_programs(text: str) -> None:
    with pytest.raises(InputError, match="stands in a file"):
        build_from(ModelSpec(text, {"input_shape": [3, 8, 8], "classes": 2}), "the model", Trust())
    with pytest.raises(InputError, match="stands in a file"):
        choose(Tree.of(text), "architectures", "model", trust=Trust())
    choose(Tree.of(text), "architectures", "model", filled=("input_shape", "classes"), trust=OWN)


@pytest.mark.parametrize(
    ("text", "module", "extra"),
    [
        ("timm:resnet18", "timm", "vision"),
        ("torchvision:resnet18", "torchvision", "vision"),
        ("transformers:vit", "transformers", "transformers"),
    ],
)
def test_an_absent_library_names_its_extra(
    text: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    if module == "torchvision":
        monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(InputError, match=rf"needs {module}.*pip install 'unperturbed\[{extra}\]'"):
        build_model(text, {}, (3, 8, 8), 10, (0.0,), (1.0,))
    assert main(["train", "--data", "digits", "--model", text, "--epochs", "1"]) == 2
    assert f"unperturbed[{extra}]" in capsys.readouterr().err


def test_vectors_are_no_images() -> None:
    pytest.importorskip("timm")
    with pytest.raises(InputError, match="takes images, but inputs have the shape"):
        build_model("timm:resnet18", {}, (29,), 10, (0.0,), (1.0,))


def test_normalisations() -> None:
    stated = (0.1, 0.2, 0.3, 0.5, 0.6, 0.7)
    assert normalisation(None, stated, 3).mean.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert normalisation(None, stated, 1).std.tolist() == pytest.approx([0.6])
    assert normalisation("none", stated, 2).mean.tolist() == [0.0, 0.0]
    assert normalisation((0.5, 0.25), stated, 3).std.tolist() == [0.25] * 3
    for wrong in ("0.1,0.2,0.3", (0.1, 0.1, 1.0, 1.0)):
        with pytest.raises(InputError, match="normalise is"):
            normalisation(wrong, stated, 3)


def test_sizes() -> None:
    assert size_of(None, (7, 9)) == (7, 9) and size_of(5, (7, 9)) == (5, 5)
    assert size_of([5, 6], (7, 9)) == size_of("5,6", (7, 9)) == (5, 6)
    for wrong in (0, "5", "a,b", [5, 6, 7]):
        with pytest.raises(InputError, match="image_size is"):
            size_of(wrong, (7, 9))


def test_models_of_libraries_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("timm:resnet18", "torchvision:", "transformers:FOLDER", "hf-hub:", ".pt2"))
