"""Models of timm, torchvision and transformers by name: logits, own normalisation and size, records, weights."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

import unperturbed as un
from unperturbed.architectures.libraries.base import LibraryModel
from unperturbed.cli.main import main
from unperturbed.errors import InputError
from unperturbed.imports import Trust
from unperturbed.networks.inputs import IMAGENET
from unperturbed.runs.record import plain
from unperturbed.weights.files import build_model, load_weights
from unperturbed.weights.rebuild import architecture, build_from, load_run, spec_of

timm = pytest.importorskip("timm", reason="timm is not installed: make test-foreign installs it")
torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed: make test-foreign installs it")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: make test-foreign does")

VIT: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 8,
}  # fmt: skip
SMALL: list[tuple[str, dict[str, Any]]] = [
    ("timm:resnet18", {}),
    ("timm:vit_tiny_patch16_224", {"depth": 2}),
    ("torchvision:mobilenet_v3_small", {}),
    ("transformers:vit", VIT),
]
"""A model of each kind with options that make it small."""
COLOUR, GREY = (3, 32, 32), (1, 28, 28)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the libraries from the network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield


def built(text: str, options: dict[str, Any], shape: tuple[int, ...] = COLOUR, classes: int = 10) -> LibraryModel:
    torch.manual_seed(0)
    model = build_model(text, options, shape, classes, (0.0,), (1.0,))
    assert isinstance(model, LibraryModel)
    return model.eval()


def normalised(x: Tensor, mean: Any, std: Any) -> Tensor:
    return (x - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


@pytest.mark.parametrize(("text", "options"), SMALL)
@pytest.mark.parametrize("shape", [COLOUR, GREY])
def test_classes_channels_and_size_come_from_the_data(text: str, options: Any, shape: tuple[int, ...]) -> None:
    model = built(text, options, shape, 7)
    assert model(torch.rand(2, *shape)).shape == (2, 7) and not model.trained


def test_a_model_of_timm_has_its_librarys_logits_on_normalised_images() -> None:
    model, x = built("timm:resnet18", {}), torch.rand(2, *COLOUR)
    theirs = timm.create_model("resnet18", num_classes=10).eval()
    theirs.load_state_dict(model.model.state_dict())
    cfg = theirs.pretrained_cfg
    torch.testing.assert_close(model(x), theirs(normalised(x, cfg["mean"], cfg["std"])))
    grey = built("timm:resnet18", {}, GREY)
    assert grey.normalise.mean.tolist() == pytest.approx([sum(cfg["mean"]) / 3])


def test_a_model_of_torchvision_has_its_librarys_logits_on_grey_images_too() -> None:
    model, x = built("torchvision:mobilenet_v3_small", {}, GREY), torch.rand(2, *GREY)
    theirs = torchvision.models.mobilenet_v3_small(num_classes=10).eval()
    theirs.load_state_dict(model.model.state_dict())
    torch.testing.assert_close(model(x), theirs(normalised(x.repeat(1, 3, 1, 1), IMAGENET[:3], IMAGENET[3:])))


def test_a_model_of_transformers_has_its_librarys_logits() -> None:
    model, x = built("transformers:vit", VIT), torch.rand(2, *COLOUR)
    config = transformers.ViTConfig(**VIT, image_size=32, num_labels=10)
    theirs = transformers.ViTForImageClassification(config).eval()
    theirs.load_state_dict(model.model.state_dict())
    torch.testing.assert_close(model(x), theirs(2 * x - 1).logits)


@pytest.mark.parametrize(("text", "options"), SMALL)
def test_a_record_builds_the_same_network_for_a_stranger(text: str, options: dict[str, Any]) -> None:
    model = built(text, options)
    spec = spec_of(model)
    assert spec is not None
    record = yaml.safe_load(yaml.safe_dump(plain(spec)))
    again = build_from(type(spec)(record["class_path"], record["init_args"]), "the model", Trust())
    assert architecture(again) == architecture(model)
    again.load_state_dict(model.state_dict())
    x = torch.rand(2, *COLOUR)
    assert torch.equal(again.eval()(x), model(x))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("timm:resnte18", "timm has no model 'resnte18'. Did you mean 'resnet18'"),
        ("torchvision:mobilenet_v3_smal", "Did you mean 'mobilenet_v3_small'"),
        ("transformers:vti", "Did you mean 'vit'"),
        ("transformers:owner/absent", "owner/absent"),
        ("hf-hub:owner/absent", "could not be fetched"),
    ],
)
def test_unknown_models_are_refused(text: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        built(text, {})


def test_unknown_options_are_refused() -> None:
    with pytest.raises(InputError, match="no entry 'hiden_size'. Did you mean 'hidden_size'"):
        built("transformers:vit", {"hiden_size": 3})
    with pytest.raises(InputError, match="--model.pretrained true"):
        built("torchvision:resnet18", {"weights": "DEFAULT"})


# --- weights --------------------------------------------------------------------------------------------------------


def saved_vit(folder: Path, size: int = 32, processor: bool = True) -> nn.Module:
    torch.manual_seed(1)
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**VIT, image_size=size, num_labels=10))
    model.save_pretrained(folder)
    if processor:
        numbers = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "do_normalize": True}
        (folder / "preprocessor_config.json").write_text(json.dumps(numbers))
    return model.eval()  # type: ignore[no-any-return]


def test_a_saved_folder_brings_weights_and_normalisation(tmp_path: Path) -> None:
    theirs, x = saved_vit(tmp_path), torch.rand(2, *COLOUR)
    model = built(f"transformers:{tmp_path}", {})
    assert model.trained
    torch.testing.assert_close(model(x), theirs(normalised(x, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))).logits)
    untrained = built(f"transformers:{tmp_path}", {"pretrained": False})
    assert not untrained.trained and not torch.equal(untrained(x), model(x))


def test_a_new_head_and_a_size_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    theirs, x = saved_vit(tmp_path, size=48), torch.rand(2, *COLOUR)
    model = built(f"transformers:{tmp_path}", {}, classes=4)
    assert not model.trained and model(x).shape == (2, 4)
    assert "32x32 are resized to 48x48" in caplog.text and "for 4 classes the weights of classifier" in caplog.text
    larger = nn.functional.interpolate(x, (48, 48), mode="bilinear")
    features = theirs.vit(normalised(larger, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))).last_hidden_state
    torch.testing.assert_close(model(x), model.model.classifier(features[:, 0]))


def test_an_unknown_normalisation_is_asked_for(tmp_path: Path) -> None:
    saved_vit(tmp_path, processor=False)
    with pytest.raises(InputError, match="give --model.normalise"):
        built(f"transformers:{tmp_path}", {})
    assert built(f"transformers:{tmp_path}", {"normalise": "none"}).normalise.std.tolist() == [1.0] * 3


def test_code_beside_a_configuration_never_runs(tmp_path: Path) -> None:
    saved_vit(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForImageClassification": "evil.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    model = built(f"transformers:{tmp_path}", {})
    assert not (tmp_path / "ran").exists() and "auto_map" not in model.init_args["config"]


def test_pretrained_weights_of_timm(tmp_path: Path) -> None:
    torch.manual_seed(3)
    theirs = timm.create_model("resnet18", num_classes=10).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    here = {"file": str(tmp_path / "w.pth"), "num_classes": 10}
    model, x = built("timm:resnet18", {"pretrained": True, "pretrained_cfg_overlay": here}), torch.rand(2, *COLOUR)
    cfg = theirs.pretrained_cfg
    side = cfg["input_size"][1:]
    larger = nn.functional.interpolate(x, side, mode="bilinear")
    torch.testing.assert_close(model(x), theirs(normalised(larger, cfg["mean"], cfg["std"])))


def test_pretrained_weights_of_torchvision_in_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    weights = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT
    theirs = torchvision.models.mobilenet_v3_small().eval()
    (tmp_path / "checkpoints").mkdir()
    torch.save(theirs.state_dict(), tmp_path / "checkpoints" / weights.url.rpartition("/")[2])
    model = built("torchvision:mobilenet_v3_small", {"pretrained": True, "image_size": 32}, classes=1000)
    x = torch.rand(2, *COLOUR)
    assert model.trained
    torch.testing.assert_close(model(x), theirs(normalised(x, IMAGENET[:3], IMAGENET[3:])))
    fewer = built("torchvision:mobilenet_v3_small", {"pretrained": True, "image_size": 32})
    assert not fewer.trained
    for name, value in theirs.state_dict().items():
        same = fewer.model.state_dict()[name]
        assert torch.equal(same, value) or (name.startswith("classifier.3") and len(same) == 10)


def test_a_folder_of_the_hubs_form(tmp_path: Path) -> None:
    torch.manual_seed(3)
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=32, depth=2).eval()
    timm.models.save_for_hf(
        theirs, tmp_path, {"input_size": [3, 32, 32], "num_classes": 10}, model_args={"depth": 2, "img_size": 32}
    )
    x = torch.rand(2, *COLOUR)
    model = built(f"local-dir:{tmp_path}", {"pretrained": True})
    cfg = theirs.pretrained_cfg
    torch.testing.assert_close(model(x), theirs(normalised(x, cfg["mean"], cfg["std"])))
    spec = spec_of(model)
    assert spec is not None
    again = build_from(spec, "the model", Trust())  # the folder is not read again
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again.eval()(x), model(x))


def test_a_checkpoint_of_timm_loads_into_the_named_model(tmp_path: Path) -> None:
    theirs = timm.create_model("resnet18", num_classes=10).eval()
    torch.save({"state_dict": theirs.state_dict(), "arch": "resnet18", "epoch": 3}, tmp_path / "model_best.pth.tar")
    model, x = built("timm:resnet18", {}), torch.rand(2, *COLOUR)
    report = load_weights(model, tmp_path / "model_best.pth.tar")
    assert report.kept == ("normalise.mean", "normalise.std")
    cfg = theirs.pretrained_cfg
    torch.testing.assert_close(model(x), theirs(normalised(x, cfg["mean"], cfg["std"])))


# --- commands -------------------------------------------------------------------------------------------------------


def test_a_run_is_trained_and_evaluated_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    saved_vit(tmp_path / "saved")
    options = ("--data", "digits", "--examples", "40", "--method", "erm", "--epochs", "1", "--out", "run")
    model = ("--model", "transformers:saved", "--model.normalise", "0.5,0.5", "--model.image_size", "8")
    assert main(["train", *options, *model, "--model.patch_size", "4", "--model.pretrained", "false"]) == 0
    assert "--trust" not in capsys.readouterr().out
    for file in (tmp_path / "saved").iterdir():
        file.unlink()
    capsys.readouterr()
    assert main(["evaluate", "run", "--suite", "pgd", "--examples", "10", "--threat", "Linf:0.02", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 10
    assert isinstance(load_run("run"), LibraryModel)


def test_random_weights_are_not_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--model", "timm:resnet18", "--data", "digits", "--out", str(tmp_path / "o")]) == 2
    assert "has random weights" in capsys.readouterr().err


def test_a_layer_without_a_second_derivative_is_named_before_training(tmp_path: Path) -> None:
    data, threat = un.load_data("digits"), un.Threat("Linf", 0.1)
    model = un.model_for(data, "torchvision:mobilenet_v3_small", image_size=32)
    with pytest.raises(InputError, match="lacks a second derivative.*Hardsigmoid.*form differences"):
        un.train(model, data, threat, un.methods.LLR(form="exact"), un.Recipe(epochs=1))
