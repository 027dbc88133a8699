"""`unperturbed sweep`: what it trains and when, what it shows, how it goes on, and what it refuses."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from test_main import Run
from test_main import run as run

from unperturbed.cli import sweep
from unperturbed.cli.options import parse
from unperturbed.evaluation import threats
from unperturbed.statistics.intervals import wilson
from unperturbed.sweeps import table as sweep_table
from unperturbed.sweeps.rows import Axis, Combination
from unperturbed.training import engine

OPTIONS = ("--data", "blobs.npz", "--threat", "Linf:0.05", "--method.steps", "2")
SWEEP = ("sweep", "--suite", "pgd", *OPTIONS, "--epochs", "1", "--out", "out")
OVER = ("--over", "lr=0.001,0.01", "--over", "seed=0,1")
FOLDERS = {f"lr={lr},seed={seed}" for lr in ("0.001", "0.01") for seed in (0, 1)}

SVG = "{http://www.w3.org/2000/svg}"


def folders(out: str = "out") -> set[str]:
    return {path.parent.name for path in Path(out).glob("*/config.yaml")}


def without_seconds(value: Any) -> Any:
    """Return a result without what differs between two times of doing the same."""
    if isinstance(value, dict):
        return {key: without_seconds(each) for key, each in value.items() if key not in ("seconds", "run", "figure")}
    if isinstance(value, list):
        return [without_seconds(each) for each in value if not str(each).startswith("Loaded from")]
    return value


def bars(out: str = "out") -> int:
    """Return how many points the picture has, by their bars: two a point, in a collection each."""
    root = ElementTree.parse(Path(out) / "sweep.svg").getroot()
    return sum(group.attrib.get("id", "").startswith("LineCollection") for group in root.iter(f"{SVG}g")) // 2


def steps_count(monkeypatch: pytest.MonkeyPatch, quit_at: int = -1) -> list[int]:
    """Return a list that grows with every step of training; the user interrupts one of them."""
    taken: list[int] = []
    original = engine.Engine.step

    def counted(self: Any, *given: Any) -> Any:
        taken.append(1)
        if len(taken) == quit_at:
            raise KeyboardInterrupt
        return original(self, *given)

    monkeypatch.setattr(engine.Engine, "step", counted)
    return taken


@pytest.mark.long
@pytest.mark.slow
# What it does
def test_every_run_is_what_train_and_evaluate_make_of_it_and_seeds_are_summed_up_in_one_row(run: Run) -> None:
    code, out, err = run(*SWEEP, *OVER, "--examples", "10", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert folders() == FOLDERS == {Path(each["run"]).name for each in found["runs"]}
    assert json.loads(Path("out/sweep.json").read_text()) == found
    assert all(each["status"] == "done" and each["evaluation"]["n"] == 10 for each in found["runs"])

    words = ("--epochs", "1", "--lr", "0.01", "--seed", "1", "--out", "alone")
    assert run("train", *OPTIONS, *words)[0] == 0
    alone = json.loads(run("evaluate", "alone", "--suite", "pgd", "--examples", "10", "--json")[1])
    here = next(each for each in found["runs"] if each["values"] == {"lr": "0.01", "seed": "1"})
    assert without_seconds(here["evaluation"]) == without_seconds(alone)
    for file in ("best.safetensors", "config.yaml"):
        assert Path("alone", file).read_bytes() == Path(here["run"], file).read_bytes()

    assert [row["values"] for row in found["rows"]] == [{"lr": "0.001"}, {"lr": "0.01"}]
    for row in found["rows"]:
        group = [each for each in found["runs"] if each["values"]["lr"] == row["values"]["lr"]]
        for value, over in (("clean_accuracy", "clean_range"), ("robust_accuracy", "robust_range")):
            shares = [each["evaluation"][value] for each in group]
            assert row[value] == pytest.approx(sum(shares) / 2) and row[over] == [min(shares), max(shares)]
        assert (row["runs"], row["evaluated"], row["examples"], row["n"]) == (2, 2, 10, 20)
        assert row["seconds"] == pytest.approx(sum(each["seconds"] for each in group) / 2)
    assert bars() == 2


@pytest.mark.long
@pytest.mark.slow
def test_the_table_the_page_and_the_picture_say_the_same(run: Run) -> None:
    words = [word for word in SWEEP if word not in ("--method.steps", "2")]
    code, out, err = run(*words, "--over", "method.steps=1,3", "--method", "trades")
    assert code == 0 and "steps" in out and "n=12" in out and "upper bound only: no AutoAttack" in out, err
    page = Path("out/sweep.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert rows[0].startswith("| steps | clean | robust |") and len(rows) == 4 and "](sweep.svg)" in page
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| 1", "| 3"]
    assert bars() == 2 and folders() == {"steps=1", "steps=3"}


@pytest.mark.long
@pytest.mark.slow
def test_conclusions_of_the_method_are_told(run: Run) -> None:
    words = ("--method", "constrained", "--method.method", "at", "--method.method.steps", "1")
    base = [word for word in SWEEP if word not in ("--method.steps", "2")]
    code, out, err = run(*base, *words, "--over", "method.nominal_loss=0.0001,9", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [row["conclusions"] for row in found["rows"]] == [["Not feasible as trained"], ["Feasible"]]
    page = Path("out/sweep.md").read_text()
    assert "- nominal_loss=9: Feasible: The nominal loss" in page and "| Feasible |" in page


# Going on


@pytest.mark.long
@pytest.mark.slow
def test_a_second_call_trains_nothing_and_more_values_only_what_is_new(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = json.loads(run(*SWEEP, "--over", "lr=0.01", "--over", "seed=0,1", "--json")[1])
    taken = steps_count(monkeypatch)
    second = json.loads(run(*SWEEP, "--over", "seed=0,1", "--over", "lr=0.01", "--json")[1])
    assert not taken and without_seconds(second["rows"]) == without_seconds(first["rows"])
    assert [each["seconds"] for each in second["runs"]] == [each["seconds"] for each in first["runs"]]
    assert [each["evaluation"]["warnings"] for each in second["runs"]] == [[], []]
    more = json.loads(run(*SWEEP, *OVER, "--json")[1])
    assert len(taken) == 2 * 3 and folders() == FOLDERS
    assert [row["values"]["lr"] for row in more["rows"]] == ["0.001", "0.01"]
    assert more["rows"][1]["robust_accuracy"] == first["rows"][0]["robust_accuracy"]


@pytest.mark.long
@pytest.mark.slow
def test_stopped_between_training_and_evaluation_it_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = json.loads(run(*SWEEP[:-1], "whole", "--over", "seed=0,1,2", "--json")[1])
    calls, original = [0], threats.evaluate

    def stopped(*given: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        return original(*given, **named)

    monkeypatch.setattr(threats, "evaluate", stopped)
    code, out, err = run(*SWEEP, "--over", "seed=0,1,2", "--json")
    assert (code, out) == (130, "") and "Run the same command again" in err and "--resume" not in err
    statuses = [each["status"] for each in json.loads(Path("out/sweep.json").read_text())["runs"]]
    assert statuses == ["done", "waiting", "waiting"]
    taken = steps_count(monkeypatch)
    again = json.loads(run(*SWEEP, "--over", "seed=0,1,2", "--json")[1])
    assert without_seconds(again) == without_seconds(whole) and len(taken) == 3, "two of the runs were trained before"


@pytest.mark.long
@pytest.mark.slow
def test_stopped_within_training_it_goes_on_from_the_checkpoint(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("sweep", "--suite", "pgd", *OPTIONS, "--epochs", "2", "--over", "seed=0,1", "--json", "--out")
    whole = json.loads(run(*words, "whole")[1])
    with monkeypatch.context() as patched:
        steps_count(patched, quit_at=6 + 5)  # the second run's second epoch
        assert run(*words, "out")[0] == 130
    taken = steps_count(monkeypatch)
    again = json.loads(run(*words, "out")[1])
    assert len(taken) == 6 - 3 and without_seconds(again) == without_seconds(whole)
    for name in ("seed=0", "seed=1"):
        assert (
            Path("out", name, "best.safetensors").read_bytes() == Path("whole", name, "best.safetensors").read_bytes()
        )


@pytest.mark.long
@pytest.mark.slow
def test_other_options_than_the_stored_ones_are_refused_before_anything_is_trained(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(*SWEEP, "--over", "lr=0.01")
    before, taken = Path("out/sweep.json").read_text(), steps_count(monkeypatch)
    code, out, err = run(*SWEEP, "--over", "lr=0.001,0.01", "--label-smoothing", "0.1")
    assert (code, out) == (2, "") and "recipe.label_smoothing was 0.0 and is 0.1" in err
    assert not taken and folders() == {"lr=0.01"} and Path("out/sweep.json").read_text() == before
    assert run(*SWEEP, "--over", "lr=0.001,0.01")[0] == 0


@pytest.mark.slow
def test_a_sweep_over_other_options_is_refused_where_its_table_would_replace_one(run: Run) -> None:
    run(*SWEEP, "--over", "lr=0.01")
    before = Path("out/sweep.json").read_text()
    code, _, err = run(*SWEEP, "--over", "lr=0.01", "--over", "seed=0,1")
    assert code == 2 and "out holds a sweep over lr, not over lr and seed: give another --out" in err
    assert Path("out/sweep.json").read_text() == before and folders() == {"lr=0.01"}


# Failures


@pytest.mark.slow
def test_a_run_that_fails_is_told_and_the_others_go_on(run: Run) -> None:
    code, out, err = run(*SWEEP, "--over", "lr=1e30,0.01", "--json")
    found = json.loads(out)
    assert code == 1 and "lr=1e30 failed" in err
    assert [each["status"] for each in found["runs"]] == ["failed", "done"]
    assert "finite" in found["runs"][0]["error"] and found["runs"][0]["evaluation"] is None
    assert "robust_accuracy" not in found["rows"][0] and len(found["rows"][0]["problems"]) == 1
    assert bars() == 1
    assert "| failed |" in Path("out/sweep.md").read_text() and "Failed: lr=1e30" in Path("out/sweep.md").read_text()


@pytest.mark.long
@pytest.mark.slow
def test_what_is_refused_only_when_trained_is_told_and_the_others_go_on(run: Run) -> None:
    """That flips need images is seen with the data: a sweep that ended there would end there each time."""
    code, out, err = run(*SWEEP, "--over", "augment=flip,none", "--json")
    assert code == 1 and "augment=flip failed: Flips" in err
    assert [each["status"] for each in json.loads(out)["runs"]] == ["failed", "done"]
    code, out, _ = run(*SWEEP, "--over", "augment=flip,none", "--json")
    assert code == 1 and [each["status"] for each in json.loads(out)["runs"]] == ["failed", "done"]


@pytest.mark.slow
def test_where_all_fail_there_is_a_table_and_no_picture(run: Run) -> None:
    code, out, _ = run(*SWEEP, "--over", "lr=1e30")
    assert code == 1 and "failed" in out and "Picture" not in out and not Path("out/sweep.svg").exists()


# What options mean


@pytest.mark.long
@pytest.mark.slow
def test_examples_are_of_the_evaluation_and_those_of_training_have_an_option(run: Run) -> None:
    Path("some.yaml").write_text(yaml.safe_dump({"examples": 50, "recipe": {"label_smoothing": 0.25}}))
    code, out, err = run(*SWEEP, "--over", "seed=0", "--examples", "8", "--config", "some.yaml", "--json")
    config = yaml.safe_load(Path("out/seed=0/config.yaml").read_text())
    assert code == 0 and json.loads(out)["rows"][0]["n"] == 8, err
    assert config["examples"] == 50 and config["recipe"]["label_smoothing"] == 0.25
    words = (*SWEEP[:-1], "o", "--config", "some.yaml")
    assert run(*words, "--over", "train-examples=40,60")[0] == 0
    assert yaml.safe_load(Path("o/train_examples=60/config.yaml").read_text())["examples"] == 60
    assert run(*words[:-3], "p", *words[-2:], "--over", "seed=0", "--train-examples", "70")[0] == 0
    assert yaml.safe_load(Path("p/seed=0/config.yaml").read_text())["examples"] == 70


@pytest.mark.long
@pytest.mark.slow
def test_rows_under_different_threats_are_not_compared(run: Run) -> None:
    words = [word for word in SWEEP if word not in ("--threat", "Linf:0.05")]
    found = json.loads(run(*words, "--over", "threat=Linf:0.05,L2:2/5", "--json")[1])
    assert [row["threat"] for row in found["rows"]] == ["Linf:0.05", "L2:0.4"]
    assert not any(row["dominated"] for row in found["rows"]) and folders() == {"threat=Linf-0.05", "threat=L2-2-5"}
    assert "not compared" in Path("out/sweep.md").read_text()
    found = json.loads(run(*words, "--over", "threat=Linf:0.05,L2:2/5", "--evaluate-threat", "L2:0.3", "--json")[1])
    assert {row["threat"] for row in found["rows"]} == {"L2:0.3"}
    assert "not compared" not in Path("out/sweep.md").read_text()


@pytest.mark.long
@pytest.mark.slow
def test_values_with_brackets_keep_their_commas_and_names_that_clash_are_long(run: Run) -> None:
    words = [word for word in SWEEP if word not in ("--method.steps", "2")]
    over = ("--over", "model.hidden=[4,4],[8]", "--over", "method.maximiser.steps=1")
    code, _, err = run(*words, *over)
    assert code == 0 and folders() == {"hidden=-4-4-,steps=1", "hidden=-8-,steps=1"}, err
    again = ("--method", "awp", "--over", "method.method=at", "--over", "method.method.method=at")
    code, _, err = run(*words, *again)
    assert code == 2 and "'method'" in err, err
    names, ranges = sweep._axes(["method.steps=1", "method.method.steps=2"], parse(sweep.parser(), ["--data", "x"]))
    assert [axis.name for axis in names] == ["method.method.steps", "method.steps"]
    assert not ranges


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ((), ["--over is missing", "--over method.nominal_loss=0.05,0.1"]),
        (("--over", "lr"), ["'lr'", "OPTION=V1,V2"]),
        (("--over", "lr="), ["'lr='"]),
        (("--over", "lr=0.1,,0.2"), ["lr=0.1,,0.2"]),
        (("--over", "lr=0.1,0.1"), ["same value twice"]),
        (("--over", "lr=0.1,1e-1"), ["lr=0.1 and lr=1e-1 are the same run"]),
        (("--over", "lr=0.1", "--over", "seed=0", "--over", "epochs=1"), ["3 times"]),
        (("--over", "lr=0.1", "--over", "lr=0.2"), ["twice for lr"]),
        (("--over", "epochs=1,2"), ["--epochs is given separately"]),
        (("--over", "method.steps=1,2"), ["--method.steps is given separately"]),
        (("--over", "learning-rate=1"), ["'learning-rate'", "--over"]),
        (("--over", "sed=1"), ["'sed'", "Did you mean 'seed'"]),
        (("--over", "maximiser=pgd"), ["Did you mean 'method.maximiser'"]),
        (("--method", "trades", "--over", "beta=1"), ["'beta'", "Did you mean 'method.beta'"]),
        (("--over", "method.maximizer=pgd"), ["'maximizer'", "Did you mean 'maximiser'"]),
        (("--over", "method=at,tradse"), ["tradse", "'trades'"]),
        (("--over", "examples=1,2"), ["'examples'", "train-examples"]),
        (("--over", "out=a,b"), ["'out'"]),
        (("--over", "seed=0,x"), ["--seed", "x"]),
        (("--over", "lr=0.1,-1"), ["lr is -1"]),
        (("--over", "label-smoothing=0.1,2"), ["label_smoothing is 2"]),
        (("--over", "train-examples=10,1000"), ["1000"]),
        (("--over", "threat=Linf:0.1,Linf:x"), ["Linf:x"]),
        (("--over", "weights=a/b.pt,a-b.pt"), ["same run folder"]),
        (("--over", "seed=0", "--suite", "standrad"), ["standrad", "'standard'"]),
        (("--over", "seed=0", "--examples", "0"), ["--examples is 0"]),
        (("--over", "seed=0", "--evaluate-threat", "Linf"), ["Linf"]),
        (("--over", "seed=0", "--resume"), ["--resume"]),
        (("--over", "seed=0", "--devices", "2"), ["--devices"]),
    ],
)
def test_bad_input_ends_with_2_before_anything_is_trained(run: Run, words: tuple[str, ...], parts: list[str]) -> None:
    base = [word for word in SWEEP if word not in ("--threat", "Linf:0.05")]
    code, out, err = run(*base, *words)
    assert (code, out) == (2, "") and all(part in err for part in parts), err
    assert not Path("out").exists()


@pytest.mark.slow
def test_a_run_folder_is_no_folder_for_a_sweep(run: Run) -> None:
    assert run("train", *OPTIONS, "--epochs", "1", "--out", "out")[0] == 0
    code, _, err = run(*SWEEP, "--over", "seed=0,1")
    assert code == 2 and "out is a run folder" in err


# Summing up


def evaluated(values: dict[str, str], clean: int, robust: int, unknown: int = 0, threat: str = "t") -> Combination:
    """Return a run of which so many of 50 examples are right."""
    shares = wilson(clean, 50), wilson(robust, 50, robust + unknown)
    outcome = {
        "n": 50, "threat": threat, "counts": {"unknown": unknown}, "environment": {"data": "d"},
        "clean_accuracy": shares[0].value, "clean_interval": [shares[0].low, shares[0].high],
        "robust_accuracy": shares[1].value, "interval": [shares[1].low, shares[1].high],
    }  # fmt: skip
    trained = {"seconds": 2.0 + clean, "epochs": 1, "best_epoch": 1, "conclusions": ["Fine: so it is."]}
    trained |= {"feasible": None}
    return Combination(values, Path("x"), dict, dict, trained, outcome)


AXES = [Axis("lr", "lr", ("1", "2")), Axis("seed", "seed", ("0", "1", "2"))]


def test_a_seed_that_failed_is_told_beside_the_mean_of_the_others() -> None:
    runs = [evaluated({"lr": "1", "seed": str(seed)}, 40 + seed, 30) for seed in (0, 1)]
    runs.append(Combination({"lr": "1", "seed": "2"}, Path("x"), dict, dict, error="not finite"))
    (row,) = sweep_table.rows_of(AXES, runs)
    assert row.point is not None and row.point.clean.value == pytest.approx(0.81) and row.point.clean.n == 100
    assert row.problems == ["lr=1, seed=2: not finite"] and (row.evaluated, row.runs) == (2, 3)
    columns, cells = sweep_table.cells_of(AXES, [row])
    assert cells[0][-1] == "1 of 3 failed" and columns[:3] == ["lr", "clean", "robust"]
    assert row.conclusions == ["Fine"] and row.seconds == pytest.approx(42.5)


@pytest.mark.parametrize(("feasible", "told"), [(True, "Fine, kept weights feasible"), (None, "Fine")])
def test_a_row_says_whether_the_weights_of_an_earlier_epoch_met_the_limit(feasible: bool | None, told: str) -> None:
    made = evaluated({"lr": "1"}, 40, 30)
    made.trained = {**(made.trained or {}), "epochs": 3, "feasible": feasible}
    (row,) = sweep_table.rows_of([AXES[0]], [made])
    assert row.conclusions == [told]


@pytest.mark.parametrize(
    ("feasible", "name"),
    [((None, True), "1"), ((False, True), "1, limit not met by 1 of 2"), ((False, False), "1, limit not met")],
)
def test_the_picture_names_a_limit_that_was_not_met(feasible: tuple[bool | None, ...], name: str) -> None:
    runs = [evaluated({"lr": "1", "seed": str(seed)}, 40, 30) for seed in range(2)]
    for each, met in zip(runs, feasible, strict=True):
        each.trained = {**(each.trained or {}), "feasible": met}
    (row,) = sweep_table.rows_of(AXES, runs)
    assert row.point is not None and row.point.name == name


def test_unknown_examples_widen_a_row_upwards() -> None:
    sure, unsure = (
        sweep_table.rows_of(AXES, [evaluated({"lr": "1", "seed": seed}, 40, 30, unknown) for seed in "01"])[0].point
        for unknown in (0, 5)
    )
    assert sure is not None and unsure is not None
    assert unsure.robust.value == sure.robust.value and unsure.robust.low == sure.robust.low
    assert unsure.robust.high > sure.robust.high


def test_a_row_is_dominated_only_by_what_it_can_be_compared_with() -> None:
    axes = [Axis("lr", "lr", ("1", "2", "3"))]
    three = [evaluated({"lr": "1"}, 40, 30), evaluated({"lr": "2"}, 40, 31), evaluated({"lr": "3"}, 45, 20)]
    rows = sweep_table.rows_of(axes, three)
    assert [row.point.dominated for row in rows if row.point is not None] == [True, False, False]
    about = {"suite": "pgd", "note": "upper bound only"}
    assert [note.split(":")[0] for note in sweep_table._notes(about, axes, rows)][1:] == ["Dominated"]
    assert len(sweep_table._notes(about, axes, rows[1:])) == 1
    three[1] = evaluated({"lr": "2"}, 40, 31, threat="another")
    found = [row.point.dominated for row in sweep_table.rows_of(axes, three) if row.point is not None]
    assert found == [False, False, False]


def test_what_is_still_to_come_is_told() -> None:
    runs = [
        evaluated({"lr": "1", "seed": "0"}, 40, 30),
        Combination({"lr": "1", "seed": "1"}, Path("x"), dict, dict),
    ]
    (row,) = sweep_table.rows_of(AXES, runs)
    assert sweep_table.cells_of(AXES, [row])[1][0][-1] == "1 to come"
    assert row.point is not None and row.point.robust == wilson(30, 50), "a single run keeps its interval"
