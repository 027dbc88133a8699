"""`unperturbed sweep --search tpe --stop asha`: the same trials after a kill, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_main import Run
from test_main import run as run
from test_sweep import OPTIONS, steps_count, without_seconds

from unperturbed.runs import read_jsonl

SEARCH = ("sweep", "--suite", "pgd", *OPTIONS, "--search", "tpe", "--trials", "4", "--json")
OVER = ("--over", "lr=log:1e-4..0.1", "--over", "label-smoothing=0,0.1", "--over", "model.hidden=[4],[8,8]")


def without_results(value: dict[str, Any]) -> Any:
    return without_seconds(json.loads(json.dumps(value).replace("whole", "out")))


@pytest.mark.slow
@pytest.mark.long
def test_stopped_within_a_trial_it_goes_on_to_the_same_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*SEARCH, *OVER, "--epochs", "3", "--stop", "asha", "--examples", "8", "--out")
    with monkeypatch.context() as patched:
        taken = steps_count(patched)
        code, out, err = run(*words, "whole")
        assert code == 0, err
    whole = json.loads(out)
    assert len(taken) == (4 * 1 + 1 * 2) * 3, "three steps an epoch, and one of four trials is trained further"
    assert [entry["status"] for entry in whole["runs"]].count("stopped") == 3
    with monkeypatch.context() as patched:
        steps_count(patched, quit_at=8)  # in the third trial
        assert run(*words, "out")[0] == 130
    code, out, err = run(*words, "out")
    assert code == 0 and without_results(json.loads(out)) == without_results(whole), err

    chosen = Path(whole["chosen"]["run"])
    configs = [yaml.safe_load(Path(entry["run"], "config.yaml").read_text()) for entry in whole["runs"]]
    assert all(1e-4 <= config["recipe"]["lr"] <= 0.1 for config in configs)
    probes = {Path(entry["run"]): read_jsonl(Path(entry["run"], "metrics.jsonl")) for entry in whole["runs"]}
    assert len(probes[chosen]) == 3 and {len(lines) for run, lines in probes.items() if run != chosen} == {1}
    first = {run: lines[0]["probe/many_steps"] for run, lines in probes.items()}
    assert first[chosen] == max(first.values()), "the held-out robust accuracy of the first epoch decides"
    (row,) = [row for row in whole["rows"] if row.get("chosen")]
    assert row["validation"]["robust_accuracy"] == max(line["probe/many_steps"] for line in probes[chosen])

    taken = steps_count(monkeypatch)
    code, _, err = run(*words, "out", "--weight-decay", "0.1")
    assert code == 2 and "recipe.weight_decay was 0.0005 and is 0.1" in err and not taken


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--over", "lr=0.1..0.01"), ["0.1..0.01 is empty"]),
        (("--over", "lr=log:0..0.1"), ["log:0..0.1", "0 is not positive"]),
        (("--over", "lr=log:x..0.1"), ["'x', which is no number"]),
        (("--over", "lr=-1.0..0.1"), ["lr is -1"]),
        (("--over", "label-smoothing=0.5..2.0"), ["label_smoothing is 2"]),
        (("--over", "batch-size=1.5..3.5"), ["--batch-size", "1.5"]),
        (("--over", "lr=1e-3..1e-2", "--over", "seed=0,1"), ["a seed is no choice"]),
        (("--over", "lr=1e-3..1e-2", "--over", "lr=0.1"), ["twice for lr"]),
        (("--over", "lr=1e-3..1e-2", "--stop", "asha", "--epochs", "2"), ["epochs is 2"]),
        (("--over", "lr=1e-3..1e-2", "--over", "epochs=3..9", "--stop", "asha"), ["leave epochs out"]),
        (("--over", "lr=1e-3..1e-2", "--trials", "0"), ["trials is 0"]),
        (("--over", "lr=1e-3..1e-2", "--search-seed", "-1"), ["seed is -1"]),
        (("--over", "lr=1e-3..1e-2", "--trials", "2", "--stop", "asha"), ["there are 2"]),
        (("--over", "lr=1e-3..1e-2", "--validation", "0"), ["validation is 0", "leaves none of the"]),
        (("--over", "lr=1e-3..1e-2", "--search", "gp"), ["--search", "gp"]),
        (("--over", "lr=1e-3..1e-2", "--stop", "sha"), ["--stop", "sha"]),
    ],
)
def test_a_bad_search_ends_with_2_before_anything_is_trained(
    run: Run, words: tuple[str, ...], parts: list[str]
) -> None:
    code, out, err = run(*SEARCH, *words, "--out", "out")
    assert (code, out) == (2, "") and all(part in err for part in parts), err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--over", "lr=1e-3..1e-2"), "lr=0.001..0.01 is a range: search in it by --search tpe, or list values"),
        (("--over", "lr=0.1", "--trials", "3"), "--trials is an option of a search"),
        (("--over", "lr=0.1", "--search-seed", "3"), "--search-seed is an option of a search"),
    ],
)
def test_options_of_a_search_without_one_are_refused(run: Run, words: tuple[str, ...], part: str) -> None:
    code, _, err = run("sweep", "--suite", "pgd", *OPTIONS, *words, "--out", "out")
    assert code == 2 and part in err
