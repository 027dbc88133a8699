"""A worker hands over a state that changes under way, or loses the setting of the driver. Without a cluster."""

import os
from typing import Any

import pytest
import torch
from torch import Tensor

from unperturbed.engines.base import Keep, Report
from unperturbed.engines.ray_worker import News, Setting, Worker
from unperturbed.processor import SETTING


@pytest.fixture
def worker() -> Worker:
    return Worker(Setting.here(torch.get_num_threads()))


def loaded(worker: Worker, *computes: Any) -> list[str]:
    """Give a worker the work that it would read by a reference."""
    worker._loaded = "reference", computes
    return ["reference"]


def test_the_state_is_that_of_the_step_though_the_work_goes_on_and_it_is_handed_over_once(worker: Worker) -> None:
    answers = list[News]()

    def work(begun: Tensor | None, keep: Keep, report: Report) -> float:
        state = torch.zeros(3) if begun is None else begun
        report(0.5, "half")
        keep(state)
        state += 1  # the next step, in place
        answers.extend([worker.news(), worker.news()])
        return float(state.sum())

    assert worker.execute(loaded(worker, work, work), 1, None) == 3
    first, second = answers
    assert (first.place, first.share, first.text) == (1, 0.5, "half") and torch.equal(first.state, torch.zeros(3))
    assert second.state is None and second.share == 0.5
    assert worker.execute(loaded(worker, work, work), 1, first.state) == 3


def test_the_progress_of_a_unit_does_not_pass_to_the_next_one(worker: Worker) -> None:
    def work(begun: None, keep: Keep, report: Report) -> News:
        before = worker.news()
        report(1.0, "whole")
        keep("state")
        return before

    shared = loaded(worker, work, work)
    worker.execute(shared, 0, None)
    assert worker.execute(shared, 1, None) == News(1)


def test_a_worker_has_the_setting_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "AVX2,STRICT")
    setting = Setting.here(3)
    assert setting.environment() == {SETTING: "AVX2,STRICT", "OMP_NUM_THREADS": "3"}
    assert setting.folder == os.getcwd()
    monkeypatch.delenv(SETTING)
    assert Setting.here(1).environment()[SETTING] == ""
    threads = torch.get_num_threads()
    try:
        worker = Worker(setting)
        assert worker.execute(loaded(worker, lambda *_: torch.get_num_threads()), 0, None) == 3
    finally:
        torch.set_num_threads(threads)
