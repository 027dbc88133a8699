"""Calls of the Python API with arguments exchanged at random: nonsense is refused by name, and results are valid.

An outcome is an error of the package that names an argument, or a result that makes sense. Anything else, and a call
that takes longer than `LIMIT`, is a fault.
"""

import inspect
import random
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import unperturbed as un
from support.fuzzing import data, threats
from support.fuzzing.calls import measurements, training
from support.fuzzing.data import CLASSES, FEATURES
from support.fuzzing.making import files, makers
from support.fuzzing.roles import Call, Role
from support.fuzzing.values import Make
from support.shares import in_ci
from support.toys import linear

pytestmark = pytest.mark.usefixtures("unchecked")  # the annotations' check under pytest would be first
LIMIT = 20.0
"""Seconds of the processor that a call may take."""


class Endless(BaseException):
    """A call took longer than `LIMIT`."""


@contextmanager
def limited() -> Iterator[None]:
    def end(*_: object) -> None:
        raise Endless

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def described(make: Make, value: Any) -> str:
    """Return a value's type and text, and the line that it was made at."""
    try:
        text = f"{value!r:.100}"
    except Exception:
        text = ""
    return f"{type(value).__name__} {text} (line {inner(make).__code__.co_firstlineno})"


def inner(make: Make) -> Any:
    """Return the function that a function calls."""
    if not inspect.isfunction(make):
        return described
    return next((each for each in (make.__defaults__ or ()) if inspect.isfunction(each)), make)  # type: ignore[attr-defined]


def exchanged(role: Role, draw: random.Random) -> tuple[Make, bool]:
    """Return what makes an argument, and whether that is nonsense."""
    nonsense = not role.odd or draw.random() < 0.4
    return draw.choice(role.nonsense if nonsense else role.odd), nonsense


def fault_of(call: Call, draw: random.Random) -> str | None:
    """Make a call with one or two arguments exchanged; return what is wrong with its outcome, None if nothing is."""
    names = draw.sample(sorted(call.roles), min(len(call.roles), draw.choice([1, 1, 1, 2])))
    made = {name: exchanged(call.roles[name], draw) for name in names}
    given = {name: role.valid() for name, role in call.roles.items()}
    try:
        given |= {name: make() for name, (make, _) in made.items()}
    except un.InputError:
        return None
    shown = ", ".join(f"{name}={described(made[name][0], given[name])}" for name in names)
    said = f"{call.function.__qualname__}({shown})"
    nonsense = [name for name in names if made[name][1]]
    try:
        with limited():
            result = call.function(**given)
            if not nonsense:
                call.judge(result, given)
    except un.RunError:
        return None
    except un.InputError as error:
        text = str(error)
        words = "|".join(f"{name}|{call.roles[name].words or name}" for name in names)
        return None if re.search(words, text, re.IGNORECASE) else f"{said}: the message names no argument: {text}"
    except Endless:
        return f"{said} took more than {LIMIT} s"
    except BaseException as error:
        return f"{said} ended in {type(error).__name__}: {str(error)[:300]}"
    return f"{said} took nonsense for {nonsense}" if nonsense else None


@cache
def calls() -> list[Call]:
    return [*measurements() * 4, *training() * 4, *makers(), *files()]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file, a run, weights, and a folder that is not empty; its parent holds nothing else."""
    folder = tmp_path_factory.mktemp("fuzz") / "places"
    folder.mkdir()
    (folder / "file").write_text("text")
    (folder / "full").mkdir()
    (folder / "full/other").write_text("text")
    model = un.architectures.MLP((FEATURES,), CLASSES, hidden=(4,))
    un.train(model, (data.inputs(), data.labels()), threats.threat(), recipe=un.Recipe(epochs=1), out=folder / "run")
    un.save_weights(linear(FEATURES, CLASSES), folder / "weights")
    return folder


def faults(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    found = [fault_of(draw.choice(calls()), draw) for _ in range(count)]
    return [fault for fault in found if fault is not None]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("seed", in_ci(1, range(10)))
def test_a_thousand_calls_are_refused_by_name_or_give_valid_results(
    seed: int, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(places)
    assert not (found := faults(seed, 100)), "\n".join(found)
