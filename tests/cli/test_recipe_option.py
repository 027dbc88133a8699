"""`train --recipe`: what it expands to is printed and recorded, and given options win."""

from pathlib import Path

import pytest
import yaml
from test_main import TRAIN, Run
from test_main import run as run


def recorded(folder: str) -> dict[str, object]:
    config = yaml.safe_load(Path(folder, "config.yaml").read_text())
    return {**config["recipe"], **(config.get("notes") or {})}


@pytest.mark.long
@pytest.mark.slow
def test_the_record_has_what_the_recipe_expanded_to(run: Run) -> None:
    code, _, err = run(*TRAIN, "--recipe", "strong", "--schedule", "cosine", "--epochs", "60", "--out", "o")
    assert code == 0 and "Recipe strong: averaging 0." in err, err
    found = recorded("o")
    assert found["named_recipe"] == "strong" and found["schedule"] == "cosine" and found["epochs"] == 60
    assert found["averaging"] == round(1 - 1 / max(1.0, 60 * (108 // 32) * 2000 / 38_200), 5)
    code, _, err = run("train", "--config", "o/config.yaml", "--out", "again")
    again = recorded("again")
    assert code == 0 and again == {name: value for name, value in found.items() if name != "named_recipe"}, err
    assert Path("o/best.safetensors").read_bytes()[-64:] == Path("again/best.safetensors").read_bytes()[-64:]


def test_a_file_names_a_recipe_and_its_options_win(run: Run) -> None:
    settings = {"data": "blobs.npz", "recipe": "strong", "averaging": 0.5, "epochs": 1}
    Path("run.yaml").write_text(yaml.safe_dump(settings))
    assert run("train", "--config", "run.yaml", "--out", "o")[0] == 0
    assert recorded("o")["averaging"] == 0.5


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--recipe", "fast"), "no published schedule of the method 'at'"),
        (("--recipe", "fast", "--method", "rs-fgsm"), "is for images"),
        (("--recipe", "best"), "default or strong or fast"),
    ],
)
def test_what_no_protocol_covers_is_refused_before_the_run(run: Run, words: tuple[str, ...], part: str) -> None:
    words = (*[word for word in TRAIN if word not in ("--method.steps", "2")], *words)
    code, out, err = run(*words, "--out", "o")
    assert (code, out) == (2, "") and part in " ".join(err.split()) and not Path("o").exists(), err
