"""The table of what each suite leaves standing."""

from studies.suites import breakers, rows

from unperturbed.findings import AttackRecord, GateRecord, Interval, Outcome


def outcome(suite: str, survived: int, passes: int, gate: GateRecord | None) -> Outcome:
    return Outcome(
        threat="L2:1.5", n=200, clean_accuracy=Interval(1, 1, 1, 200), seconds=12.4, warnings=(), environment={},
        suite=suite, note="", robust_accuracy=Interval(survived / 200, 0, 1, 200), ties=0, unverified=0,
        attacks=(AttackRecord("A", 196 - survived, survived / 200, 1.0, passes, 5), AttackRecord("B", 0, 0, 1, 10, 10)),
        counts={"survived": survived, "broken": 196 - survived, "misclassified": 4, "unknown": 0}, examples={},
        gate=gate,
    )  # fmt: skip


def test_a_row_has_survivors_before_and_after_the_check_and_all_passes() -> None:
    gate = GateRecord("standard", 120, 16, 3, "it broke 3", Interval(0.5, 0.5, 0.5, 200))
    outcomes = {"fast": outcome("fast", 98, 24_990, gate), "standard": outcome("standard", 97, 1_234_990, None)}
    assert list(rows("l2", outcomes)) == [
        "| l2 | L2:1.5 | 200 | 196 | fast | 98 (120) | all | 25,000 | 12 |",
        "| l2 | L2:1.5 | 200 | 196 | standard | 97 |  | 1,235,000 | 12 |",
    ]
    assert "fast: A 98 in 24,990, B 0 in 10. it broke 3" in next(breakers(outcomes))


def test_a_check_of_a_sample_shows_its_size() -> None:
    gate = GateRecord("standard", 120, 16, 0, "", Interval(0.6, 0.6, 0.6, 200))
    assert "| fast | 120 (120) | 16 | 25,000 | 12 |" in next(
        iter(rows("a", {"fast": outcome("fast", 120, 24_990, gate)}))
    )
