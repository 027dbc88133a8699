"""A unit is lost or executed twice, or progress goes back or beyond the end, when several workers share a job."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unperturbed.engines import group as module
from unperturbed.engines.base import Engine, Keep, Report, Unit
from unperturbed.engines.by_name import find_engine
from unperturbed.engines.group import Group, usual_engine
from unperturbed.engines.local import Local
from unperturbed.errors import InputError


class Work:
    """Units that write down who executed them; what is stored can be read by any process."""

    def __init__(self, sizes: list[int], numbers: list[int] | None = None) -> None:
        self.executed = list[int]()
        self.stored = dict[int, str]()
        self.units = [
            Unit(number, size, self.compute(number), lambda number=number: self.stored.get(number))  # type: ignore[misc]
            for number, size in zip(numbers or range(len(sizes)), sizes, strict=True)
        ]

    def compute(self, number: int):  # type: ignore[no-untyped-def]
        def work(begun: object, keep: Keep, report: Report) -> str:
            report(0.5, "half")
            report(1.0, "whole")
            self.executed.append(number)
            self.stored[number] = f"result {number}"
            return self.stored[number]

        return work


@given(st.lists(st.integers(1, 100), max_size=12))
def test_one_process_executes_every_unit_in_order_and_progress_ends_at_the_sum(sizes: list[int]) -> None:
    work, seen = Work(sizes), list[float]()
    results = list(Local().map(work.units, lambda done, text: seen.append(done)))
    assert results == [(number, f"result {number}") for number in range(len(sizes))]
    assert work.executed == list(range(len(sizes)))
    assert seen == sorted(seen) and (not sizes or seen[-1] == sum(sizes))


@given(st.lists(st.integers(1, 100), max_size=12), st.integers(1, 5))
def test_the_processes_of_a_group_execute_every_unit_once_and_all_have_every_result(
    sizes: list[int], workers: int
) -> None:
    work, whole = Work(sizes), {number: f"result {number}" for number in range(len(sizes))}
    for rank in range(workers):  # what each executes before they meet
        share = Work([*sizes[rank::workers]], [*range(len(sizes))[rank::workers]])
        for _, result in Local().map(share.units, lambda done, text: None):
            assert result
        work.executed += share.executed
        work.stored |= share.stored
    assert sorted(work.executed) == list(range(len(sizes)))
    for rank in range(workers):
        seen = list[float]()
        assert dict(Group(rank, workers).map(work.units, lambda done, text: seen.append(done))) == whole  # noqa: B023
        assert not seen or seen[-1] == pytest.approx(sum(sizes))


def test_a_unit_that_another_process_lost_is_executed_here_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    work = Work([3, 3, 3, 3])
    results = dict(Group(0, 2).map(work.units, lambda done, text: None))
    assert results == {number: f"result {number}" for number in range(4)}
    assert work.executed == [0, 2, 1, 3]
    assert "Part 1 of another process is missing: it is measured here." in caplog.text


def test_the_engine_is_that_of_the_group_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usual_engine() == Local() and isinstance(Local(), Engine)
    monkeypatch.setattr(module, "group", lambda: (1, 3))
    assert usual_engine() == Group(1, 3) and isinstance(Group(1, 3), Engine)


def test_an_engine_is_found_by_name_and_by_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_engine("local") == find_engine(None) == find_engine("unperturbed.engines.local:Local") == Local()
    engine = Group(0, 1)
    assert find_engine(engine) is engine
    with pytest.raises(InputError, match="no engine 'lokal'. Did you mean 'local'"):
        find_engine("lokal")
    with pytest.raises(InputError, match="is of type InputError, but an engine has"):
        find_engine("unperturbed.errors:InputError")
    with pytest.raises(InputError, match="cannot be made without arguments"):
        find_engine("unperturbed.engines.group:Group")
    monkeypatch.setattr("unperturbed.engines.by_name.group", lambda: (0, 2))
    with pytest.raises(InputError, match="several processes share the work"):
        find_engine("local")


class _Trace:
    """A class that is no engine, and leaves a trace if it is called."""

    called = False

    def __init__(self) -> None:
        type(self).called = True


def test_a_class_that_is_no_engine_is_not_called() -> None:
    """An import path of a file may lead to any class of a known library."""
    with pytest.raises(InputError, match="is of type _Trace, but an engine has"):
        find_engine(f"{__name__}:_Trace")
    assert not _Trace.called
