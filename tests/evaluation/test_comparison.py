"""Paired comparisons count correctly in any order of the examples."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from support.sealed import reseal
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.comparison import compare
from unperturbed.evaluation.run_comparison import compare_runs
from unperturbed.evaluation.stored import stored_evaluations, with_examples
from unperturbed.evaluation.threats import evaluate_threats
from unperturbed.findings import GateRecord, Interval, Outcome
from unperturbed.threat import Threat

SHARE = Interval(0.5, 0.4, 0.6, 4)


def outcome(verdicts: dict[int, str], labels: dict[int, int] | None = None, **changes: object) -> Outcome:
    labels = labels or dict.fromkeys(verdicts, 0)
    margins = {"misclassified": 0.5, "unknown": math.nan}
    table = {
        "id": list(verdicts),
        "label": [labels[name] for name in verdicts],
        "verdict": list(verdicts.values()),
        "clean_margin": [margins.get(verdict, -1.0) for verdict in verdicts.values()],
    }
    made = Outcome(
        suite="standard",
        note="note",
        threat="Linf:0.1",
        n=len(verdicts),
        clean_accuracy=SHARE,
        robust_accuracy=SHARE,
        counts={},
        attacks=(),
        ties=0,
        unverified=0,
        seconds=0.0,
        warnings=(),
        environment={"data": "d"},
        examples=table,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


FIRST = {0: "survived", 1: "broken", 2: "misclassified", 3: "survived"}
SECOND = {3: "survived", 2: "survived", 1: "survived", 0: "broken"}


def test_differences_and_the_examples_behind_them() -> None:
    (pair,) = compare(
        {"a": outcome(FIRST, {0: 0, 1: 0, 2: 1, 3: 1}), "b": outcome(SECOND, {0: 0, 1: 0, 2: 1, 3: 1})}
    ).pairs
    assert (pair.n, pair.robust.value, pair.robust.gained, pair.robust.lost) == (4, 0.25, 2, 1)
    assert (pair.clean.value, pair.clean.gained, pair.clean.lost) == (0.25, 1, 0)
    assert pair.robust.p == 1.0 and pair.clean.p == 1.0
    assert (pair.only_first, pair.only_second) == ((0,), (1, 2))
    zero, one = pair.classes
    assert (zero.label, zero.n, zero.clean, zero.robust) == (0, 2, (1.0, 1.0), (0.5, 0.5))
    assert (one.label, one.n, one.clean, one.robust) == (1, 2, (0.5, 1.0), (0.5, 1.0))


def test_swapping_the_networks_turns_the_sign() -> None:
    one, other = outcome(FIRST), outcome(SECOND)
    (there,), (back,) = compare({"a": one, "b": other}).pairs, compare({"b": other, "a": one}).pairs
    assert (back.robust.value, back.robust.low, back.robust.high) == pytest.approx(
        (-there.robust.value, -there.robust.high, -there.robust.low)
    )


def test_unknown_examples_widen_the_interval_and_are_nobodys_gain() -> None:
    sure = {name: "survived" for name in range(50)}
    unsure = sure | {name: "unknown" for name in range(5)}
    (pair,) = compare({"a": outcome(sure), "b": outcome(unsure)}).pairs
    (same,) = compare({"a": outcome(sure), "b": outcome(sure)}).pairs
    assert pair.robust.value == -0.1 and pair.robust.lost == 0
    assert pair.robust.low < -0.1 and pair.robust.high >= same.robust.high


def test_examples_that_one_network_lacks_are_left_out_and_reported() -> None:
    found = compare({"a": outcome(FIRST), "b": outcome({0: "broken", 1: "survived"})})
    assert found.pairs[0].n == 2 and "Only 2 of up to 4" in found.warnings[0]


def test_a_robust_accuracy_that_is_not_to_be_believed_stays_so() -> None:
    found = compare({"a": outcome(FIRST), "b": outcome(SECOND, doubts=("the gradient is wrong",))})
    assert found.doubts == {"b": ("the gradient is wrong",)} == found.json()["doubts"]


def test_seeds_count_in_the_interval() -> None:
    stable = [outcome({name: "survived" if name < 60 else "broken" for name in range(100)})] * 3
    better = [outcome({name: "survived" if name < 60 + k else "broken" for name in range(100)}) for k in (0, 20, 40)]
    (pair,) = compare({"a": stable, "b": better}).pairs
    assert pair.seeds == 3 and pair.robust.value == pytest.approx(0.2) and pair.robust.p is None
    assert pair.robust.low < 0 < pair.robust.high


@pytest.mark.parametrize(
    "other, said",
    [
        (outcome(FIRST, threat="L2:1.0"), "threats"),
        (outcome(FIRST, suite="pgd"), "suites"),
        (outcome(FIRST, environment={"data": "other"}), "data"),
        (outcome(FIRST, environment={"data": "d", "attacks": "(PGD(steps=1),) 0123456789abcdef"}), "settings"),
        (outcome(FIRST, environment={"data": "d", "bounds": "0,2"}), "bounds"),
        (outcome({9: "broken"}), "No example"),
        (outcome(FIRST, dict.fromkeys(FIRST, 1)), "labels"),
        ([outcome(FIRST)] * 2, "seeds"),
    ],
)
def test_what_cannot_be_compared_is_refused(other: Outcome | list[Outcome], said: str) -> None:
    with pytest.raises(InputError, match=said):
        compare({"a": outcome(FIRST), "b": other})


def test_attacks_with_other_code_are_compared_with_a_warning() -> None:
    first, second = (
        outcome(FIRST, environment={"data": "d", "attacks": f"(PGD(steps=1),) {code * 16}"}) for code in "ab"
    )
    assert "code of the attacks" in compare({"a": first, "b": second}).warnings[0]


@pytest.mark.long
@pytest.mark.slow
def test_runs_are_compared_on_the_examples_that_all_of_them_have(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x, y = torch.rand(12, 4), torch.arange(12) % 3
    threat = Threat("Linf", 0.1)
    for name, sizes in (("a", (12, 8)), ("b", (8, 5))):
        model = nn.Linear(4, 3)
        for n in sizes:
            evaluate(model, (x[:n], y[:n]), threat, "apgd-ce", out=tmp_path / name / "evaluation" / f"first-{n}")
    (pair,) = compare_runs([tmp_path / "a", tmp_path / "b"]).pairs
    assert pair.n == 8  # the largest selection of each run, 12 and 8, is not that of the other
    evaluate(nn.Linear(4, 3), (1 - x, y), threat, "apgd-ce", out=tmp_path / "c/evaluation/other")
    with pytest.raises(InputError, match=r"a has .* on 12 examples \(first-12\).*c has .* on 12 examples \(other\)"):
        compare_runs([tmp_path / "a", tmp_path / "c"])


def test_one_network_is_no_comparison() -> None:
    with pytest.raises(InputError, match="two"):
        compare({"a": outcome(FIRST)})


def test_an_evaluation_is_read_from_its_folder_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    run = Path("Linf:0.3")  # of this, Arrow would take "Linf" for the scheme of an address
    data = (torch.rand(20, 4), torch.arange(20) % 3)
    written = evaluate(nn.Linear(4, 3), data, Threat("Linf", 0.1), "apgd-ce", out=run / "evaluation")
    ((summary, read),) = stored_evaluations(run).items()
    whole = with_examples(summary, read)
    assert whole.examples == written.examples and whole.json() == written.json()
    for field, value in (("robust_accuracy", 2.0), ("counts", {"survived": 20, "broken": 0}), ("n", "many")):
        text = summary.read_text()
        reseal(summary, json.loads(text) | {field: value})
        with pytest.raises(InputError, match="--overwrite"):
            with_examples(summary, stored_evaluations(run)[summary])
        summary.write_text(text)
    summary.write_text(text[:100])
    with pytest.raises(InputError, match="not JSON"):
        stored_evaluations(run)
    summary.write_text(text)
    (summary.with_suffix("") / "part-00000.parquet").unlink()
    with pytest.raises(InputError, match="--overwrite"):
        with_examples(summary, read)


@pytest.mark.slow
def test_points_of_smaller_radii_and_doubts_are_read_with_the_evaluation(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data, model = (torch.rand(20, 4), torch.arange(20) % 3), nn.Linear(4, 3)
    written = evaluate_threats(model, data, [Threat("Linf", eps) for eps in (0.02, 0.2)], "apgd-ce", out=[
        tmp_path / "evaluation" / name for name in ("small", "large")
    ])  # fmt: skip
    read = {path.parent.name: with_examples(path, one) for path, one in stored_evaluations(tmp_path).items()}
    for name, outcome in zip(("small", "large"), written, strict=True):
        assert read[name].examples == outcome.examples and read[name].doubts == outcome.doubts


@pytest.mark.parametrize("reasons", [("broke 3", ""), ("", "broke 3"), ("broke 3", None)])
def test_networks_whose_survivors_were_attacked_unequally_are_told_apart(
    reasons: tuple[str | None, str | None],
) -> None:
    gates = [None if reason is None else GateRecord("standard", 3, 2, 1, reason, SHARE) for reason in reasons]
    first, second = outcome(FIRST, gate=gates[0]), outcome(SECOND, gate=gates[1])
    (warning,) = compare({"a": first, "b": second}).warnings
    assert f"all survivors of {'a' if reasons[0] else 'b'}, and a sample at most" in warning
    assert compare({"a": first, "b": first}).warnings == ()


def test_a_sample_of_the_survivors_of_one_network_alone_is_told() -> None:
    (warning,) = compare({"a": outcome(FIRST), "b": outcome(SECOND, gate=GateRecord("s", 3, 2, 1, "", SHARE))}).warnings
    assert "a sample of the survivors of b, and none of the others" in warning


def test_equal_checks_of_survivors_give_no_warning() -> None:
    for gate in (None, GateRecord("standard", 3, 2, 0, "", SHARE), GateRecord("standard", 3, 3, 3, "broke 3", SHARE)):
        assert compare({"a": outcome(FIRST, gate=gate), "b": outcome(SECOND, gate=gate)}).warnings == ()
