"""The program as a user meets it: exit codes, what goes to which stream, and what is in the run folder."""

import errno
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file

from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.catalogue import listing
from unperturbed.cli.main import COMMANDS, main
from unperturbed.evaluation import accuracy
from unperturbed.imports import OWN, follow
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.suites.pgd import PGD_SUITE

Run = Callable[..., tuple[int, str, str]]
TRAIN = ("train", "--data", "blobs.npz", "--threat", "Linf:0.05", "--epochs", "1", "--method.steps", "2")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs a command in a folder with a small dataset of 120 training and 12 test examples."""
    return runner(tmp_path, monkeypatch, capsys, 120)


def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], training: int) -> Run:
    """Return what runs a command in a folder with a small dataset: exit code, standard output, standard error.

    The suite is a short one under its usual name.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    rng = np.random.default_rng(0)
    y = np.arange(132) % 2
    x = np.clip(0.3 + 0.4 * y[:, None] + 0.08 * rng.normal(size=(132, 4)), 0, 1).astype(np.float32)
    np.savez("blobs.npz", x_train=x[:training], y_train=y[:training], x_test=x[training:], y_test=y[training:])

    quick = Suite("pgd", (GradientAttack("PGD-CE", cross_entropy, PGD(steps=5), restarts=2),), PGD_SUITE.note)
    monkeypatch.setitem(accuracy.SUITES, "pgd", quick)

    def call(*words: str) -> tuple[int, str, str]:
        code = main(words)
        out, err = capsys.readouterr()
        return code, out, err

    return call


def loaded(*words: str) -> str:
    """Return the modules that a command has loaded when it ends, in a process of its own."""
    code = (
        f"import sys; from unperturbed.cli.main import main; main({list(words)}); print(*sys.modules, file=sys.stderr)"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("methods",), ("models",), ("datasets", "--json"), ("--help",), ("train", "--help"), ("sweep", "--help")]
)
def test_listings_and_help_answer_without_loading_torch(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(main.__globals__["__file__"]).parents[2]))
    assert not {"torch", "numpy", "sklearn"} & set(loaded(*words).split())


def test_help_goes_to_standard_output_and_names_the_options(run: Run) -> None:
    code, out, _ = run("train", "--help")
    assert code == 0 and all(option in out for option in ("--batch-size", "--method", "--threat", "rs-fgsm"))
    code, out, _ = run("--help")
    assert code == 0 and all(command in out for command in COMMANDS)


def test_help_writes_choices_as_they_are_given(run: Run) -> None:
    text = " ".join(run("train", "--help")[1].split())
    assert "{auto,32,bf16,64}" in text and "(default: 10)" in text
    assert not any(noise in text for noise in ("Literal", "Union", "type:", "null", "SUPPRESS"))


@pytest.mark.slow
def test_no_command_is_wrong_usage(run: Run) -> None:
    assert run()[0] == 2


@pytest.mark.parametrize(("command", "some"), [("methods", "trades"), ("models", "small-cnn"), ("datasets", "mnist")])
def test_listings_name_what_there_is(run: Run, command: str, some: str) -> None:
    code, out, err = run(command, "--json")
    assert code == 0 and some in [each["name"] for each in json.loads(out)] and err == ""
    assert some in run(command)[1]


def test_every_listed_class_exists_and_carries_its_name() -> None:
    for folder in ("methods", "maximise", "architectures"):
        for entry in listing(folder).values():
            assert follow(entry.path, "", OWN).name == entry.name  # type: ignore[attr-defined]
            assert entry.summary


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("trian",), ["'trian'", "Did you mean 'train'"]),
        (("train", "--data", "digitz"), ["digitz", "digits"]),
        (("train",), ["--data is missing"]),
        (("train", "--data", "blobs.npz", "--examples", "100000"), ["100000", "training examples"]),
        ((*TRAIN, "--method", "tradse"), ["tradse", "'trades'"]),
        ((*TRAIN, "--epoch", "1"), ["--epoch", "'--epochs'"]),
        ((*TRAIN, "--epochs", "many"), ["--epochs", "many", "whole number"]),
        ((*TRAIN, "--epochs", "0"), ["epochs is 0"]),
        ((*TRAIN, "--threat", "Linf:-0.1"), ["-0.1"]),
        ((*TRAIN, "--threat", "Linf:__import__('os')"), ["not a threat"]),
        ((*TRAIN, "--bounds", "0"), ["--bounds", "LOW,HIGH"]),
        ((*TRAIN, "--bounds", "0.4,0.6"), ["outside the bounds"]),
        ((*TRAIN, "--device", "cuda:99"), ["cuda:99"]),
        ((*TRAIN, "--model", "mpl"), ["mpl", "'mlp'"]),
        ((*TRAIN, "--model.hiden", "[8]"), ["hiden", "'hidden'"]),
        ((*TRAIN, "--model.hidden", "wide"), ["--model.hidden", "'wide'"]),
        ((*TRAIN, "--track", "tensorbord"), ["tensorbord"]),
        ((*TRAIN, "--weights", "page.pt"), ["HTML"]),
        ((*TRAIN, "--config", "absent.yaml"), ["absent.yaml"]),
        (("evaluate", "absent"), ["absent", "no run folder"]),
        (("evaluate", "--suite", "standrad"), ["standrad", "'standard'"]),
        (("evaluate", "--model", "mlp", "--data", "blobs.npz"), ["trained"]),
        (("evaluate", "--model", "mlp", "--weights", "page.pt"), ["--data is missing"]),
    ],
)
def test_bad_input_ends_with_2_and_a_remedy_before_a_run_folder_is_made(
    run: Run, words: tuple[str, ...], parts: list[str]
) -> None:
    Path("page.pt").write_text("<!DOCTYPE html><html><body>Sign in</body></html>")
    code, out, err = run(*words)
    assert (code, out) == (2, "") and all(part in err for part in parts), err
    assert not Path("runs").exists()


@pytest.mark.slow
def test_train_and_evaluate_from_the_command_line(run: Run) -> None:
    code, out, err = run(*TRAIN, "--json")
    trained = json.loads(out)
    assert code == 0 and trained["run"] == "runs/blobs-at" and 0 <= trained["robust_accuracy"] <= 1, err

    code, out, err = run("evaluate", "runs/blobs-at", "--suite", "pgd", "--examples", "6", "--json")
    found = json.loads(out)
    assert code == 0 and found["n"] == 6 == sum(found["counts"].values()), err
    assert found["robust_accuracy"] == found["counts"]["survived"] / 6
    assert found["interval"][0] <= found["robust_accuracy"] <= found["interval"][1]
    assert {"name", "broken", "seconds", "forwards", "backwards"} <= set(found["attacks"][0])
    assert json.loads(Path("runs/blobs-at/evaluation/first-6/pgd.json").read_text())["n"] == 6

    code, out, _ = run("evaluate", "runs/blobs-at", "--suite", "pgd", "--examples", "6")
    assert "upper bound only: no AutoAttack" in out and "n=6" in out and "survived" in out


@pytest.mark.slow
def test_several_radii_give_a_curve_and_keep_the_headline_apart(run: Run) -> None:
    run(*TRAIN)
    code, out, _ = run(
        "evaluate", "runs/blobs-at", "--suite", "pgd", "--examples", "4", "--eps", "1/100,0.05,1", "--json"
    )
    found = json.loads(out)
    assert [point["eps"] for point in found["curve"]] == [0.01, 0.05, 1.0] and found["threat"] == "Linf:0.05"
    shares = [point["robust_accuracy"] for point in found["curve"]]
    assert shares == sorted(shares, reverse=True) and shares[-1] == 0 and found["robust_accuracy"] == shares[1]
    folders = {path.name for path in Path("runs/blobs-at/evaluation").iterdir()}
    assert folders == {"first-4", "Linf-0.01-first-4", "Linf-1-first-4"}


@pytest.mark.slow
def test_other_data_does_not_overwrite_the_result_of_a_run(run: Run) -> None:
    run(*TRAIN)
    Path("blobs.npz").rename("shifted.npz")
    code, _, err = run(
        "evaluate", "runs/blobs-at", "--suite", "pgd", "--data", "shifted.npz", "--examples", "4", "--threat", "L2:0.1"
    )
    assert code == 0, err
    assert Path("runs/blobs-at/evaluation/shifted-L2-0.1-first-4/pgd.json").exists()
    assert not Path("runs/blobs-at/evaluation/pgd.json").exists()


@pytest.mark.long
@pytest.mark.slow
def test_examples_are_the_first_or_random_ones_and_missing_classes_are_told(run: Run) -> None:
    run(*TRAIN)
    code, _, err = run("evaluate", "runs/blobs-at", "--suite", "pgd", "--examples", "1")
    assert code == 0 and "1 class is missing (1)" in err
    assert run("evaluate", "runs/blobs-at", "--examples-seed", "1")[0] == 2
    assert run("evaluate", "runs/blobs-at", "--examples", "0")[0] == 2
    code, out, err = run("evaluate", "runs/blobs-at", "--suite", "pgd", "--examples", "13", "--eps", "0", "--json")
    assert json.loads(out)["n"] == 12 and "only 12" in err
    random = (
        "evaluate",
        "runs/blobs-at",
        "--suite",
        "pgd",
        "--examples",
        "3",
        "--examples-seed",
        "1",
        "--eps",
        "0",
        "--json",
    )
    code, out, err = run(*random)
    assert code == 0 and json.loads(out)["n"] == 3, err
    folders = {path.name for path in Path("runs/blobs-at/evaluation").iterdir()}
    assert {"first-1", "Linf-0-random-3-seed-1", "Linf-0"} <= folders, "each has a folder of its own"
    model = Path("runs/blobs-at/best.safetensors")
    weights = {name: value * 0.9 for name, value in load_file(model).items()}
    save_file(weights, model)
    code, _, err = run(*random)
    assert code == 2 and "holds another evaluation (weights was" in err and "--overwrite" in err
    code, out, err = run(*random, "--overwrite")
    assert code == 0, err


def test_training_takes_the_first_examples_alone(run: Run) -> None:
    code, _, err = run(*TRAIN, "--examples", "60", "--batch-size", "8", "--out", "few")
    assert code == 0, err
    config = Path("few/config.yaml").read_text()
    assert "examples: 60" in config and "training_examples: 54" in config


@pytest.mark.slow
def test_a_folder_that_holds_a_run_is_not_overwritten(run: Run) -> None:
    assert run(*TRAIN)[0] == 0
    config = Path("runs/blobs-at/config.yaml").read_text()
    code, _, err = run(*TRAIN)
    assert code == 2 and "runs/blobs-at" in err and "--resume" in err
    code, _, err = run(*TRAIN, "--seed", "1", "--resume")
    assert code == 2 and "another run" in err and "seed" in err
    assert Path("runs/blobs-at/config.yaml").read_text() == config
    assert run(*TRAIN, "--resume")[0] == 0


def test_resume_without_a_run_is_refused_and_without_a_checkpoint_begins_in_words(run: Run) -> None:
    code, _, err = run(*TRAIN, "--out", "typo", "--resume")
    assert code == 2 and "there is no run folder typo" in err and "Leave out --resume" in err
    assert not Path("typo").exists()
    Path("killed").mkdir()  # before its first file
    code, _, err = run(*TRAIN, "--out", "killed", "--resume")
    assert code == 0 and "no checkpoint in killed yet: the training starts from the beginning" in err, err


@pytest.mark.slow
def test_the_written_config_repeats_the_run(run: Run) -> None:
    _, first, _ = run(*TRAIN, "--method", "trades", "--method.beta", "2", "--model.hidden", "[8]", "--json")
    _, second, err = run("train", "--config", "runs/blobs-trades/config.yaml", "--out", "again", "--json")
    first_config, second_config = (
        yaml.safe_load(Path(folder, "config.yaml").read_text()) for folder in ("runs/blobs-trades", "again")
    )
    assert first_config == second_config, err
    names = ("clean_accuracy", "robust_accuracy", "best_epoch")
    assert [json.loads(first)[name] for name in names] == [json.loads(second)[name] for name in names]
    assert Path("runs/blobs-trades/best.safetensors").read_bytes() == Path("again/best.safetensors").read_bytes()


def test_yaml_takes_short_names_and_the_command_line_goes_over_it(run: Run) -> None:
    settings = {"data": "blobs.npz", "threat": "L2:0.1", "epochs": 1, "bounds": [0, 1], "batch_size": 16}
    method = {"class_path": "trades", "init_args": {"beta": 3, "maximiser": {"class_path": "pgd", "init_args": {}}}}
    Path("run.yaml").write_text(yaml.safe_dump(settings | {"method": method, "model": "mlp", "model.hidden": [4]}))
    code, _, err = run("train", "--config", "run.yaml", "--method.steps", "1", "--threat", "L2:0.2", "--out", "o")
    config = yaml.safe_load(Path("o/config.yaml").read_text())
    assert code == 0, err
    assert config["method"]["init_args"]["beta"] == 3
    assert config["method"]["init_args"]["maximiser"]["init_args"]["steps"] == 1
    assert (config["threat"], config["bounds"], config["recipe"]["batch_size"]) == ("L2:0.2", [0.0, 1.0], 16)
    assert config["model"]["init_args"]["hidden"] == [4]


OWN_METHOD = """
from unperturbed.methods.base import Method

class Other(Method):
    ramp = 0.5

    def __init__(self, method, factor=1):
        self.method, self.factor = method, factor

    def perturb(self, *given):
        return self.method.perturb(*given)

    def loss(self, *given):
        return {name: self.factor * term for name, term in self.method.loss(*given).items()}
"""


def test_a_method_of_ones_own_without_annotations_trains_and_resumes(run: Run, request: pytest.FixtureRequest) -> None:
    Path("my_method.py").write_text(OWN_METHOD)
    request.addfinalizer(lambda: sys.modules.pop("my_method", None))
    words = [*TRAIN[:-2], "--method", "my_method:Other", "--method.method", "at", "--method.method.steps", "2"]
    code, _, err = run(*words, "--method.factor", "0.5")
    assert code == 0 and Path("runs/blobs-Other").is_dir(), err
    code, _, err = run(*words, "--method.factor", "0.5", "--resume")
    assert code == 0, err


OWN_MODEL = """
from torch import nn

class Net(nn.Module):
    def __init__(self, input_shape, classes, width=3):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(input_shape[0], width), nn.ReLU(), nn.Linear(width, classes))

    def forward(self, x):
        return self.layers(x)
"""


@pytest.mark.slow
def test_a_model_of_ones_own_lies_in_the_current_folder(run: Run, request: pytest.FixtureRequest) -> None:
    Path("my_net.py").write_text(OWN_MODEL)
    request.addfinalizer(lambda: sys.modules.pop("my_net", None))
    code, _, err = run(*TRAIN, "--model", "my_net:Net", "--model.width", "5", "--out", "own", "--bounds", "none")
    assert code == 0, err
    assert yaml.safe_load(Path("own/config.yaml").read_text())["model"]["init_args"]["width"] == 5
    code, _, err = run("evaluate", "own", "--suite", "pgd", "--examples", "2", "--eps", "0")
    assert code == 2 and "--model my_net.Net" in err.replace(":", ".") and "--trust" in err
    for vouched in (("--model", "my_net:Net"), ("--trust",)):
        assert run("evaluate", "own", "--suite", "pgd", "--examples", "2", "--eps", "0", *vouched)[0] == 0


@pytest.mark.slow
def test_weights_are_evaluated_without_a_run_folder(run: Run) -> None:
    run(*TRAIN)
    weights = "runs/blobs-at/best.safetensors"
    words = (
        "evaluate",
        "--suite",
        "pgd",
        "--model",
        "mlp",
        "--weights",
        weights,
        "--data",
        "blobs.npz",
        "--examples",
        "4",
        "--json",
    )
    alone = json.loads(run(*words, "--threat", "Linf:0.05", "--out", "alone")[1])
    inside = json.loads(run("evaluate", "runs/blobs-at", "--suite", "pgd", "--examples", "4", "--json")[1])
    assert alone["counts"] == inside["counts"] and Path("alone/evaluation/first-4/pgd.json").exists()
    code, _, err = run(*words, "--threat", "Linf:0.1", "--out", "alone")
    assert code == 2 and "another run" in err


def test_an_interruption_ends_with_130_and_says_how_to_go_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from unperturbed.training import loop

    def interrupted(*_: object, out: Path, **__: object) -> None:
        Path(out, "checkpoints").mkdir(parents=True)
        Path(out, "checkpoints", "last.pt").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train", interrupted)
    code, out, err = run(*TRAIN)
    assert (code, out) == (130, "") and f"unperturbed {' '.join(TRAIN)} --resume" in err


WRAPPED = {
    "awp": "awp --method.method constrained --method.method.method llr --method.method.nominal_loss 0.3",
    "scorpio": "constrained --method.method scorpio --method.nominal_accuracy 0.9",
    "trades": "constrained --method.method trades --method.method_loss 0.5 --method.every epoch",
}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_methods_train_and_resume_in_the_same_bits(
    name: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unperturbed.training import engine

    words = (*TRAIN[:5], "--epochs", "3", "--method", *WRAPPED[name].split())
    code, out, err = run(*words, "--out", "straight", "--json")
    assert code == 0 and json.loads(out)["conclusions"], err
    step, calls = engine.optimisation_step, []

    def interrupted(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return step(*given)

    monkeypatch.setattr(engine, "optimisation_step", interrupted)
    code, _, err = run(*words, "--out", "stopped")
    assert code == 130 and "--resume" in err
    code, out, err = run(*words, "--out", "stopped", "--resume", "--json")
    assert code == 0 and json.loads(out)["conclusions"], err
    for file in ("model.safetensors", "best.safetensors"):
        assert Path("straight", file).read_bytes() == Path("stopped", file).read_bytes()


def test_a_full_disk_ends_with_1_and_says_how_to_go_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from unperturbed.training import loop

    def full(*_: object, out: Path, **__: object) -> None:
        if out.name == "begun":
            out.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loop, "train", full)
    code, out, err = run(*TRAIN)
    assert (code, out) == (1, "") and "Nothing was written; begin again" in err and "--resume" not in err
    code, out, err = run(*TRAIN, "--out", "begun")
    assert (code, out) == (1, "") and "No space left" in err and "--resume" in err


def test_warnings_are_lines_on_standard_error(run: Run) -> None:
    code, out, err = run(*TRAIN, "--batch-size", "5000", "--json")
    assert code == 0 and json.loads(out) and "warning: The batch size 5000 is larger than the data" in err


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_closed_stream_is_no_error(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`unperturbed models >&-` leaves Python without the stream."""
    monkeypatch.setattr(sys, stream, None)
    assert main(["models"]) == 0 and main(["modles"]) == 2
    getattr(sys, stream).close()


def test_characters_that_the_terminal_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_written, encoding="ascii"))
    monkeypatch.setattr("unperturbed.cli.main._overview", lambda: "é → x\udcff")
    assert main(["--help"]) == 0
    sys.stdout.flush()
    assert bytes_written.getvalue() == rb"\xe9 \u2192 x\udcff" + b"\n"


def test_an_error_of_the_system_says_what_to_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("unperturbed.cli.main._overview", fail)
    assert main(["--help"]) == 1
    assert "No space left on device: a file, or the output of the command. Check" in capsys.readouterr().err
