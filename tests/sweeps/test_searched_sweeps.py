"""A search: which runs it trains and for how long, what decides, and how it resumes."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from unperturbed.engines.local import Local
from unperturbed.errors import InputError, RunError
from unperturbed.reports.charts import style, trade_off
from unperturbed.statistics.intervals import wilson
from unperturbed.sweeps.grid import make_axes
from unperturbed.sweeps.ranges import Range
from unperturbed.sweeps.rows import Combination
from unperturbed.sweeps.search import Plan, plan_of, recorded, search
from unperturbed.sweeps.table import Sweep
from unperturbed.sweeps.tpe import TPE

N = 1000
RANGES = {"lr": Range(1e-4, 1e-1, log=True), "width": Range(1, 9)}
ABOUT = {"suite": "pgd", "note": "upper bound only"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no pictures, and wait for no disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(style, "save_chart", lambda *_: None)
    monkeypatch.setattr(trade_off, "trade_off_chart", lambda *_: None)


def plan(trials: int = 6, stop: Any = None, seed: int = 0) -> Plan:
    axes = make_axes([(option, [str(numbers)]) for option, numbers in RANGES.items()])
    return plan_of(axes, RANGES, TPE(trials, seed), stop, epochs=9)


def grid(count: int, stop: Any = "asha") -> Plan:
    return plan_of(make_axes([("lr", [f"0.{number:02d}" for number in range(1, count + 1)])]), {}, None, stop, epochs=9)


class Lab:
    """Trains by a formula: the held-out accuracy is highest at lr 0.01, that on the test split elsewhere."""

    def __init__(self, quit_at: int = -1, failing: str = "") -> None:
        self.calls: list[tuple[str, int | None]] = []
        self.tested: list[str] = []
        self.quit_at, self.failing = quit_at, failing

    def make(self, values: Mapping[str, str], folder: Path) -> Combination:
        lr = float(values["lr"])

        def trained(until: int | None) -> Mapping[str, Any]:
            self.calls.append((folder.name, until))
            if len(self.calls) == self.quit_at:
                raise KeyboardInterrupt
            if folder.name == self.failing:
                raise RunError("not finite")
            folder.mkdir(parents=True, exist_ok=True)
            robust = round(N * max(0.0, 0.9 - 0.2 * abs(math.log10(lr) + 2)))
            return {"clean_accuracy": 0.95, "robust_accuracy": robust / N, "validation_examples": N, "held_out": True,
                    "epochs": until or 9, "best_epoch": 1, "seconds": 1.0, "conclusions": [],
                    "feasible": None}  # fmt: skip

        def evaluated() -> Mapping[str, Any]:
            self.tested.append(folder.name)
            share = wilson(round(40 * lr / 0.1), 50)
            return {"n": 50, "threat": "t", "counts": {"unknown": 0}, "environment": {"data": "d"}, "warnings": [],
                    "clean_accuracy": share.value, "clean_interval": [share.low, share.high],
                    "robust_accuracy": share.value, "interval": [share.low, share.high]}  # fmt: skip

        return Combination(dict(values), folder, trained, evaluated)


def run(out: Path, lab: Lab, plan: Plan, workers: int = 1) -> Sweep:
    return search(out, plan, lab.make, ABOUT, engine=Local(workers))


def shown(out: Path) -> str:
    """Return table and record, without the place of the folder."""
    texts = [(out / name).read_text() for name in ("sweep.json", "sweep.md", "search.json")]
    return "\n".join(texts).replace(str(out), "OUT")


def values(swept: Sweep) -> list[Mapping[str, str]]:
    return [entry["values"] for entry in swept.json()["runs"]]


def test_suggestions_depend_on_seed_and_results_only() -> None:
    history = [({"lr": f"0.0{number}", "width": str(number)}, 0.05 * number) for number in range(1, 10)] * 2
    first = TPE(30).suggest(RANGES, history, 3)
    assert first == TPE(30).suggest(RANGES, history, 3) and len(first) == 3
    assert first != TPE(30, seed=1).suggest(RANGES, history, 3)
    assert first != TPE(30).suggest(RANGES, [(values, -score) for values, score in history], 3)
    for suggested in first:
        assert 1e-4 <= float(suggested["lr"]) <= 1e-1 and suggested["width"] in "123456789"


@pytest.mark.slow
def test_the_same_seed_gives_the_same_trials_and_another_seed_others(tmp_path: Path) -> None:
    first, second = (run(tmp_path / name, Lab(), plan(5)) for name in "ab")
    assert values(first) == values(second) and len(values(first)) == 5
    assert shown(tmp_path / "a") == shown(tmp_path / "b")
    assert values(run(tmp_path / "c", Lab(), plan(3, seed=1))) != values(first)[:3]
    assert values(run(tmp_path / "d", Lab(), plan(3))) == values(first)[:3], "fewer trials are the first ones"


@pytest.mark.long
@pytest.mark.parametrize(
    ("trials", "stop", "quit_at"),
    [
        (4, None, 1),
        (4, None, 4),
        (6, "asha", 3),
        (6, "asha", 8),
        pytest.param(13, None, 12, marks=pytest.mark.slow),  # after the random trials
    ],
)
def test_killed_between_trials_it_resumes_to_the_table_of_an_undisturbed_search(
    tmp_path: Path, trials: int, stop: Any, quit_at: int
) -> None:
    whole = run(tmp_path / "whole", Lab(), plan(trials, stop), workers=3)
    with pytest.raises(KeyboardInterrupt) as stopped:
        run(tmp_path / "out", Lab(quit_at), plan(trials, stop), workers=3)
    assert "Run the same command again" in stopped.value.__notes__[0]
    again = run(tmp_path / "out", Lab(), plan(trials, stop), workers=3)
    assert values(again) == values(whole) and shown(tmp_path / "out") == shown(tmp_path / "whole")


def test_as_many_trials_are_suggested_at_once_as_there_are_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, original = list[tuple[int, int]](), TPE.suggest
    monkeypatch.setattr(
        TPE, "suggest", lambda self, space, history, count: asked.append((len(history), count)) or
        original(self, space, history, count))  # fmt: skip
    run(tmp_path / "out", Lab(), plan(8), workers=3)
    assert asked == [(0, 3), (3, 3), (6, 2)]


def test_the_held_out_accuracy_decides_and_the_test_split_does_not(tmp_path: Path) -> None:
    lab = Lab()
    swept = run(tmp_path / "out", lab, grid(5, stop=None))
    assert len(lab.tested) == 5, "the table has all of them"
    found = swept.json()
    assert found["chosen"]["values"] == {"lr": "0.01"}
    best = max(found["rows"], key=lambda row: row["robust_accuracy"])
    assert best["values"] == {"lr": "0.05"} and not best["chosen"]
    assert swept.notes[0].startswith("Chosen: lr=0.01 (") and "on held-out training examples" in swept.notes[0]
    assert "test split has no part in the choice" in swept.notes[0]
    assert [row[-1] for row in swept.cells].count("chosen; dominated") == 1


def test_the_sampler_gets_the_held_out_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = list[float]()

    def suggest(self: TPE, space: Any, history: Any, count: int) -> Any:
        scores[:] = [score for _, score in history]
        return [{"lr": f"0.0{len(history) + 1}", "width": "1"}]

    monkeypatch.setattr(TPE, "suggest", suggest)
    found = run(tmp_path / "out", Lab(failing="trial-002"), plan(4)).json()["runs"]
    assert scores == [0.9, -1.0, found[2]["validation"]["robust_accuracy"]]
    assert 0 < scores[2] != found[2]["evaluation"]["robust_accuracy"]


def test_only_the_best_third_is_trained_further_and_only_the_last_ones_are_tested(tmp_path: Path) -> None:
    lab = Lab()
    found = run(tmp_path / "out", lab, grid(9)).json()
    by_epochs = {rung: [name for name, until in lab.calls if until == rung] for rung in (1, 3, None)}
    assert by_epochs == {
        1: [f"lr=0.0{n}" for n in range(1, 10)], 3: ["lr=0.01", "lr=0.02", "lr=0.03"], None: ["lr=0.01"],
    }  # fmt: skip
    assert lab.tested == ["lr=0.01"]
    assert found["search"]["rungs"] == [1, 3, 9]
    assert found["search"]["epochs"] == 6 * 1 + 2 * 3 + 1 * 9 < 9 * 9
    statuses = [entry["status"] for entry in found["runs"]]
    assert statuses == ["done", *["stopped"] * 8]
    assert [entry["validation"]["epochs"] for entry in found["runs"]] == [9, 3, 3, *[1] * 6]


def test_a_search_with_stops_suggests_from_the_first_comparison(tmp_path: Path) -> None:
    lab = Lab()
    swept = run(tmp_path / "out", lab, plan(7, "asha"))
    assert [until for _, until in lab.calls] == [1] * 7 + [3] * 2 + [None]
    accuracy = {entry["run"].rpartition("/")[2]: entry["validation"]["robust_accuracy"]
                for entry in swept.json()["runs"]}  # fmt: skip
    third = sorted(accuracy, key=lambda name: -accuracy[name])[:2]
    assert sorted(third) == [name for name, until in lab.calls if until == 3]


def test_a_failed_trial_counts_as_the_worst_and_is_told(tmp_path: Path) -> None:
    swept = run(tmp_path / "out", Lab(failing="trial-002"), plan(5))
    found = swept.json()
    assert [entry["status"] for entry in found["runs"]] == ["done", "failed", "done", "done", "done"]
    assert any("not finite" in note for note in swept.notes) and found["chosen"]["run"] != found["runs"][1]["run"]
    repaired = run(tmp_path / "out", Lab(), plan(5)).json()
    assert {entry["status"] for entry in repaired["runs"]} == {"done"}, "it is tried again"


def test_values_that_are_suggested_again_are_not_trained_again(tmp_path: Path) -> None:
    axes = make_axes([("lr", ["0.01..0.011"])])
    lab = Lab()
    few = plan_of(axes, {"lr": Range(0.01, 0.0101)}, TPE(6), None, epochs=9)
    swept = run(tmp_path / "out", lab, few)
    assert len(lab.calls) == len(values(swept)) == len({entry["lr"] for entry in values(swept)}) < 40
    assert swept.json()["search"]["repeated"] == 6 - len(lab.calls)
    assert any("had the values of earlier ones" in note for note in swept.notes)


def test_more_trials_continue_a_search_and_other_settings_are_refused(tmp_path: Path) -> None:
    first = run(tmp_path / "out", Lab(), plan(3))
    before = (tmp_path / "out/search.json").read_bytes()
    for other, message in (
        (plan(3, seed=1), "seed was 0 and is 1"),
        (plan(3, "asha"), "rungs was None and is"),
        (plan(2), "search of 3 trials, but --trials is 2"),
        (grid(3), "over was"),
    ):
        with pytest.raises(InputError, match=message):
            recorded(tmp_path / "out", other)
        with pytest.raises(InputError, match=message):
            run(tmp_path / "out", Lab(), other)
    assert (tmp_path / "out/search.json").read_bytes() == before
    more = run(tmp_path / "out", Lab(), plan(5))
    assert values(more)[:3] == values(first) and values(more) == values(run(tmp_path / "whole", Lab(), plan(5)))
    record = json.loads(before)
    record["trials"][0]["reached"]["9"]["robust"] += 1
    (tmp_path / "out/search.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"search\.json is damaged"):
        run(tmp_path / "out", Lab(), plan(5))


@pytest.mark.parametrize(
    ("option", "values", "stop", "message"),
    [
        ("seed", ["0", "1", "2"], "asha", "a seed is no choice"),
        ("epochs", ["3", "6", "9"], "asha", "leave epochs out"),
        ("lr", ["0.1", "0.2"], "asha", "there are 2"),
    ],
)
def test_what_cannot_be_compared_is_refused(option: str, values: list[str], stop: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_of(make_axes([(option, values)]), {}, None, stop, epochs=9)


def test_a_number_of_trials_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match="trials is 0"):
        TPE(0)
