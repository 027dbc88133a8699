"""An open run folder has the parts of its training."""

from pathlib import Path

import pytest
import torch

import unperturbed as un
from unperturbed.errors import InputError
from unperturbed.runs import read_yaml, write_yaml

RECIPE = un.Recipe(epochs=1, batch_size=32, milestones=(0.5, 0.9))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data, folder = un.load_data("digits"), tmp_path_factory.mktemp("runs") / "run"
    model = un.architectures.MLP(input_shape=(1, 8, 8), classes=10, hidden=(8,))
    un.train(model, data, un.Threat("L2", 0.25), METHOD, RECIPE, out=folder, device="cpu")
    un.evaluate(model, _few(data), un.Threat("L2", 0.25), "pgd-ce", out=folder / "evaluation")
    return folder


METHOD = un.methods.AWP(un.methods.Constrained(un.methods.TRADES(beta=2.0, maximiser=un.maximise.PGD(steps=1))))


def _few(data: object) -> tuple[torch.Tensor, torch.Tensor]:
    test = un.load_data("digits").test
    return test.inputs(torch.arange(4)), test.labels[:4]


@pytest.mark.long
@pytest.mark.slow
def test_each_part_is_the_one_that_was_trained_with(run: Path) -> None:
    opened = un.Run.open(run)
    assert (str(opened.threat), opened.bounds, opened.recipe) == ("L2:0.25", (0.0, 1.0), RECIPE)
    assert repr(opened.method) == repr(METHOD) and opened.record.method == read_yaml(run / "config.yaml")["method"]
    assert opened.data.name == "digits" and not opened.model.training
    x = opened.data.test.inputs(torch.arange(3))
    assert torch.equal(opened.model(x), un.load_run(run)(x))
    held_out = read_yaml(run / "config.yaml")["chosen"]["held_out_examples"]
    assert len(opened.trained_on) == len(opened.data.train) - held_out > 0
    (outcome,) = opened.results.values()
    assert outcome.n == 4 and outcome.threat == "L2:0.25"


def test_a_folder_of_evaluations_has_no_recipe(tmp_path: Path) -> None:
    write_yaml(tmp_path / "config.yaml", {"schema": 3, "threat": "Linf:0.1", "bounds": None, "data": "digits"})
    opened = un.Run.open(tmp_path)
    assert opened.recipe is None and opened.method is None and opened.bounds is None and not opened.results
    assert len(opened.trained_on) == len(opened.data.train)


@pytest.mark.long
@pytest.mark.slow
def test_what_a_record_does_not_say_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run folder"):
        un.Run.open(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        un.Run.open(run / "config.yaml")
    write_yaml(tmp_path / "config.yaml", {name: value for name, value in read_yaml(run / "config.yaml").items()
                                          if name not in ("data", "model")})  # fmt: skip
    opened = un.Run.open(tmp_path)
    with pytest.raises(InputError, match="has no place of the data"):
        opened.data  # noqa: B018
    with pytest.raises(InputError, match=r"best\.safetensors"):
        opened.model  # noqa: B018


def test_import_paths_in_a_folder_are_followed_only_where_it_is_trusted(run: Path, tmp_path: Path) -> None:
    content = read_yaml(run / "config.yaml")
    write_yaml(tmp_path / "config.yaml", content | {"method": {"class_path": "somebody:Method"}, "data": "some:data"})
    opened = un.Run.open(tmp_path)
    for part in ("method", "data"):
        with pytest.raises(InputError, match="stands in a file"):
            getattr(opened, part)
    trusted = un.Run.open(tmp_path, trust=True)
    with pytest.raises(InputError, match="cannot import 'somebody'"):
        trusted.method  # noqa: B018
