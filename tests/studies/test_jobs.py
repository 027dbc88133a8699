"""Several processes: what they return, and that errors and ended processes reach the caller."""

import os
from dataclasses import dataclass

import pytest

from unperturbed.engines.base import Keep, Report, Unit
from unperturbed.errors import InputError, RunError
from unperturbed.studies.jobs import Processes


@dataclass(frozen=True)
class Square:
    number: int

    def __call__(self, begun: object, keep: Keep, report: Report) -> int:
        if self.number == 13:
            raise InputError("thirteen")
        if self.number == 14:
            os._exit(1)
        return self.number**2


def silent(share: float, text: str) -> None:
    pass


@pytest.mark.long
@pytest.mark.slow
def test_every_unit_is_executed_once_and_errors_reach_the_caller() -> None:
    units = [Unit(number, 1, Square(number)) for number in range(5)]
    assert dict(Processes(2).map(units, silent)) == {number: number**2 for number in range(5)}
    with pytest.raises(InputError, match="thirteen"):
        list(Processes(2).map([Unit(0, 1, Square(13))], silent))
    with pytest.raises(RunError, match="fewer --jobs"):
        list(Processes(2).map([Unit(0, 1, Square(14))], silent))
