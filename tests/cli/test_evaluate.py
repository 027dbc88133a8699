"""`unperturbed evaluate` as a user meets it: several threats, own suites and models, and what is taken away."""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from support.toys import Function, uniform
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.cli.evaluate import _as_autoattack
from unperturbed.cli.main import main
from unperturbed.evaluation import accuracy
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.losses import cross_entropy, margin
from unperturbed.maximise.pgd import PGD
from unperturbed.runs.verify import read_sealed, read_verified, write_sealed
from unperturbed.suites.autoattack import STANDARD
from unperturbed.suites.pgd import PGD_SUITE
from unperturbed.threat import Threat

Run = Callable[..., tuple[int, str, str]]
QUICK = (GradientAttack("PGD-CE", cross_entropy, PGD(steps=5), restarts=2),)
OWN = '''
import torch
from torch import nn
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD

class Net(nn.Sequential):
    """As torchvision's networks are: no normalisation inside, num_classes, and weights."""

    def __init__(self, num_classes):
        super().__init__(nn.Flatten(), nn.Linear(48, num_classes))
        with torch.no_grad():
            self[1].bias.copy_(-self[1].weight.sum(1) / 2)

def net(*, weights=None, progress=True, **kwargs):
    return Net(**kwargs)

def trained():
    torch.manual_seed(0)
    return Net(num_classes=3)

SUITE = Suite("mine", (GradientAttack("PGD-margin", margin, PGD(steps=3)),), "three steps")
FAKE = Suite("standard", SUITE.attacks, "not AutoAttack")
'''


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Return what runs a command in a folder with 8-bit images and a module of the user's own.

    The suites `pgd` and `standard` are short ones under their usual names.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("own.py").write_text(OWN)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    with torch.no_grad():
        model[1].bias.copy_(-model[1].weight.sum(1) / 2)  # no class is likelier than another
    torch.save(model.state_dict(), "w.pt")
    x = np.random.default_rng(0).integers(0, 256, (40, 3, 4, 4), dtype=np.uint8)
    y = model(torch.from_numpy(x).float() / 255).argmax(1).numpy()
    np.savez("images.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    np.savez("single.npz", x=x, y=y)
    for name, suite in (("pgd", PGD_SUITE), ("standard", STANDARD)):
        monkeypatch.setitem(accuracy.SUITES, name, Suite(name, QUICK, suite.note))

    def call(*words: str) -> tuple[int, str, str]:
        code = main(words)
        out, err = capsys.readouterr()
        return code, out, err

    yield call
    sys.modules.pop("own", None)


MINE = ("evaluate", "--suite", "pgd", "--model", "own:trained", "--data", "images.npz", "--out", "out")


# Several threats


@pytest.mark.slow
def test_several_threats_give_the_worst_case(run: Run) -> None:
    code, out, err = run(*MINE, "--threat", "Linf:4/255", "--threat", "L2:0.1", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [each["threat"] for each in found["threats"]] == ["Linf:4/255", "L2:0.1"]
    assert found["robust_accuracy"] <= min(each["robust_accuracy"] for each in found["threats"])
    assert found["threat"] == "Linf:4/255 or L2:0.1" and found["n"] == 40 == sum(found["counts"].values())
    evaluation = Path("out/evaluation")
    assert json.loads((evaluation / "pgd.json").read_text())["threat"] == "Linf:4/255"
    assert json.loads((evaluation / "L2-0.1/pgd.json").read_text())["threat"] == "L2:0.1"
    assert read_verified(evaluation / "pgd-union-Linf-4-255-L2-0.1.json") | {"selection": "all"} == found

    code, out, _ = run(*MINE, "--threat", "Linf:4/255,L2:0.1")
    assert code == 0 and "worst case over Linf:4/255 and L2:0.1" in out and "n=40" in out
    code, out, _ = run(*MINE, "--threat", "Linf:4/255", "--json")
    assert code == 0 and "threats" not in json.loads(out)


@pytest.mark.slow
def test_the_searches_run_as_the_options_say(run: Run) -> None:
    """The table and the record say how; without these options they say nothing."""
    words = (*MINE[:-1], "tuned", "--threat", "Linf:4/255")
    code, out, err = run(*words, "--layout", "channels-last", "--tune", "auto", "--batch-size", "16")
    assert code == 0, err
    assert "channels-last, batches of 16; not measured" in out
    environment = json.loads(Path("tuned/evaluation/pgd.json").read_text())["environment"]
    assert (environment["channels_last"], environment["compiled"], environment["tuning"]) == (True, False, {})
    code, out, _ = run(*words)
    assert code == 0 and "channels-last, batches of 16" in out, "the finished evaluation keeps its choice"
    code, out, _ = run(*MINE, "--threat", "Linf:4/255")
    assert code == 0 and "batches of" not in out
    assert run(*MINE, "--tune", "fast")[0] == 2 and run(*MINE, "--tune", "0")[0] == 2


@pytest.mark.slow
def test_threats_may_stand_in_yaml_and_the_command_line_goes_over_it(run: Run) -> None:
    Path("t.yaml").write_text("threat: [Linf:4/255, L2:0.1]\nquantize: false\n")
    found = json.loads(run(*MINE, "--config", "t.yaml", "--json")[1])
    assert len(found["threats"]) == 2 and "quantised" not in found["threats"][0]
    assert json.loads(run(*MINE, "--config", "t.yaml", "--threat", "Linf:4/255", "--json")[1])["threat"] == "Linf:4/255"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--threat", "Linf:4/255,L2:0.1", "--eps", "0.1"), ["--eps", "2"]),
        (("--threat", "Linf:0.1", "--threat", "Linf:0.10"), ["twice", "Linf:0.1"]),
        (("--threat", "Linf:0.1,"), ["'' is not a threat"]),
        (("--suite", "own:SUIT"), ["SUIT", "'SUITE'"]),
        (("--suite", "own:net"), ["own:net", "function", "Suite"]),
        (("--suite", "own:FAKE"), ["'standard'", "none of"]),
        (("--suite", "mine"), ["'mine'", "package.module:SUITE"]),
        (("--quantize", "--suite", "rand"), ["means over draws", "leave it out"]),
        (("--quantize", "--data", "floats.npz"), ["no 8-bit images", "--quantize", "leave it out"]),
        (("--quantize", "--data", "vectors.npz", "--model", "own:net", "--weights", "w.pt"), ["shape (48,)"]),
    ],
)
def test_bad_input_ends_with_2_before_anything_is_written(run: Run, words: tuple[str, ...], parts: list[str]) -> None:
    x, y = np.random.default_rng(0).random((4, 3, 4, 4), dtype=np.float32), np.array([0, 1, 2, 0])
    np.savez("floats.npz", x=x, y=y)
    np.savez("vectors.npz", x=x.reshape(4, 48), y=y)
    code, out, err = run(*MINE, *words)
    assert (code, out) == (2, "") and all(part in err for part in parts), err
    assert not Path("out").exists()


# Own suites, models and data


def test_a_suite_of_ones_own(run: Run) -> None:
    code, out, err = run(*MINE, "--suite", "own:SUITE", "--threat", "Linf:4/255", "--json")
    found = json.loads(out)
    assert code == 0 and found["suite"] == "mine" and [each["name"] for each in found["attacks"]] == ["PGD-margin"], err
    assert Path("out/evaluation/mine.json").exists() and list(Path("out/evaluation/mine").glob("part-*"))
    assert json.loads(Path("out/evaluation/mine-robustbench.json").read_text())["autoattack_acc"] is None


def test_attacks_by_name(run: Run) -> None:
    code, out, err = run(*MINE, "--suite", "PGD-margin,fab-t", "--threat", "Linf:4/255", "--json")
    found = json.loads(out)
    assert code == 0 and [each["name"] for each in found["attacks"]] == ["PGD-margin", "FAB-T"], err
    assert Path("out/evaluation/custom-pgd-margin_fab-t.json").exists() and "not all of AutoAttack" in found["note"]
    code, _, err = run(*MINE, "--suite", "squar", "--threat", "Linf:4/255")
    assert code == 2 and "Did you mean 'square'?" in err


@pytest.mark.slow
def test_a_function_as_torchvisions_with_weights_from_a_file(run: Run) -> None:
    words = (
        "evaluate",
        "--suite",
        "pgd",
        "--model",
        "own:net",
        "--model.num_classes",
        "3",
        "--weights",
        "w.pt",
        "--data",
        "images.npz",
    )
    found = json.loads(run(*words, "--threat", "Linf:4/255", "--out", "theirs", "--json")[1])
    own = json.loads(run(*MINE, "--threat", "Linf:4/255", "--json")[1])
    assert found["counts"] == own["counts"] and found["environment"]["weights"] == own["environment"]["weights"]
    assert found["clean_accuracy"] == 1.0


def test_data_without_a_test_split_are_evaluated_with_a_warning(run: Run) -> None:
    code, out, err = run(*MINE, "--data", "single.npz", "--json")
    assert code == 0 and json.loads(out)["n"] == 40 and "'single' have no test split" in err


@pytest.mark.slow
def test_a_run_is_not_evaluated_on_what_it_was_trained_on(run: Run) -> None:
    code, _, err = run(
        "train", "--data", "single.npz", "--epochs", "1", "--method", "erm", "--model", "mlp", "--out", "r"
    )
    assert code == 0, err
    code, out, err = run("evaluate", "r", "--suite", "pgd")
    assert (code, out) == (2, "") and "not measured on training data" in err
    code, out, err = run("evaluate", "r", "--suite", "pgd", "--data", "images.npz", "--json")
    assert code == 0 and json.loads(out)["n"] == 40, err


@pytest.mark.slow
def test_an_image_folder_with_8_bit_images_written(run: Run) -> None:
    with np.load("images.npz") as arrays:
        for split in ("train", "test"):
            for number, (image, label) in enumerate(zip(arrays["x_test"], arrays["y_test"], strict=True)):
                folder = Path("pictures", split, f"class-{label}")
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number:03d}.png")
    code, out, err = run(*MINE, "--data", "pictures", "--threat", "L2:0.15", "--quantize", "--json")
    found = json.loads(out)
    assert code == 0, err
    own = json.loads(run(*MINE[:-1], "other", "--threat", "L2:0.15", "--json")[1])
    assert found["counts"] == own["counts"]
    index = list(csv.DictReader(Path("out/evaluation/pgd/png/index.csv").read_text().splitlines()))
    assert len(index) == found["counts"]["broken"] > 5
    assert found["quantised"]["counts"]["broken"] == [row["verdict"] for row in index].count("broken")
    assert found["quantised"]["robust_accuracy"] >= found["robust_accuracy"]


# What is taken away


@pytest.mark.slow
def test_images_of_an_earlier_evaluation_do_not_remain(run: Run) -> None:
    words = (*MINE, "--threat", "Linf:4/255")
    code, out, err = run(*words, "--quantize")
    images = Path("out/evaluation/pgd/png")
    assert code == 0 and "Loaded from" not in err
    assert "as 8-bit images" in out and list(images.glob("*.png")) and (images / "index.csv").exists()
    code, _, err = run(*words)
    assert code == 0 and "Loaded from" in err and list(images.glob("*.png"))
    code, _, err = run(*words, "--overwrite")
    assert code == 0 and "Loaded from" in err
    assert not list(images.iterdir()) and not Path("out/evaluation/pgd-8bit.json").exists()


@pytest.mark.slow
def test_what_is_computed_anew_is_not_said_to_be_read_again(run: Run) -> None:
    words = (*MINE, "--threat", "Linf:4/255")
    assert "Loaded from" not in run(*words)[2]
    Path("out/evaluation/pgd.json").unlink()
    assert "Loaded from" in run(*words)[2]
    job = Path("out/evaluation/pgd/job.json")
    write_sealed(job, json.loads(json.dumps(read_sealed(job)).replace("Linf:", "L2:")))
    assert "Loaded from" not in run(*words, "--overwrite")[2]
    next(Path("out/evaluation/pgd").glob("part-*.parquet")).unlink()
    assert "Loaded from" not in run(*words)[2]


@pytest.mark.slow
def test_every_threat_has_its_images(run: Run) -> None:
    code, out, err = run(*MINE, "--threat", "Linf:4/255", "--threat", "L2:0.1", "--quantize", "--json")
    assert code == 0, err
    for each, folder in zip(json.loads(out)["threats"], ("pgd", "L2-0.1/pgd"), strict=True):
        rows = list(csv.DictReader(Path("out/evaluation", folder, "png/index.csv").read_text().splitlines()))
        assert len(rows) == each["counts"]["broken"] == sum(each["quantised"]["counts"].values())
    assert "8-bit images" in run(*MINE, "--threat", "Linf:4/255", "--threat", "L2:0.1", "--quantize")[1]


@pytest.mark.slow
def test_every_radius_has_its_images_of_the_examples_asked_for(run: Run) -> None:
    words = (*MINE, "--threat", "Linf:4/255", "--eps", "2/255,4/255,8/255", "--examples", "random:12")
    code, out, err = run(*words, "--quantize", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["n"] == 12 and found["selection"] == "random:12 seed 0"
    robust = [each["robust_accuracy"] for each in found["curve"]]
    assert robust == sorted(robust, reverse=True) and robust[0] > robust[2]
    indices = [
        list(csv.DictReader(path.read_text().splitlines())) for path in Path("out/evaluation").rglob("png/index.csv")
    ]
    ids = sorted(({row["id"] for row in rows} for rows in indices), key=len)
    assert [len(names) for names in ids] == [round(12 * (found["clean_accuracy"] - share)) for share in robust]
    assert ids[0] < ids[1] < ids[2], "what breaks at one radius breaks at the larger ones"
    assert len(list(Path("out/evaluation").rglob("png/*.png"))) == sum(map(len, ids))


@pytest.mark.slow
def test_robustbenchs_fields_stand_beside_ours(run: Run) -> None:
    code, _, err = run(
        "train", "--data", "images.npz", "--epochs", "1", "--method", "erm", "--model", "mlp", "--out", "r"
    )
    assert code == 0, err
    found = json.loads(run("evaluate", "r", "--suite", "standard", "--threat", "Linf:4/255", "--json")[1])
    info = json.loads(Path("r/evaluation/Linf-4-255/standard-robustbench.json").read_text())
    assert info["autoattack_acc"] == f"{100 * found['robust_accuracy']:.2f}" and info["eps"] == "4/255"
    assert info["architecture"] == "MLP" and info["number_forward_passes"] == 1 and info["additional_data"] is False
    run(*MINE)
    info = json.loads(Path("out/evaluation/pgd-robustbench.json").read_text())
    assert info["autoattack_acc"] is None and info["additional_data"] is None is info["number_forward_passes"]
    assert info["architecture"] == "Net" and info["dataset"] == "images"


def test_autoattacks_suites_are_told_in_its_words(run: Run) -> None:
    code, out, err = run(*MINE, "--suite", "standard", "--threat", "Linf:4/255", "--json")
    found = json.loads(out)
    lines = err.splitlines()
    start = lines.index(f"initial accuracy: {found['clean_accuracy']:.2%}")
    after = f"robust accuracy after PGD-CE: {found['attacks'][0]['robust_after']:.2%} (total time "
    assert code == 0 and lines[start + 1].startswith(after)
    assert lines[start + 2] == "max Linf perturbation: 0.01569"
    assert lines[start + 3] == f"robust accuracy: {found['robust_accuracy']:.2%}"
    assert "initial accuracy" not in run(*MINE, "--threat", "Linf:4/255")[2]


def test_shares_by_the_majority_of_draws_are_said_to_be_so() -> None:
    """Right in seven draws of ten, an example is right by the majority: the words before the last line say so."""

    def logits(x: torch.Tensor) -> torch.Tensor:
        lead = torch.where(torch.rand(len(x)) < 0.7, 1.0, -1.0) + 1e-3 * x.sum(1)
        return torch.stack([lead, -lead], dim=1)

    means = Suite("rand", (GradientAttack("margin", margin, PGD(steps=2), draws=2),), "a test")
    data = uniform(40, 4), torch.zeros(40, dtype=torch.int64)
    outcome = evaluate(Function(logits), data, Threat("Linf", 0.01), means)
    lines = _as_autoattack(outcome)
    assert lines[1].startswith("by the majority of draws, robust accuracy after MARGIN: 100.00%")
    assert lines[-1] == f"robust accuracy: {outcome.robust_accuracy.value:.2%}" and outcome.robust_accuracy.value < 0.75
