import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from studies.nominal_limits import SUITE, Trained, beside, row, trained

from studies import nominal_limits
from unperturbed.runs import write_jsonl


def run(name: str, seed: int, right: str, **others: float) -> Trained:
    clean, robust = (sum(found >= least for found in right) / len(right) for least in "12")
    limited = {key: others.get(key) for key in ("nominal_loss", "dual", "at_zero")}
    return Trained(name, seed, (clean, robust, robust, robust), right, **limited, seconds=60.0)


def test_differences_are_paired_over_the_seeds_that_both_have() -> None:
    dale = [run("dale", seed, "2" * 90 + "1" * 10) for seed in (0, 1)] + [run("dale", 2, "0" * 100)]
    trades = [run("trades", seed, "2" * 90 + "0" * 10) for seed in (1, 0)]
    assert beside(dale, trades) == (
        "dale - trades, 2 seeds: robust +0.0% [+0.0%, +0.0%], no more than 0.5% lost: held; "
        "clean +10.0% [+4.1%, +15.9%], higher: held"
    )


def test_seeds_are_paired_in_whatever_order_they_come() -> None:
    there, elsewhere = "2" * 50 + "0" * 50, "0" * 50 + "2" * 50
    dale = [run("dale", 0, there), run("dale", 1, elsewhere)]
    trades = [run("trades", 1, elsewhere), run("trades", 0, there)]
    assert "robust +0.0% [+0.0%, +0.0%]" in beside(dale, trades)


def test_a_row_has_means_over_seeds_and_the_lowest_and_highest_of_them() -> None:
    runs = [run("dual", 0, "2211", nominal_loss=0.02, dual=0.6), run("dual", 1, "2110", nominal_loss=0.021, dual=1.0)]
    assert row("dual", runs) == (
        "| dual | 2 | 87.5% | 37.5% | 37.5% | 37.5% | 25.0%, 50.0% | 0.02, 0.021 | 0.6, 1 | 60 |"
    )


def test_runs_of_several_machines_add_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [run(name, seed, right) for name, right in (("dale", "2211"), ("trades", "2210")) for seed in (0, 1)]
    for seed in (0, 1):
        write_jsonl(tmp_path / f"{seed}.jsonl", (asdict(each) for each in runs if each.seed == seed))
    kept = tmp_path / "kept.jsonl"
    files = [str(tmp_path / f"{seed}.jsonl") for seed in (0, 1)]
    monkeypatch.setattr(sys, "argv", ["nominal_limits", *files, "--keep", str(kept)])
    nominal_limits.main()
    printed = capsys.readouterr().out
    assert "| trades | 2 | 75.0% | 50.0% |" in printed and "dale - trades, 2 seeds" in printed
    assert list(trained(kept)) == runs


def test_a_sweep_over_seeds_alone_is_called_by_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "limited" / "seed=3"
    folder.mkdir(parents=True)
    write_jsonl(folder / "metrics.jsonl", [{"epoch": 1, "dual": 0.5}])
    evaluation = {"attacks": [{"robust_after": 0.5}] * len(SUITE.attacks), "clean_accuracy": 0.9}
    made = {"values": {"seed": "3"}, "run": str(folder), "status": "done", "evaluation": evaluation, "seconds": 1.0}
    (tmp_path / "sweep.json").write_text(json.dumps({"runs": [made]}))
    (found,) = trained(tmp_path / "sweep.json")
    assert (found.name, found.seed, found.dual) == ("limited", 3, 0.5)


def test_what_was_evaluated_otherwise_is_refused(tmp_path: Path) -> None:
    evaluation = {"attacks": [{"robust_after": 0.5}], "clean_accuracy": 0.9}
    other = {"values": {"method": "at"}, "run": str(tmp_path), "status": "done", "evaluation": evaluation}
    (tmp_path / "sweep.json").write_text(json.dumps({"runs": [other]}))
    with pytest.raises(SystemExit, match="was not evaluated under fgsm-pgd-standard"):
        trained(tmp_path / "sweep.json")
