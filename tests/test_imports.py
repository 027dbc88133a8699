"""Import paths in files, and modules in the current folder: no code runs that the user did not name."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from torch import nn

from support.shares import first, in_ci
from unperturbed.architectures.mlp import MLP
from unperturbed.cli.main import main
from unperturbed.errors import InputError
from unperturbed.imports import OWN, Trust, check_argument, check_nested, follow, may_make
from unperturbed.runs import BEST
from unperturbed.specs.parameters import convert
from unperturbed.specs.trees import Tree, choose
from unperturbed.weights.files import save_weights
from unperturbed.weights.rebuild import load_run

EVIL = """
from pathlib import Path
Path("EXECUTED").write_text("")
from torch import nn
class Net(nn.Module):
    def __init__(self, **arguments):
        super().__init__()
def data():
    return None
SUITE = diagnostic = data
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the current folder: a run folder `run`, its data, and a module `evil` that leaves a trace if imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("UNPERTURBED_TRUST", raising=False)
    Path("evil.py").write_text(EVIL)
    x = np.random.default_rng(0).random((20, 4), dtype=np.float32)
    y = (x[:, 0] > 0.5).astype(np.int64)
    np.savez("blobs.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    save_weights(MLP((4,), 2, hidden=(3,)), Path("run") / BEST)
    write({})
    yield tmp_path
    sys.modules.pop("evil", None)


def write(changes: dict[str, Any], file: str = "run/config.yaml") -> None:
    arguments = {"input_shape": [4], "classes": 2, "mean": [0.0], "std": [1.0], "hidden": [3], "activation": "relu"}
    content = {
        "data": str(Path("blobs.npz").resolve()),
        "model": {"class_path": "mlp", "init_args": arguments},
        "threat": "Linf:0.1",
        "bounds": [0.0, 1.0],
    }
    Path(file).write_text(yaml.safe_dump(content | changes))


def refused(*words: str) -> str:
    """Run a command that must end with exit code 2 and without having run the file's code; return what it said."""
    import contextlib
    import io

    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(words)
    text = " ".join(said.getvalue().split())
    assert code == 2 and not Path("EXECUTED").exists() and "Traceback" not in text, text
    return text


LOADER = {"spec": "evil:Net", "arguments": {}, "input_shape": [4], "classes": 2, "mean": [0], "std": [1]}
MODELS: dict[str, dict[str, Any]] = {
    "os:system": {"command": "touch EXECUTED"},
    "evil:Net": {},
    "evil.Net": {},
    "unperturbed.cli.main:os.system": {"command": "touch EXECUTED"},
    "unperturbed.catalogue:ast": {},
    "unperturbed.weights.files:build_model": LOADER,
    "unperturbed.weights.rebuild:load_run": {"folder": "run"},
    "mlp": {"activation": {"class_path": "evil.Net"}},
    "small-cnn": {"width": "{class_path: evil.Net}"},
}
DOORS = [{"model": {"class_path": path, "init_args": arguments}} for path, arguments in MODELS.items()]
DOORS += [{"data": "evil:data"}, {"data": "unperturbed.cli.demo:run"}, {"data": "os:getcwd"}]


@pytest.mark.parametrize("changes", DOORS, ids=str)
@pytest.mark.parametrize("command", ["evaluate", "curve", "certify", "probable", "diagnose"])
def test_a_run_folder_does_not_execute_code(folder: Path, changes: dict[str, Any], command: str) -> None:
    write(changes)
    refused(command, "run")


TRAINED = {
    "method": "erm",
    "recipe": {"seed": 0, "epochs": 1, "validation": 0.1},
    "chosen": {"training_examples": 18, "held_out_examples": 2},
}
UNUSED: list[dict[str, Any]] = [
    {"method": "evil:Net"},
    {"method": {"class_path": "evil:Net"}},
    {"method": {"class_path": "awp", "init_args": {"objective": {"class_path": "evil.Net", "init_args": {}}}}},
    {"extra": "evil:data"},
    {"weights": "evil:data"},
    {"output": "evil:data"},
    {"notes": {"class_path": "evil:Net"}},
    {"network": {"class_path": "evil.Net", "architecture": "0", "parameters": 1}},
]


@pytest.mark.slow
@pytest.mark.parametrize("changes", first(3, UNUSED), ids=str)
def test_import_paths_that_a_command_does_not_need_are_not_followed(folder: Path, changes: dict[str, Any]) -> None:
    """The command does its work or refuses the folder; the file's code runs neither way."""
    write(TRAINED | changes)
    quick = ("--suite", "apgd-ce", "--examples", "2")
    for words in (
        ("evaluate", "run", *quick),
        ("diagnose", "run", "--diagnostics", "margins", "--examples", "2"),
        ("compare", "run", "run2"),
        ("transfer", "run", "run", *quick),
        ("train", "--data", "blobs.npz", "--epochs", "1", "--model", "mlp", "--out", "run", "--resume"),
    ):
        assert main(words) in (0, 1, 2), words
        assert not Path("EXECUTED").exists(), words
    with suppress(InputError):
        load_run("run")
    assert not Path("EXECUTED").exists()


def test_the_runs_of_a_matrix_do_not_execute_code(folder: Path) -> None:
    Path("other").mkdir()
    Path("other", BEST).write_bytes(Path("run", BEST).read_bytes())
    for file in ("run/config.yaml", "other/config.yaml"):
        write({"model": {"class_path": "evil:Net"}}, file)
    assert "--trust" in refused("transfer", "run", "other")


@pytest.mark.parametrize(
    "content",
    [
        {"model": "evil:Net"},
        {"method": "evil:Net"},
        {"method": {"class_path": "awp", "init_args": {"method": "evil:Net"}}},
        {"method": {"class_path": "at", "init_args": {"maximiser": {"class_path": "evil.Net"}}}},
        {"data": "evil:data"},
        {"extra": "evil:data"},
        {"trust": True, "model": "evil:Net"},
        {"config": "c.yaml"},
        {"model": "os:system", "model.command": "touch EXECUTED"},
    ],
    ids=str,
)
def test_a_config_file_does_not_execute_code(folder: Path, content: dict[str, Any]) -> None:
    Path("c.yaml").write_text(yaml.safe_dump({"data": "blobs.npz", "epochs": 1} | content))
    refused("train", "--config", "c.yaml", "--out", "new")
    refused("sweep", "--config", "c.yaml", "--over", "seed=0,1", "--out", "sweep")


@pytest.mark.parametrize(("command", "option"), [("evaluate", "suite"), ("diagnose", "diagnostics")])
def test_a_suite_or_diagnostic_of_a_config_file_does_not_execute_code(folder: Path, command: str, option: str) -> None:
    Path("c.yaml").write_text(f"{option}: evil:SUITE\n")
    refused(command, "run", "--config", "c.yaml")


def test_a_folder_with_the_name_of_a_path_vouches_for_nothing(folder: Path) -> None:
    """Only options name code: the name of a folder is its author's."""
    write({"model": {"class_path": "evil:Net"}})
    Path("run").rename("evil:Net")
    refused("evaluate", "evil:Net")
    refused("evaluate", "evil:Net", "--out", "evil.Net")


def test_the_users_word_is_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "evil:Net"
    with pytest.raises(InputError, match="stands in a file"):
        follow(path, "--model", Trust())
    assert not Path("EXECUTED").exists()
    trusted = folder / "home/unperturbed/trusted"
    trusted.parent.mkdir(parents=True)
    trusted.write_text(f"relative\n\n{folder / 'run'}\n")
    assert Trust().of_file(folder / "run", {"model": {"class_path": path}}).named == {"evil.Net"}
    assert Trust().of_file(folder / "running", {"model": {"class_path": path}}).named == frozenset()
    assert isinstance(follow(path, "--model", Trust().naming([path])), type)
    assert Path("EXECUTED").exists() and sys.path[-1] == str(folder)


def test_a_library_in_the_current_folder_is_not_a_known_one(folder: Path) -> None:
    Path("timm.py").write_text(EVIL)
    Path("harmless.py").write_text("def net(): ...")
    follow("harmless:net", "--model", OWN)  # since then the current folder is looked at, too
    with pytest.raises(InputError):
        follow("timm:Net", "--model", Trust())
    assert not Path("EXECUTED").exists()


def returns_text() -> str:
    return ""


def returns_a_net() -> nn.Module:
    return nn.Linear(2, 2)


def says_nothing():  # type: ignore[no-untyped-def]
    return nn.Linear(2, 2)


def test_what_cannot_be_a_network_is_not_called() -> None:
    here = f"{__name__}:"
    assert all(may_make(each, nn.Module, here + each.__name__, OWN) for each in (returns_a_net, says_nothing, MLP))
    for other in (returns_text, Path, print, os.system, subprocess.run):
        assert not may_make(other, nn.Module, f"{here}other", OWN)
    assert not may_make(returns_a_net, nn.Module, "unperturbed.some:net", Trust())
    assert may_make(returns_a_net, nn.Module, "timm:net", Trust())
    assert not may_make(says_nothing, nn.Module, "timm:net", Trust())
    with pytest.raises(InputError, match="standard library"):
        follow("os:system", "--model", OWN)


def test_values_of_arguments_are_looked_at_before_they_are_imported(folder: Path) -> None:
    from collections.abc import Callable

    for annotation in (Callable, type, nn.Module, Callable[[int], int] | None, list[type]):
        with pytest.raises(InputError, match="stands in a file"):
            convert(["evil.Net"] if annotation == list[type] else "evil.Net", annotation, "--x", Trust())
    assert convert("resnet18.a1_in1k", str, "--x", Trust()) == "resnet18.a1_in1k"
    check_nested("torch.nn.GELU", "--x", Trust(), strings=True)
    for path in ("torch.hub.load", "torch.os", "torch.serialization.os.system"):
        with pytest.raises(InputError):
            check_nested(path, "--x", Trust(), strings=True)
    assert not Path("EXECUTED").exists()


HIDDEN: list[Any] = [
    '{"class\\u005fpath": "evil.Net"}',
    "? class_path\n: evil.Net",
    '{"a": &a {"class\\x5fpath": evil.Net, "when": 2024-99-99}, "b": *a}',
    '\'{"class\\x5fpath": "evil.Net"}\'',
    {"deep": ['{"class\\x5fpath": evil.Net}']},
]
IN_TEXT: list[Any] = [
    "[evil.Net]",
    "- evil.Net",
    "{a: evil.Net}",
    "list[evil.Net]",
    "evil.Net | None",
    "(evil).Net",
    "evil . Net",
    "\u2118evil.Net",
    {"evil.Net": 1},
    ["'evil.Net'"],
]


@pytest.mark.parametrize("value", HIDDEN + IN_TEXT, ids=repr)
def test_a_path_within_a_text_is_seen_however_it_is_written(folder: Path, value: Any) -> None:
    """jsonargparse reads texts as YAML and as expressions of types, and imports what it finds there."""
    from collections.abc import Callable, Mapping

    sys.path.append(str(folder))
    Path("\u2118evil.py").write_text(EVIL)
    kinds: list[Any] = [
        type,
        Callable,
        list[type],
        tuple[Callable, ...],
        dict[str, Callable],
        Callable | None,
        nn.Module,
    ]
    kinds += [Mapping[str, type], set[type], *([Any, dict, object] if value in HIDDEN else [])]
    for annotation in kinds:
        with pytest.raises(InputError, match="stands in a file"):
            convert(value, annotation, "--x", Trust())
        assert not Path("EXECUTED").exists()
    assert convert("[evil.Net]", list[type], "--x", Trust().naming("[evil.Net]"))[0].__name__ == "Net"


def test_numbers_and_texts_of_a_file_are_no_paths(folder: Path) -> None:
    from collections.abc import Callable

    for value, annotation in (("0.5", Callable | float), ("1e-3", Callable | float), (0.5, Any), ("a: [b", str)):
        assert str(convert(value, annotation, "--x", Trust())) in (str(value), "0.001")


@pytest.mark.parametrize("place", ["--data", "--extra"])
def test_the_name_of_a_file_vouches_for_no_module(folder: Path, place: str) -> None:
    """`blobs.npz` is data, but reads as the name `npz` in a module `blobs`."""
    Path("blobs.py").write_text(EVIL + "npz = Net\n")
    for path in ("blobs.npz", "blobs:npz"):
        write({"model": {"class_path": path, "init_args": {}}})
        for words in (("evaluate", "run"), ("train", "--config", "run/config.yaml", "--out", "new")):
            refused(*words, place, "blobs.npz") if words[0] == "train" or place == "--data" else None


@pytest.mark.parametrize("name", ["hf-hub:a/b", "HF_HUB:a/b", "local-dir:models/x", " \tlocal-\ndir:x", "https://a/b"])
def test_a_file_may_not_send_a_library_elsewhere_for_its_network(name: str) -> None:
    for path in ("timm.create_model", "timm:create_model"):
        with pytest.raises(InputError, match="stands in a file"):
            check_argument("model_name", name, path, "--model", Trust())
    check_argument("model_name", name, "timm:create_model", "--model", OWN)
    check_argument("model_name", "resnet18.a1_in1k", "timm:create_model", "--model", Trust())
    check_argument("title", "a: b", "mine:Net", "--model", Trust())


@pytest.mark.parametrize("options", [{"trust_remote_code": True}, {"checkpoint_path": "x.pth"}])
def test_a_file_may_not_make_a_library_run_code(options: dict[str, Any]) -> None:
    tree = Tree()
    tree.put([], {"class_path": f"{__name__}:Takes", "init_args": options})
    with pytest.raises(InputError, match="stands in a file"):
        choose(tree, "architectures", "model", trust=Trust().naming(f"{__name__}:Takes"))


class Takes(nn.Module):
    """A network with any options."""

    def __init__(self, **options: Any) -> None:
        super().__init__()


SCRIPT = ["-P", "-c", "import sys; from unperturbed.cli.main import main; sys.exit(main())"]
"""As the console script starts: the current folder is not among the places for modules."""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("program", in_ci(1, [["-m", "unperturbed"], SCRIPT]), ids=["module", "script"])
def test_a_file_of_the_current_folder_shadows_no_module(folder: Path, program: list[str]) -> None:
    for name in ("torch", "queue", "yaml", "typing", "struct", "socket", "numpy", "timm"):
        Path(f"{name}.py").write_text(EVIL.replace("EXECUTED", f"{folder}/SHADOWED-{name}"))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1] / "src")}
    for words in (
        ["methods"],
        ["train", "--data", "blobs.npz", "--epochs", "1", "--method", "erm", "--out", "new"],
        ["evaluate", "new", "--suite", "apgd-ce", "--examples", "4", "--devices", "2"],
    ):
        command = [sys.executable, *program, *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert not [*folder.glob("SHADOWED-*")]
