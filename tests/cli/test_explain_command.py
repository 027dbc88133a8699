"""`unperturbed explain` as a user meets it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_main import Run, runner

pytest.importorskip("captum")
TRAIN = ("train", "--data", "digits", "--examples", "64", "--threat", "Linf:0.1", "--epochs", "1", "--method", "erm")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the runs `a` and `b` on the digits of scikit-learn."""
    from unperturbed.cli.main import main

    folder = tmp_path_factory.mktemp("explained")
    for seed, name in enumerate("ab"):
        assert main([*TRAIN, "--model", "mlp", "--seed", str(seed), "--out", str(folder / name)]) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs a command in a folder with copies of the two runs."""
    import shutil

    call = runner(tmp_path, monkeypatch, capsys, 100)
    for name in "ab":
        shutil.copytree(trained / name, tmp_path / name)
    return call


@pytest.mark.long
@pytest.mark.slow
def test_the_scores_are_printed_with_their_intervals(run: Run) -> None:
    code, out, err = run("explain", "a", "--explanations", "alignment", "--examples", "8")
    assert code == 0, err
    (number,) = (
        number
        for number in json.loads(Path("a/explanation/explanation.json").read_text())["explanations"]["alignment"][
            "numbers"
        ]
        if number["name"] == "Etmann alignment"
    )
    assert "scores, with 95% intervals" in out and f"{number['value']:.2g}"[:4] in out


@pytest.mark.long
@pytest.mark.slow
def test_two_runs_are_explained_side_by_side_and_paired_over_examples(run: Run) -> None:
    code, out, err = run(
        "explain", "a", "b", "--explanations", "alignment,saliency", "--examples", "8", "--json", "--figures", "svg,png"
    )
    assert code == 0, err
    result = json.loads(out)
    assert [model["model"] for model in result["models"]] == ["a", "b"]
    side = json.loads(Path("explanation/side-by-side.json").read_text())
    assert side["differences"] == result["differences"] and set(side["scores"]["Etmann alignment"]) == {"a", "b"}
    values = []
    for name in "ab":
        index = json.loads((Path(name) / "explanation/explanation.json").read_text())
        (scores,) = [
            entry
            for entry in index["explanations"]["alignment"]["distributions"]
            if entry["name"] == "cosine of gradient and image"
        ]
        assert len(scores["values"]) == 8
        values.append(np.array(scores["values"]))
        for figure in index["figures"]:
            assert (Path(name) / "explanation" / figure["file"]).stat().st_size > 0
    difference = values[0] - values[1]
    number = result["differences"]["cosine of gradient and image"]["b"]
    assert number["value"] == pytest.approx(difference.mean()) and number["n"] == 8
    half = 2.364624 * difference.std(ddof=1) / 8**0.5
    assert number["low"] == pytest.approx(difference.mean() - half, rel=1e-5)
    with Image.open("explanation/side-by-side-saliency.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 8
    assert "<svg" in Path("a/explanation/saliency-natural.svg").read_text()


@pytest.mark.slow
def test_the_pictures_of_a_run_are_the_arrays(run: Run) -> None:
    from safetensors.numpy import load_file

    assert run("explain", "a", "--explanations", "saliency", "--examples", "4")[0] == 0
    folder = Path("a/explanation")
    grid = json.loads((folder / "saliency-natural.json").read_text())
    image = load_file(folder / "explanation.safetensors")["saliency/natural_image"]
    assert grid["columns"][0] == "image" and len(grid["rows"]) == 4
    for row, pixels in zip(grid["rows"], image, strict=True):
        with Image.open(folder / row["images"][0]) as picture:
            assert np.abs(np.asarray(picture.convert("L")) - 255 * pixels[0]).max() <= 1


def test_an_explanation_by_import_path(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.py").write_text(
        "from unperturbed.examinations.explanations.base import Explanation\n"
        "from unperturbed.findings import Finding\n"
        "def counted(subject):\n"
        "    return Explanation(Finding('Count', f'{len(subject.test.x)} inputs.'))\n"
        "nothing = 3\n"
    )
    monkeypatch.syspath_prepend(str(Path.cwd()))
    code, out, err = run("explain", "a", "--explanations", "mine:counted", "--examples", "3", "--json")
    assert code == 0, err
    assert json.loads(out)["models"][0]["explanations"]["counted"]["summary"] == "3 inputs."
    code, _, err = run("explain", "a", "--explanations", "mine:nothing")
    assert code == 2 and "mine:nothing is no function" in err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("a", "--explanations", "salience"), "saliency"),
        (("a", "--figures", "gif"), "'gif'"),
        (("a", "a"), "named twice"),
        (("a", "--threat", "Linf:0.1,L2:1"), "name one"),
        (("nowhere",), "nowhere"),
    ],
)
def test_wrong_arguments_exit_with_2(run: Run, arguments: tuple[str, ...], text: str) -> None:
    code, _, err = run("explain", *arguments)
    assert code == 2 and text in err


def test_explain_runs_refuses_no_run_and_a_run_twice(run: Run) -> None:
    import unperturbed as un

    for runs in ([], ["a", "a/"]):
        with pytest.raises(un.InputError, match="name one or more"):
            un.explain_runs(runs)
    explained = un.explain_runs(["a"], explanations=["alignment"], examples=4)
    assert explained.side is None and explained.differences == {} and str(explained.threat) == "Linf:0.1"
