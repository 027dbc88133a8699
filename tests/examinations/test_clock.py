"""Seconds of an examination do not depend on what else the machine does, and end in any case."""

import time

import pytest

from unperturbed.examinations.clock import STRETCH, Start


@pytest.mark.parametrize(
    ("clock", "processor", "seconds"),
    [
        pytest.param(10.0, 9.9, 9.9, id="a free machine"),
        pytest.param(30.0, 10.0, 10.0, id="two other programs as well"),
        pytest.param(10.0, 19.0, 10.0, id="two threads"),
        pytest.param(40.0, 0.1, 40.0 / STRETCH, id="a network that waits for a service"),
    ],
)
def test_waiting_for_other_programs_does_not_count(
    monkeypatch: pytest.MonkeyPatch, clock: float, processor: float, seconds: float
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    monkeypatch.setattr(time, "process_time", lambda: 7.0)
    start = Start.now()
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0 + clock)
    monkeypatch.setattr(time, "process_time", lambda: 7.0 + processor)
    assert start.seconds == pytest.approx(seconds) and start.cost == pytest.approx(processor)
