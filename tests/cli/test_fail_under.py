"""A build passes though its robust accuracy may be too low, or is doubtful."""

import pytest

from unperturbed.cli.evaluate import _code
from unperturbed.findings import Interval, Outcome


def outcome(low: float, doubts: tuple[str, ...] = ()) -> Outcome:
    return Outcome(
        threat="Linf:0.1", n=6, clean_accuracy=Interval(1, 1, 1, 6), seconds=0.0, warnings=(), environment={},
        suite="pgd", note="", robust_accuracy=Interval(0.5, low, 1, 6), attacks=(), ties=0, unverified=0,
        counts={"survived": 3, "broken": 3, "misclassified": 0, "unknown": 0}, examples={}, doubts=doubts,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("low", "doubts", "least", "reason"),
    [
        (0.4, (), None, ""),
        (0.4, ("flat",), None, ""),
        (0.4, (), 0.4, ""),
        (0.39, (), 0.4, "the interval begins at 39.0%, below 40.0%"),
        (0.5, ("flat gradients",), 0.4, "flat gradients"),
        (float("nan"), (), 0.4, "the interval begins at nan%"),
    ],
)
def test_a_low_interval_or_a_doubt_fails(
    capsys: pytest.CaptureFixture[str], low: float, doubts: tuple[str, ...], least: float | None, reason: str
) -> None:
    code = _code(outcome(low, doubts), least)
    message = capsys.readouterr().err
    assert code == int(bool(reason)) and reason in message and bool(message) == bool(reason)


@pytest.mark.parametrize("share", ["0", "-0.1", "40", "nan"])
def test_a_share_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], share: str) -> None:
    from unperturbed.cli.main import main

    assert main(("evaluate", "nowhere", f"--fail-under={share}")) == 2
    assert "--fail-under is" in capsys.readouterr().err
