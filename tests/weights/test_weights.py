"""Weights files: our own, those of other projects, and files that are none."""

import argparse
import os
import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from lightning_fabric.utilities.data import AttributeDict
from torch import Tensor, nn

from unperturbed.architectures.mlp import MLP
from unperturbed.architectures.preact_resnet import PreActResNet
from unperturbed.architectures.small_cnn import SmallCNN
from unperturbed.architectures.wide_resnet import WideResNet
from unperturbed.errors import InputError, RunError
from unperturbed.weights.files import LogitsOnly, load_weights, read_weights, save_weights

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


def network(seed: int = 0, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> SmallCNN:
    torch.manual_seed(seed)
    return SmallCNN((3, 8, 8), 4, mean, std, width=2)


def body(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a network as a project that normalises outside it would name them."""
    return {name: value for name, value in model.state_dict().items() if not name.startswith("normalise.")}


def prefixed(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in weights.items()}


def same(model: nn.Module, other: nn.Module) -> bool:
    own, theirs = model.state_dict(), other.state_dict()
    return own.keys() == theirs.keys() and all(torch.equal(own[name], theirs[name]) for name in own)


# --- our own files --------------------------------------------------------------------------------------------------


def test_weights_survive_the_round_trip(tmp_path: Path) -> None:
    saved, loaded = network(0), network(1, (0.0,), (1.0,))
    save_weights(saved, tmp_path / "model.safetensors")
    report = load_weights(loaded, tmp_path / "model.safetensors")
    assert same(saved, loaded)
    assert set(report.loaded) == set(saved.state_dict()) and not report.missing and not report.unexpected
    assert str(report).startswith("10 tensors of weights loaded from")
    assert read_weights(tmp_path / "model.safetensors").keys() == saved.state_dict().keys()


def test_channels_last_weights_are_saved_as_they_are(tmp_path: Path) -> None:
    saved = network().to(memory_format=torch.channels_last)
    save_weights(saved, tmp_path / "model.safetensors")
    loaded = network(1)
    load_weights(loaded, tmp_path / "model.safetensors")
    assert same(saved, loaded)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("view", self.first.bias.detach()[:2])


def test_tensors_that_share_memory(tmp_path: Path) -> None:
    saved, loaded = Tied(), Tied()
    save_weights(saved, tmp_path / "tied.safetensors")
    assert safetensors.torch.load_file(tmp_path / "tied.safetensors").keys() == saved.state_dict().keys()
    load_weights(loaded, tmp_path / "tied.safetensors")
    assert same(saved, loaded) and loaded.second.weight is loaded.first.weight


def test_a_tied_weight_may_be_stored_once(tmp_path: Path) -> None:
    saved, loaded = Tied(), Tied()
    stored = {name: value.clone() for name, value in saved.state_dict().items() if name != "second.weight"}
    safetensors.torch.save_file(stored, tmp_path / "tied.safetensors")
    assert not load_weights(loaded, tmp_path / "tied.safetensors").missing
    assert same(saved, loaded)


def test_float64_weights_are_read_as_stored_and_loaded_as_the_model_is(tmp_path: Path) -> None:
    double = network().double()
    torch.nn.init.constant_(double.layers[-1].bias, 1 / 3)
    save_weights(double, tmp_path / "double.safetensors")
    assert {value.dtype for value in read_weights(tmp_path / "double.safetensors").values()} == {torch.float64}
    single, again = network(1), network(2).double()
    load_weights(single, tmp_path / "double.safetensors")
    load_weights(again, tmp_path / "double.safetensors")
    assert {value.dtype for value in single.state_dict().values()} == {torch.float32}
    assert same(single, double.float()) and again.layers[-1].bias[0].item() == 1 / 3


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(network(0), path)

    def half(tensors: object, filename: Path, metadata: object) -> None:
        Path(filename).write_bytes(b"half")
        raise safetensors.SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", half)
    with pytest.raises(RunError, match="No space left"):
        save_weights(network(1), path)
    assert os.listdir(tmp_path) == ["model.safetensors"]
    loaded = network(2)
    load_weights(loaded, path)
    assert same(loaded, network(0))


def test_state_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    class WithState(nn.Linear):
        def get_extra_state(self) -> object:
            return {"epoch": 3}

        def set_extra_state(self, state: object) -> None:
            pass

    with pytest.raises(InputError, match="_extra_state of the model is a dict"):
        save_weights(WithState(2, 2), tmp_path / "model.safetensors")


# --- files that are no weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors", ".bin"])
@pytest.mark.parametrize(
    "page",
    [b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title>", b"\xef\xbb\xbf\n <html>Sign in"],
)
def test_an_html_page_is_told_as_one(tmp_path: Path, suffix: str, page: bytes) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(page)
    with pytest.raises(InputError, match="is an HTML page, not weights.*download the file itself"):
        read_weights(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 0.999])
def test_truncated_torch_files(tmp_path: Path, zipped: bool, share: float) -> None:
    path = tmp_path / "weights.pt"
    torch.save(network().state_dict(), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="truncated"):
        read_weights(path)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.999])
def test_truncated_safetensors(tmp_path: Path, share: float) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(network(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="truncated"):
        read_weights(path)


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.flag),)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle-2", "pickle-4"])
def test_code_in_a_pickle_never_runs_and_is_named(tmp_path: Path, kind: str) -> None:
    path, flag = tmp_path / "weights.pt", tmp_path / "ran"
    content = {"state_dict": network().state_dict(), "extra": Malicious(flag)}
    if kind.startswith("pickle"):
        path.write_bytes(pickle.dumps({"extra": Malicious(flag)}, protocol=int(kind[-1])))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(InputError, match=r"(posix|nt)\.mkdir.*nothing in it ran") as error:
        read_weights(path)
    assert "weights_only" not in str(error.value)
    assert not flag.exists()
    pickled = pickle.dumps(Malicious(flag))
    pickle.loads(pickled)
    assert flag.exists(), "the trap itself works"


@pytest.mark.parametrize(
    ("extra", "told"), [(Fraction(1, 2), "fractions.Fraction"), (nn.Linear(2, 2), "torch.nn.*Linear")]
)
def test_objects_beside_the_weights_are_named_with_a_remedy(tmp_path: Path, extra: object, told: str) -> None:
    torch.save({"state_dict": network().state_dict(), "args": extra}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=rf"{told}.*save model\.state_dict\(\) alone"):
        read_weights(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    "extra",
    [
        argparse.Namespace(lr=0.1, output=Path("runs"), layers=[1, 2]),
        AttributeDict(lr=0.1),
        np.float64(93.2),
        np.float32(0.5),
        np.int64(3),
        np.bool_(True),
    ],
    ids=lambda extra: type(extra).__name__,
)
def test_plain_values_beside_the_weights_are_no_obstacle(tmp_path: Path, extra: object) -> None:
    """As timm (arguments), Lightning (settings) and many scripts (the best accuracy, from NumPy) store them."""
    torch.save({"epoch": 3, "state_dict": network().state_dict(), "extra": extra}, tmp_path / "weights.pth")
    assert same_tensors(read_weights(tmp_path / "weights.pth"), network().state_dict())


def test_arguments_run_no_code(tmp_path: Path) -> None:
    path, flag = tmp_path / "weights.pt", tmp_path / "ran"
    torch.save({"state_dict": network().state_dict(), "args": argparse.Namespace(x=Malicious(flag))}, path)
    with pytest.raises(InputError, match=r"(posix|nt)\.mkdir.*nothing in it ran"):
        read_weights(path)
    assert not flag.exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"student": {"a": torch.zeros(2)}, "teacher": {"a": torch.ones(2)}}, "with the keys student, teacher"),
        ({"optimizer": {"a": torch.zeros(2)}}, "with the keys optimizer"),
        ({"epoch": 3, "optimizer": {"state": {}}}, "holds no weights but a dict with the keys epoch, optimizer"),
        ([torch.zeros(2)], "holds no weights but a list"),
        ({}, "holds no weights but a dict"),
    ],
)
def test_files_without_weights(tmp_path: Path, content: object, told: str) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=told):
        read_weights(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied", "an XML page"),
        (b"some notes on weights, in plain words", "not a weights file"),
        (b"\x80\x02", "truncated"),
        (b"\x00\x01\x02\x03" * 50, "not a weights file"),
        (b"PK\x03\x04 and no more", "truncated"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=told):
        read_weights(path)


def test_tensors_that_are_no_ordinary_ones_are_told(tmp_path: Path) -> None:
    plain = torch.zeros(2, 3)
    others = {
        "sparse": torch.sparse_coo_tensor([[0], [0]], [1.0], (2, 3), check_invariants=True),
        "meta": plain.to("meta"),
        "claims": torch.sparse_coo_tensor([[0], [0]], [1.0], (10**6, 10**6), check_invariants=True),
    }
    for name, value in others.items():
        torch.save({"weight": value, "bias": torch.zeros(2)}, tmp_path / name)
        with pytest.raises(InputError, match="weight of .* is a sparse, nested, quantised or meta tensor"):
            load_weights(nn.Linear(3, 2), tmp_path / name)


@pytest.mark.parametrize("kind", [torch.complex64, torch.int8, torch.bool])
def test_values_that_copying_would_change_are_refused(kind: torch.dtype, tmp_path: Path) -> None:
    """PyTorch copies an imaginary part away, and takes the codes of quantised weights for weights."""
    torch.save({"weight": torch.ones((2, 3), dtype=kind), "bias": torch.zeros(2)}, tmp_path / "w.pt")
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    with pytest.raises(InputError, match=f"weight is torch.float32 in the model and {kind}"):
        load_weights(model, tmp_path / "w.pt")
    assert torch.equal(model.weight, before)


def test_a_file_that_holds_itself_or_claims_a_long_text_is_refused(tmp_path: Path) -> None:
    holding: dict[str, object] = {}
    holding["state_dict"] = holding
    torch.save(holding, tmp_path / "itself.pt")
    (tmp_path / "claims.pt").write_bytes(b"\x80\x04\x8e" + (2**42).to_bytes(8, "little") + b"abc.")
    for name, told in (("itself", "holds itself"), ("claims", "not a weights file")):
        with pytest.raises(InputError, match=told):
            read_weights(tmp_path / f"{name}.pt")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file.*check the path"):
        read_weights(tmp_path / "nothing.pt")
    with pytest.raises(InputError, match="is a folder"):
        read_weights(tmp_path)


def test_the_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    save_weights(network(), tmp_path / "weights.safetensors")
    os.rename(tmp_path / "weights.safetensors", tmp_path / "weights.pt")
    torch.save(network().state_dict(), tmp_path / "weights.safetensors")
    assert same_tensors(read_weights(tmp_path / "weights.pt"), read_weights(tmp_path / "weights.safetensors"))


def same_tensors(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# --- the layouts of other projects, in small ------------------------------------------------------------------------


def column(numbers: tuple[float, ...]) -> Tensor:
    return torch.tensor(numbers).view(-1, 1, 1)


def robustness(saved: nn.Module, container: str) -> dict[str, object]:
    """MadryLab/robustness: AttackerModel within DataParallel; the network and the normaliser are there twice."""
    weights = {
        "module.normalizer.new_mean": column(MEAN),
        "module.normalizer.new_std": column(STD),
        **prefixed("module.model.", body(saved)),
        "module.attacker.normalize.new_mean": column(MEAN),
        "module.attacker.normalize.new_std": column(STD),
        **prefixed("module.attacker.model.", body(saved)),
    }
    return {container: weights, "optimizer": {"state": {}}, "schedule": None, "epoch": 150, "amp": "N/A"}


def mair(saved: nn.Module, inside: bool, parallel: bool) -> dict[str, object]:
    """MAIR's RobModel; `inside`: after add_normalize()."""
    classes = {"n_classes": torch.tensor(4)}
    if inside:
        weights = {"model.0.mean": torch.tensor(MEAN), "model.0.std": torch.tensor(STD)}
        return {"rmodel": classes | weights | prefixed("model.1.", body(saved))}
    weights = {"mean": torch.tensor(MEAN), "std": torch.tensor(STD)}
    prefix = "model.module." if parallel else "model."
    record = {"accumulated_epoch": 200, "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}}}
    return {"rmodel": classes | weights | prefixed(prefix, body(saved)), **record}


def robustbench(saved: nn.Module) -> dict[str, object]:
    """RobustBench's networks with the buffers mu and sigma, as Engstrom2019Robustness has them."""
    return {"state_dict": {"mu": column(MEAN)[None], "sigma": column(STD)[None], **body(saved)}}


WITH_NORMALISATION = {
    "robustness": lambda saved: robustness(saved, "model"),
    "robustness, old": lambda saved: robustness(saved, "state_dict"),
    "mair": lambda saved: mair(saved, inside=False, parallel=False),
    "mair, parallel": lambda saved: mair(saved, inside=False, parallel=True),
    "mair, normalised inside": lambda saved: mair(saved, inside=True, parallel=False),
    "robustbench": robustbench,
    "robustbench, two networks": lambda saved: {
        "last": robustbench(saved)["state_dict"],
        "best": robustbench(network(7))["state_dict"],
    },
    "normalize, then the network": lambda saved: {
        "0.mean": torch.tensor(MEAN),
        "0.std": torch.tensor(STD),
        **prefixed("1.", body(saved)),
    },
    "normalize beside the network": lambda saved: {
        "module.normalize.mean": column(MEAN),
        "module.normalize.std": column(STD),
        **prefixed("module.model.", body(saved)),
    },
    "lightning": lambda saved: {"state_dict": prefixed("model.", saved.state_dict()), "global_step": 10},
    "compiled in parallel": lambda saved: prefixed("module._orig_mod.", saved.state_dict()),
}

WITHOUT_NORMALISATION = {
    "trades": lambda saved: body(saved),
    "trades, parallel": lambda saved: prefixed("module.", body(saved)),
    "carmon": lambda saved: {"state_dict": prefixed("module.", body(saved)), "num_classes": 10},
    "chen, model.": lambda saved: {"state_dict": prefixed("model.", body(saved)), "epoch": 3},
    "net": lambda saved: {"net": prefixed("module.", body(saved)), "acc": 93.2, "epoch": 3},
    "gowal": lambda saved: {"model_state_dict": prefixed("module.", body(saved)), "unaveraged_model_state_dict": {}},
    "ema only": lambda saved: {"ema": body(saved)},
    "nested": lambda saved: {"model": {"state_dict": body(saved)}},
    "lightning, another attribute": lambda saved: {
        "state_dict": prefixed("classifier.", body(saved)) | {"criterion.weight": torch.ones(4)},
        **{"pytorch-lightning_version": "2.5.0", "hyper_parameters": {"lr": 0.1}, "loops": {}},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.zeros(2)}}}],
    },
    "timm": lambda saved: {
        **{"epoch": 3, "arch": "resnet18", "args": argparse.Namespace(lr=0.1), "metric": np.float64(0.5)},
        **{"state_dict": body(saved), "state_dict_ema": body(network(7))},
    },
    "deepspeed": lambda saved: {"module": body(saved), "optimizer": {"state": torch.zeros(3)}},
    "another name": lambda saved: {"classifier_weights": body(saved), "scheduler": {"last": torch.zeros(1)}},
    "weight averaging": lambda saved: {"n_averaged": torch.tensor(7), **prefixed("module.", body(saved))},
}


@pytest.mark.parametrize("layout", WITH_NORMALISATION)
def test_a_foreign_layout_with_its_normalisation(tmp_path: Path, layout: str) -> None:
    saved, loaded = network(0), network(1, (0.0,), (1.0,))
    torch.save(WITH_NORMALISATION[layout](saved), tmp_path / "foreign.pt")
    assert same_tensors(
        {name: value.flatten() for name, value in read_weights(tmp_path / "foreign.pt").items()},
        {name: value.flatten() for name, value in saved.state_dict().items()},
    )
    report = load_weights(loaded, tmp_path / "foreign.pt")
    assert same(saved, loaded)
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(saved(x), loaded(x))
    assert not report.missing and not report.mismatched and not report.kept


@pytest.mark.parametrize("layout", WITHOUT_NORMALISATION)
def test_a_foreign_layout_without_normalisation(tmp_path: Path, layout: str) -> None:
    saved, loaded = network(0, (0.0,), (1.0,)), network(1, (0.0,), (1.0,))
    torch.save(WITHOUT_NORMALISATION[layout](saved), tmp_path / "foreign.pt")
    if layout != "lightning, another attribute":  # the name of an attribute is known only from the network
        assert same_tensors(read_weights(tmp_path / "foreign.pt"), body(saved))
    report = load_weights(loaded, tmp_path / "foreign.pt")
    assert same(saved, loaded)
    assert report.kept == ("normalise.mean", "normalise.std") and not report.missing


def test_of_two_networks_in_a_file_none_is_guessed(tmp_path: Path) -> None:
    """As of a teacher and a student; a network next to other layers is taken, and the rest reported."""
    saved = body(network(0))
    torch.save(prefixed("net.student.", saved) | prefixed("net.teacher.", body(network(1))), tmp_path / "two.pt")
    loaded = network(2, (0.0,), (1.0,))
    with pytest.raises(InputError, match=r"holds 2 networks .*behind student\. and teacher\."):
        load_weights(loaded, tmp_path / "two.pt")
    torch.save(prefixed("backbone.", saved) | {"head.weight": torch.zeros(3)}, tmp_path / "one.pt")
    report = load_weights(loaded, tmp_path / "one.pt")
    assert same(loaded, network(0, (0.0,), (1.0,))) and report.unexpected == ("head.weight",)


def test_a_normalisation_that_the_file_does_not_have_is_never_guessed(tmp_path: Path) -> None:
    torch.save(body(network(0)), tmp_path / "trades.pt")
    model = network(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match="no normalisation for normalise.mean, normalise.std.*mean 0 and std 1"):
        load_weights(model, tmp_path / "trades.pt")
    assert same_tensors(model.state_dict(), before)
    report = load_weights(model, tmp_path / "trades.pt", keep_normalisation=True)
    assert report.kept == ("normalise.mean", "normalise.std")
    assert same(model, network(0))


def test_only_leading_prefixes_are_taken_off(tmp_path: Path) -> None:
    """A cut at the length of "model." wherever the text occurs would give "odel_a.weight" and so on."""
    names = ["pre_model.weight", "block.model.weight", "module_a.weight"]
    torch.save({f"model.{name}": torch.full((2,), k) for k, name in enumerate(names)}, tmp_path / "odd.pt")
    assert list(read_weights(tmp_path / "odd.pt")) == names


def test_a_prefix_that_not_every_weight_has_is_a_name(tmp_path: Path) -> None:
    weights = {"model.weight": torch.zeros(2), "head.weight": torch.ones(2)}
    torch.save(weights, tmp_path / "own.pt")
    assert same_tensors(read_weights(tmp_path / "own.pt"), weights)


class Wrapped(nn.Module):
    """A user's model whose own names begin as wrappers' prefixes do."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))


@pytest.mark.parametrize("prefix", ["", "module.", "module.model."])
def test_a_users_own_names_fit_with_and_without_prefixes(tmp_path: Path, prefix: str) -> None:
    saved, loaded = Wrapped(), Wrapped()
    stored = prefixed(prefix, {name.removeprefix("model."): value for name, value in saved.state_dict().items()})
    torch.save(stored, tmp_path / "own.pt")
    load_weights(loaded, tmp_path / "own.pt")
    assert same(saved, loaded)


def test_weights_fit_a_wrapped_model(tmp_path: Path) -> None:
    saved, loaded = network(0), LogitsOnly(network(1))
    save_weights(saved, tmp_path / "model.safetensors")
    load_weights(loaded, tmp_path / "model.safetensors")
    assert same(saved, loaded.module)
    save_weights(loaded, tmp_path / "wrapped.safetensors")
    again = network(2)
    load_weights(again, tmp_path / "wrapped.safetensors")
    assert same(saved, again)


def test_a_part_of_the_network_loads_when_told_to(tmp_path: Path) -> None:
    saved, loaded = Wrapped(), Wrapped()
    torch.save({"model.0.weight": saved.model[0].weight.detach()}, tmp_path / "part.pt")
    report = load_weights(loaded, tmp_path / "part.pt", strict=False)
    assert report.loaded == ("model.0.weight",)
    assert set(report.missing) == {"model.0.bias", "model.1.weight", "model.1.bias"}
    assert torch.equal(loaded.model[0].weight, saved.model[0].weight)


def test_averaged_weights_beside_the_others_are_told(tmp_path: Path) -> None:
    torch.save({"state_dict": network(0).state_dict(), "ema": network(1).state_dict()}, tmp_path / "both.pt")
    loaded = network(2)
    report = load_weights(loaded, tmp_path / "both.pt")
    assert same(loaded, network(0))
    assert "['state_dict'] (the file also holds ema)" in str(report)


def test_old_files_without_counts_of_batches(tmp_path: Path) -> None:
    saved, loaded = (PreActResNet((3, 8, 8), depth=10, width=1) for _ in range(2))
    stored = {name: value for name, value in saved.state_dict().items() if "num_batches" not in name}
    torch.save(stored, tmp_path / "old.pt")
    assert not load_weights(loaded, tmp_path / "old.pt").missing
    assert same(saved, loaded)


# --- missing, unexpected and mismatched names -----------------------------------------------------------------------


def test_missing_and_unexpected_names_are_told(tmp_path: Path) -> None:
    weights = network(0).state_dict()
    weights["layers.9.weight"] = weights.pop("layers.7.weight")
    torch.save(weights, tmp_path / "other.pt")
    model = network(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError) as error:
        load_weights(model, tmp_path / "other.pt")
    assert "does not fit the SmallCNN" in str(error.value)
    assert "missing (1): layers.7.weight" in str(error.value)
    assert "unexpected (1): layers.9.weight" in str(error.value)
    assert same_tensors(model.state_dict(), before), "a refused file changes nothing"
    report = load_weights(model, tmp_path / "other.pt", strict=False)
    assert report.missing == ("layers.7.weight",) and report.unexpected == ("layers.9.weight",)
    assert torch.equal(model.layers[0].weight, weights["layers.0.weight"])


def test_unexpected_names_alone_are_told_and_accepted(tmp_path: Path) -> None:
    torch.save(network(0).state_dict() | {"sub_block1.weight": torch.zeros(2)}, tmp_path / "more.pt")
    loaded = network(1)
    report = load_weights(loaded, tmp_path / "more.pt")
    assert same(loaded, network(0))
    assert report.unexpected == ("sub_block1.weight",) and "unexpected (1): sub_block1.weight" in str(report)


def test_mismatched_shapes_are_told_with_both_shapes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_weights(MLP((4,), 10, hidden=(8,)), tmp_path / "ten.safetensors")
    model = MLP((4,), 3, hidden=(8,))
    with pytest.raises(InputError, match=r"layers\.3\.weight \(3, 8\), in the file \(10, 8\)"):
        load_weights(model, tmp_path / "ten.safetensors")
    assert len(load_weights(model, tmp_path / "ten.safetensors", strict=False).mismatched) == 2


def test_long_lists_of_names_are_cut_short(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"missing \(\d\d\): .* and \d+ more"):
        load_weights(PreActResNet((3, 8, 8), depth=10, width=1), tmp_path / "other.pt")


# --- the names within our own networks ------------------------------------------------------------------------------


def test_names_of_the_public_wide_resnet() -> None:
    """TRADES and RobustBench: conv1, block1-3 with layer.k, bn1, fc; a convShortcut where the width changes."""
    names = body(WideResNet((3, 8, 8), depth=16, width=2))
    weights = {name for name in names if name.endswith("weight")}
    blocks = {
        f"block{b}.layer.{k}.{part}.weight"
        for b in (1, 2, 3)
        for k in (0, 1)
        for part in ("bn1", "conv1", "bn2", "conv2", *(["convShortcut"] if k == 0 else []))
    }
    assert weights == blocks | {"conv1.weight", "bn1.weight", "fc.weight"}


def test_names_of_the_public_preact_resnet() -> None:
    """fast_adversarial and robust_overfitting: conv1, layer1-4, bn, linear; a shortcut.0 where the width changes."""
    weights = {name for name in body(PreActResNet((3, 8, 8), width=2)) if name.endswith("weight")}
    blocks = {
        f"layer{stage}.{k}.{part}.weight"
        for stage in (1, 2, 3, 4)
        for k in (0, 1)
        for part in ("bn1", "conv1", "bn2", "conv2", *(["shortcut.0"] if k == 0 and stage > 1 else []))
    }
    assert weights == blocks | {"conv1.weight", "bn.weight", "linear.weight"}
