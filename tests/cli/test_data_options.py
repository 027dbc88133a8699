"""Options on data (--label, --resize) reach them in every command or are refused; a run folder downloads no data."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from test_main import TRAIN, Run
from test_main import run as run

import unperturbed as un
from unperturbed.cli import train
from unperturbed.cli.main import main
from unperturbed.cli.options import parse
from unperturbed.data.forms import hub
from unperturbed.errors import InputError

MODEL = ("--model", "mlp", "--weights", "none.safetensors")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    np.savez("arrays.npz", x=np.ones((40, 2), np.float32), y=np.arange(40) % 2)
    for name, kinds in (("table", 3), ("more", 3), ("other", 2)):
        rows = "\n".join(f"{k / 60},{k % kinds},{k % 2}" for k in range(60))
        Path(f"{name}.csv").write_text(f"length,kind,label\n{rows}\n")


@pytest.mark.parametrize("command", [("train",), *((name, *MODEL) for name in ("evaluate", "curve", "diagnose"))])
@pytest.mark.parametrize("option", [("--label", "age"), ("--resize", "8,8")])
@pytest.mark.parametrize("data", ["arrays.npz", "digits", "package.module:data"])
def test_an_option_that_the_data_do_not_take_ends_in_bad_usage(
    command: tuple[str, ...], option: tuple[str, str], data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--data", data, *option]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert option[0] in err and "does not apply" in err and data in err
    assert not Path("runs").exists()


def planned(*words: str) -> train.Plan:
    return train.plan(parse(train.parser(), ("--data", "table.csv", "--label", "kind", "--threat", "Linf:0.1", *words)))


def test_a_choice_behind_the_data_and_another_one_by_the_option_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", "table.csv?label=label", "--label", "kind"]) == 2
    assert "--data says label=label, but --label is kind" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_columns_in_another_order_are_refused_in_extra_data_and_in_evaluations(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One feature would stand for another, and nothing would show it but a low accuracy."""
    rows = "\n".join(f"{k / 60},{k % 2},{k % 5}" for k in range(60))
    Path("one.csv").write_text(f"a,label,b\n{rows}\n")
    Path("other.csv").write_text(f"b,label,a\n{rows}\n")
    words = ["train", "--data", "one.csv", "--epochs", "1", "--method", "erm", "--threat", "Linf:0.1", "--out", "run"]
    assert main([*words, "--extra", "other.csv"]) == 2
    assert "The features are a, b in training, and b, a in the extra data" in " ".join(capsys.readouterr().err.split())
    assert main(words) == 0
    assert main(["evaluate", "run", "--suite", "pgd", "--data", "other.csv"]) == 2
    assert "The features are a, b in training, and b, a here" in " ".join(capsys.readouterr().err.split())
    assert main(["evaluate", "run", "--data", "one.csv?scale=unit", "--suite", "square", "--examples", "3"]) == 0
    assert "by its own ranges" in " ".join(capsys.readouterr().err.split())


@pytest.mark.filterwarnings("ignore:.*held out as the test split")
def test_extra_data_have_the_label_of_the_data() -> None:
    """With its own `label` column as the label, extra examples would have taught another question."""
    plan = planned("--extra", "more.csv")
    assert plan.extra is not None and plan.extra.classes == ("0", "1", "2")
    assert str(plan.config["extra"]).endswith("more.csv?label=kind")
    plan = planned("--extra", "more.csv?label=label")
    assert plan.extra is not None and plan.extra.classes == ("0", "1")
    with pytest.raises(InputError, match="does not apply"):
        planned("--extra", "arrays.npz?label=kind")


@pytest.mark.long
@pytest.mark.slow
def test_data_that_have_changed_since_the_training_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Another fifth of a longer table is held out, which holds examples that the network was trained on."""
    words = ["train", "--data", "table.csv", "--epochs", "1", "--method", "erm", "--threat", "Linf:0.1", "--out", "run"]
    assert main(words) == 0
    evaluate = ["evaluate", "run", "--suite", "apgd-ce", "--overwrite"]
    assert main(evaluate) == 0
    assert "changed since" not in capsys.readouterr().err
    with Path("table.csv").open("a") as file:
        file.writelines(f"{k / 60},{k % 3},{k % 2}\n" for k in range(60))
    assert main(evaluate) == 0
    assert "training data of run" in (err := " ".join(capsys.readouterr().err.split())) and "changed since" in err


@pytest.mark.parametrize("words", [("evaluate", "runs/a\nb"), ("train", "--data", "digits", "--out", "a\r\nb")])
def test_a_name_with_a_line_break_is_refused_and_printed_in_one_line(words: tuple[str, ...], run: Run) -> None:
    code, _, err = run(*words)
    assert code == 2 and "holds a line break" in err and err.count("\n") == 1 and repr(words[-1]) in err


@pytest.mark.slow
def test_a_run_that_names_data_of_the_hub_downloads_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(repository: str, config: str | None) -> Path:
        raise InputError(f"{repository} was asked for")

    monkeypatch.setattr(hub, "fetch", asked)
    run(*TRAIN)
    config = Path("runs/blobs-at/config.yaml")
    config.write_text(config.read_text().replace(f"data: {Path('blobs.npz').resolve()}", "data: stranger/data"))
    for words in (("evaluate", "runs/blobs-at"), ("curve", "runs/blobs-at"), ("diagnose", "runs/blobs-at")):
        code, _, err = run(*words)
        assert code == 2 and "--data stranger/data" in err and "--trust" in err, err
    for words in (("--data", "stranger/data"), ("--trust",)):
        assert "stranger/data was asked for" in run("evaluate", "runs/blobs-at", *words)[2]
    assert "stranger/data was asked for" in run("train", "--data", "stranger/data")[2]


@pytest.mark.slow
def test_features_of_a_table_have_their_own_eps_or_never_change(capsys: pytest.CaptureFixture[str]) -> None:
    """The label follows the feature that never changes, so that no attack on the others breaks anything."""
    rows = "\n".join(f"{k % 7},{1000 * (k % 2)},{k % 2}" for k in range(60))
    Path("people.csv").write_text(f"age,income,label\n{rows}\n")
    words = ["train", "--data", "people.csv", "--model", "mlp", "--epochs", "20", "--threat", "Linf:3", "--out", "run"]
    assert main([*words, "--feature-eps", "income=0", "--method", "fgsm"]) == 0
    assert un.Run.open(Path("run")).threat.shares == (1.0, 0.0)
    capsys.readouterr()
    evaluate = ["evaluate", "run", "--suite", "apgd-ce", "--json"]
    assert main(evaluate) == 0
    kept = json.loads(capsys.readouterr().out)
    assert main([*evaluate, "--threat", "Linf:3", "--feature-eps", "income=900,age=0"]) == 0
    moved = json.loads(capsys.readouterr().out)
    assert kept["threat"].startswith("Linf:3[1;0]") and moved["threat"].startswith("Linf:3[0;300]")
    assert kept["robust_accuracy"] > 0.9 > 0.1 > moved["robust_accuracy"]
    assert main(["evaluate", "run", "--suite", "apgd-ce", "--threat", "L2:900"]) == 0
    assert "features that never changed there may change" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_adversarial_examples_of_a_table_with_shares_are_exported(capsys: pytest.CaptureFixture[str]) -> None:
    """They are compared with their originals in the distance of the threat, to which a share of eps is 1."""
    rows = "\n".join(f"{k % 7},{1000 * (k % 2)},{k % 2}" for k in range(60))
    Path("people.csv").write_text(f"age,income,label\n{rows}\n")
    words = ["train", "--data", "people.csv", "--model", "mlp", "--epochs", "20", "--threat", "Linf:3", "--out", "run"]
    assert main([*words, "--feature-eps", "income=900,age=0", "--method", "erm", "--validation", "0"]) == 0
    assert main(["evaluate", "run", "--suite", "apgd-ce"]) == 0
    capsys.readouterr()
    assert main(["export", "run", "--adversarial", "points.npz"]) == 0, capsys.readouterr().err
    with np.load("points.npz") as points:
        moved = np.abs(points["adversarial"] - points["inputs"]).max(axis=0)
    assert moved[0] == 0 and 0 < moved[1] <= 900 * (1 + 1e-6)


@pytest.mark.filterwarnings("ignore:.*held out:UserWarning")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("incom=5", "Did you mean 'length'|Known are|kind"),
        ("length", "write NAME=EPS"),
        ("length=x", "write NAME=EPS"),
        ("length=-2", "gives 'length' the eps -2: give 0 or more"),
    ],
)
def test_a_wrong_eps_of_a_feature_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        planned("--feature-eps", text)


def test_images_have_no_eps_of_single_features(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", "digits", "--feature-eps", "0=1"]) == 2
    assert "for tables" in " ".join(capsys.readouterr().err.split())
