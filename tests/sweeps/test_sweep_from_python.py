"""A sweep from Python: the runs are those of `train` and `evaluate`, and rerunning trains nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import unperturbed as un
from support.toys import blobs
from unperturbed.data.convert import as_data
from unperturbed.data.split import Data
from unperturbed.training import engine

THREAT, RECIPE = un.Threat("Linf", 0.05), un.Recipe(epochs=1, batch_size=16)


@pytest.fixture
def data() -> Data:
    return as_data((blobs(60), blobs(24, seed=1)))


def swept(data: Data, out: Path, **options: Any) -> un.Sweep:
    method = un.AT(un.maximise.PGD(steps=1))
    return un.sweep({"method.steps": [1, 2], "seed": [0, 1]}, data, THREAT, method, RECIPE, model="mlp",
                    suite="pgd-ce", out=out, device="cpu", **options)  # fmt: skip


@pytest.mark.long
@pytest.mark.slow
def test_its_runs_are_those_of_train_and_evaluate(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    found = swept(data, tmp_path / "sweep", examples=8, progress=lambda number, total, name: names.append(name))
    assert names == ["steps=1, seed=0", "steps=1, seed=1", "steps=2, seed=0", "steps=2, seed=1"]
    model = un.model_for(data, "mlp", seed=1)
    recipe = un.Recipe(epochs=1, batch_size=16, seed=1)
    trained = un.train(model, data, THREAT, un.AT(un.maximise.PGD(steps=2)), recipe, device="cpu")
    outcome = un.evaluate(model, data.test[:8] if data.test is not None else None, THREAT, "pgd-ce")
    run = next(run for run in found.json()["runs"] if run["values"] == {"steps": "2", "seed": "1"})
    assert run["evaluation"]["robust_accuracy"] == outcome.robust_accuracy.value and run["status"] == "done"
    assert (run["epochs"], run["best_epoch"]) == (trained.epochs, trained.best_epoch)
    stored = un.Run.open(tmp_path / "sweep/steps=2,seed=1").model
    x = data.train.inputs(torch.arange(4))
    assert torch.equal(stored(x), model(x))

    assert [row.values for row in found.settings] == [{"steps": "1"}, {"steps": "2"}]
    assert found.settings[0].runs == 2 and "steps | clean | robust" in str(found)
    assert json.loads((tmp_path / "sweep/sweep.json").read_text()) == json.loads(json.dumps(found.json()))
    monkeypatch.setattr(engine.Engine, "step", lambda *_: pytest.fail("a finished run was trained again"))
    assert swept(data, tmp_path / "sweep", examples=8).json()["rows"] == found.json()["rows"]


def test_nothing_is_trained_for_an_option_that_there_is_not(data: Data, tmp_path: Path) -> None:
    for over, message in (({"sed": [0]}, "Did you mean 'seed'"), ({"method.stps": [1]}, "Did you mean 'steps'"),
                          ({}, "over 0 options"), ({"seed": [0, 0]}, "names the same value twice"),
                          ({"seed": []}, "or none")):  # fmt: skip
        with pytest.raises(un.InputError, match=message):
            un.sweep(over, data, THREAT, suite="pgd", recipe=RECIPE, out=tmp_path / "sweep")
    with pytest.raises(un.InputError, match="no test split"):
        un.sweep({"seed": [0]}, as_data(blobs(60)), THREAT, suite="pgd", out=tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


@pytest.mark.long
@pytest.mark.slow
def test_a_run_that_fails_is_an_entry_of_the_table(data: Data, tmp_path: Path) -> None:
    found = un.sweep({"lr": [0.01, 1e30]}, data, THREAT, recipe=RECIPE, model="mlp", suite="pgd-ce", examples=4,
                     out=tmp_path / "sweep", device="cpu")  # fmt: skip
    assert [run["status"] for run in found.json()["runs"]] == ["done", "failed"]
    assert "not finite" in found.json()["runs"][1]["error"] and any("Failed: lr=1e+30" in note for note in found.notes)


@pytest.mark.long
@pytest.mark.slow
def test_a_search_stops_the_worse_trials(data: Data, tmp_path: Path) -> None:
    over = {"lr": un.Range(1e-4, 0.1, log=True), "method": ["erm"], "label_smoothing": [0.0, 0.1]}
    recipe = un.Recipe(epochs=3, batch_size=16)
    found = un.sweep(over, data, THREAT, recipe=recipe, model="mlp", suite="pgd-ce", examples=4, device="cpu",
                     search=un.TPE(3), stop="asha", out=tmp_path / "sweep")  # fmt: skip
    runs = found.json()["runs"]
    assert [run["status"] for run in runs].count("stopped") == 2 and found.json()["search"]["epochs"] == 1 + 1 + 3
    chosen = un.Run.open(found.json()["chosen"]["run"])
    assert chosen.recipe is not None and f"{chosen.recipe.lr:.4g}" == found.json()["chosen"]["values"]["lr"]
    straight = un.train(un.model_for(data, "mlp", seed=0), data, THREAT, un.methods.ERM(), chosen.recipe, device="cpu")
    x = data.train.inputs(torch.arange(4))
    assert torch.equal(chosen.model(x), straight.model(x)), "a promoted trial is the run that was never paused"


def test_a_search_needs_examples_to_compare_on(data: Data, tmp_path: Path) -> None:
    over = {"lr": un.Range(1e-4, 0.1)}
    with pytest.raises(un.InputError, match="validation is 0"):
        un.sweep(over, data, THREAT, recipe=un.Recipe(validation=0.0), search=un.TPE(3), out=tmp_path / "sweep")
    with pytest.raises(un.InputError, match=r"lr=0\.0001\.\.0\.1 is a range"):
        un.sweep(over, data, THREAT, out=tmp_path / "sweep")
    with pytest.raises(un.InputError, match=r"The range 2\.\.1 is empty"):
        un.Range(2, 1)
    assert not (tmp_path / "sweep").exists()
