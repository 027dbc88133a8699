"""config.yaml, and the trackers that write into the run folder."""

import csv
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from support.toys import Stopped, blobs, mlp, stop_at
from unperturbed import runs
from unperturbed.errors import InputError
from unperturbed.maximise.pgd import PGD
from unperturbed.maximise.restarts import Restarts
from unperturbed.methods.at import AT
from unperturbed.methods.awp import AWP
from unperturbed.methods.constrained import Constrained
from unperturbed.methods.erm import ERM
from unperturbed.methods.free import Free
from unperturbed.methods.fw_at import FWATAdapt
from unperturbed.specs.spec import describe
from unperturbed.threat import Threat
from unperturbed.training.folder import claim, describe_run
from unperturbed.training.loop import train
from unperturbed.training.recipe import Recipe

THREAT = Threat("L2", 1 / 3)


def config(tmp_path: Path, method: Any = None, threat: Threat = THREAT, **options: Any) -> dict[str, Any]:
    train(mlp(6, 3), blobs(60), threat, method or ERM(), Recipe(epochs=1), out=tmp_path / "run", **options)
    return runs.read_yaml(tmp_path / "run/config.yaml")


def test_config_says_what_the_result_depends_on(tmp_path: Path) -> None:
    written = config(tmp_path, AT(Restarts(PGD(3, 0.5), 4)), config={"data": "digits", "model": {"class_path": "mlp"}})
    assert written["data"] == "digits" and written["model"] == {"class_path": "mlp"}
    assert Threat.parse(written["threat"]).eps == 1 / 3 and written["bounds"] == [0.0, 1.0]
    maximiser = written["method"]["init_args"]["maximiser"]
    assert written["method"]["class_path"] == "at"
    assert maximiser["init_args"]["count"] == 4
    assert maximiser["init_args"]["maximiser"]["init_args"] == {"steps": 3, "step_size": 0.5, "random_start": True}
    given = Recipe(epochs=1)
    assert {name: written["recipe"][name] for name in ("epochs", "seed", "lr", "schedule")} == {
        name: getattr(given, name) for name in ("epochs", "seed", "lr", "schedule")
    }
    assert written["recipe"].keys() == given.__dataclass_fields__.keys()
    chosen = written["chosen"]
    assert (chosen["batch_size"], chosen["training_examples"], chosen["held_out_examples"]) == (32, 54, 6)
    assert chosen["lr"] == 0.003 and chosen["precision"] == "32-true" and chosen["channels_last"] is False


@pytest.mark.parametrize(("accuracy", "limit"), [(None, 0.1), (0.9, None)])
def test_a_limit_that_is_left_to_the_method_is_written(accuracy: float | None, limit: float | None) -> None:
    record = describe_run(THREAT, AWP(Constrained(AT(), nominal_accuracy=accuracy)), Recipe(), {}, {})["method"]
    inner = record["init_args"]["method"]
    assert record["class_path"] == "awp" and inner["class_path"] == "constrained"
    assert (inner["init_args"]["nominal_loss"], inner["init_args"]["nominal_accuracy"]) == (limit, accuracy)
    assert inner["init_args"]["method"] == describe(AT())


@pytest.mark.slow
def test_bounds_per_feature_and_none_are_written(tmp_path: Path) -> None:
    bounds = torch.zeros(6), torch.arange(1.0, 7.0)
    assert config(tmp_path, threat=Threat("L2", 0.1, bounds))["bounds"] == [[0.0] * 6, [1.0, 2, 3, 4, 5, 6]]
    assert config(tmp_path / "other", threat=Threat("L2", 0.1, None))["bounds"] is None


def test_everything_can_be_described() -> None:
    assert describe(Free()) == {"class_path": "free"}
    assert describe(Path("a/b")) == "a/b" and describe((1, [2.0, None])) == [1, [2.0, None]]
    assert describe({"f": describe, "t": torch.ones(2)}) == {"f": "unperturbed.specs.spec:describe", "t": [1.0, 1.0]}
    assert isinstance(describe(partial(max, 1)), str)


def test_a_run_of_another_version_may_be_resumed(tmp_path: Path) -> None:
    runs.write_yaml(tmp_path / runs.CONFIG, {"unperturbed": "0.0.1", "threat": "Linf:0.1"})
    claim(tmp_path, {"unperturbed": "0.1.0", "threat": "Linf:0.1"}, resume=True)
    with pytest.raises(InputError, match="threat was 'Linf:0.1' and is 'Linf:0.2'"):
        claim(tmp_path, {"unperturbed": "0.0.1", "threat": "Linf:0.2"}, resume=True)


def test_an_empty_folder_or_none_is_free(tmp_path: Path) -> None:
    claim(tmp_path, {}, resume=False)
    claim(tmp_path / "new", {}, resume=False)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("text")
    with pytest.raises(InputError, match="run"):
        config(tmp_path)


# Trackers

COLUMNS = ("epoch", "step", "loss", "clean", "lr", "eps", "probe/clean", "probe/many_steps")


def run(folder: Path, **options: Any) -> None:
    recipe = Recipe(epochs=3, batch_size=18)
    train(mlp(6, 3), blobs(60), Threat("Linf", 0.1), ERM(), recipe, out=folder, track=("csv", "tensorboard"), **options)


def rows(folder: Path) -> list[dict[str, str]]:
    with next((folder / "csv").rglob("metrics.csv")).open(newline="") as file:
        return list(csv.DictReader(file))


def assert_complete(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines = runs.read_jsonl(folder / "metrics.jsonl")
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert [scalar.value for scalar in events.Scalars("loss")] == pytest.approx([line["loss"] for line in lines])
    assert [scalar.step for scalar in events.Scalars("probe/many_steps")] == [3, 6, 9]
    assert [int(row["epoch"]) for row in rows(folder)] == [1, 2, 3]
    for line, row in zip(lines, rows(folder), strict=True):
        assert all(float(row[column]) == line[column] for column in COLUMNS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_csv_and_tensorboard_hold_the_metrics(tmp_path: Path) -> None:
    run(tmp_path / "run")
    assert_complete(tmp_path / "run")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_trackers_are_complete_after_a_resume(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(tmp_path / "run", progress=stop_at(7))
    assert [int(row["epoch"]) for row in rows(tmp_path / "run")] == [1, 2]  # what happened is there already
    run(tmp_path / "run", resume=True)
    assert_complete(tmp_path / "run")


def test_trackers_need_a_folder_and_a_name_that_exists(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="A tracked training needs a run folder"):
        train(mlp(6, 3), blobs(60), THREAT, track=("csv",))
    with pytest.raises(InputError, match="there is no tracker 'wandp'. Did you mean 'wandb'"):
        train(mlp(6, 3), blobs(60), THREAT, track=["wandp"], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_settings_of_a_method_with_memory_are_part_of_the_run(tmp_path: Path) -> None:
    """Though it is no dataclass: a resume with others is refused."""
    written = config(tmp_path, FWATAdapt(monitored=20, r=0.8))
    assert written["method"]["init_args"] == {"cycle": 50_000, "monitored": 20, "r": 0.8}
    with pytest.raises(InputError, match=r"0\.7"):
        config(tmp_path, FWATAdapt(monitored=20, r=0.7), resume=True)
