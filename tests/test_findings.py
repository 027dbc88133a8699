import json
import sys

import pytest

from unperturbed.errors import InputError
from unperturbed.findings import AttackRecord, Interval, Outcome, silent


def outcome() -> Outcome:
    return Outcome(
        suite="pgd",
        note="upper bound only: no AutoAttack",
        threat="Linf:0.3",
        n=100,
        clean_accuracy=Interval(0.9, 0.83, 0.94, 100),
        robust_accuracy=Interval(0.5, 0.4, 0.6, 100),
        counts={"misclassified": 10, "broken": 40, "survived": 50, "unknown": 0},
        attacks=(AttackRecord("PGD-CE", 40, 0.5, 1.5, 1000, 1000),),
        ties=1,
        unverified=2,
        seconds=3.0,
        warnings=("careful",),
        environment={"seed": 0},
        examples={"id": list(range(100))},
    )


def test_a_number_travels_with_its_interval_and_n() -> None:
    assert str(Interval(0.487, 0.456, 0.518, 1000)) == "48.7% [45.6%, 51.8%], n=1000"


def test_the_headline_says_what_the_number_is() -> None:
    assert str(outcome()) == (
        "clean 90.0% [83.0%, 94.0%], n=100; robust under Linf:0.3 50.0% [40.0%, 60.0%], n=100 "
        "(pgd: upper bound only: no AutoAttack)"
    )


def test_the_summary_is_plain_json() -> None:
    summary = json.loads(json.dumps(outcome().json(), allow_nan=False))
    assert summary["n"] == 100 and summary["interval"] == [0.4, 0.6] and summary["clean_interval"] == [0.83, 0.94]
    assert summary["robust_accuracy"] == 0.5 and summary["clean_accuracy"] == 0.9
    assert summary["counts"] == {"misclassified": 10, "broken": 40, "survived": 50, "unknown": 0}
    assert summary["attacks"] == [
        {"name": "PGD-CE", "broken": 40, "robust_after": 0.5, "seconds": 1.5, "forwards": 1000, "backwards": 1000}
    ]
    assert summary["ties"] == 1 and summary["unverified"] == 2 and summary["warnings"] == ["careful"]
    assert "examples" not in summary


def test_a_table_without_pandas_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(outcome().table()["id"]) == list(range(100))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas.*`examples`"):
        outcome().table()


def test_silence() -> None:
    silent(1, 2, "three")
