"""The choice between ways to run a network, on clocks that the tests set."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from unperturbed.errors import InputError
from unperturbed.networks.precision import Precision
from unperturbed.networks.settings import Layout, Seconds, Tuning
from unperturbed.networks.tuning import (
    COMPILING,
    LONG,
    ROUNDS,
    SHARE,
    Candidate,
    Clock,
    Trial,
    allowance,
    compiled_ways,
    fastest,
    measure,
    other_ways,
    tune,
)

FAST = Precision("bf16-mixed", torch.channels_last, torch.float32)
PLAIN = Precision("32-true", torch.contiguous_format, torch.float32)


class Time:
    """A clock that steps move."""

    def __init__(self) -> None:
        self.now, self.taken = 0.0, list[str]()

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda: self.now)

    def candidate(self, name: str, *seconds: float, **options: Any) -> Candidate:
        """Return a candidate whose steps take these seconds, the last ones again and again."""
        left = list(seconds)

        def step() -> None:
            self.taken.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return Candidate(name, step, **options)


def failing(error: Exception) -> Callable[[], None]:
    def step() -> None:
        raise error

    return step


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((1.0, 0.5, 0.7), 1),
        ((1.0, 0.95, 2.0), 0),  # not clearly faster
        ((1.0, None, 0.9), 2),
        ((1.0, None), 0),
        ((None, 0.5), 0),  # the job's own error will say why
        ((1.0,), 0),
        ((0.5, 0.5), 0),
    ],
)
def test_the_fastest_way_wins_if_it_is_clearly_faster(seconds: Sequence[float | None], expected: int) -> None:
    assert fastest([Trial(str(number), value) for number, value in enumerate(seconds)]) == expected


@pytest.mark.parametrize(
    ("requested", "expected", "seconds"),
    [
        ("off", 1e6, 0.0),
        ("auto", LONG - 1, 0.0),
        ("auto", LONG, SHARE * LONG),
        ("auto", 1e5, SHARE * 1e5),
        (7.5, 1.0, 7.5),
        (30, 1e6, 30.0),
    ],
)
def test_the_seconds_for_tuning(requested: Seconds, expected: float, seconds: float) -> None:
    assert allowance(requested, expected) == seconds and SHARE < 0.05


def test_the_shortest_of_interleaved_steps_counts_and_the_first_does_not() -> None:
    time = Time()
    slow, fast = time.candidate("slow", 9.0, 2.0, 3.0, 2.5), time.candidate("fast", 5.0, 1.5, 1.0, 4.0, examples=2)
    trials = measure([slow, fast], 1e3, time.clock)
    assert trials == [Trial("slow", 2.0), Trial("fast", 0.5)]
    assert time.taken == ["slow", "fast"] * (ROUNDS + 1)


def test_steps_stop_where_another_round_would_not_fit() -> None:
    time = Time()
    measure([time.candidate("a", 1.0), time.candidate("b", 1.0)], 5.0, time.clock)
    assert time.taken == ["a", "b"] * 2 and time.now <= 5.0


def test_the_preparation_is_not_timed() -> None:
    time = Time()

    def prepare() -> None:
        time.now += 100.0

    assert measure([time.candidate("a", 1.0, prepare=prepare)], 0.0, time.clock) == [Trial("a", 1.0)]


def test_a_failing_candidate_is_left_out_and_says_why() -> None:
    time = Time()
    broken = Candidate("b", failing(RuntimeError("no C++ compiler\nsecond line")), compiled=True)
    first, second, third = measure([time.candidate("a", 1.0), broken, time.candidate("c", 2.0)], 1e3, time.clock)
    assert (first.seconds, second.seconds, third.seconds) == (1.0, None, 2.0)
    assert second.reason == "failed: RuntimeError: no C++ compiler"


def test_a_candidate_that_fails_later_is_left_out_too() -> None:
    time, calls = Time(), list[int]()

    def step() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("out of memory")

    _, second = measure([time.candidate("a", 1.0), Candidate("b", step)], 1e3, time.clock)
    assert second.seconds is None and "out of memory" in second.reason and len(calls) == 3


def test_an_interruption_is_no_failure() -> None:
    with pytest.raises(KeyboardInterrupt):
        measure([Candidate("a", failing(KeyboardInterrupt()))], 1.0, Time().clock)  # type: ignore[arg-type]


@pytest.mark.parametrize(("seconds", "compiled"), [(COMPILING, False), (COMPILING + 3, True)])
def test_a_compilation_begins_only_if_it_can_end(seconds: float, compiled: bool) -> None:
    time = Time()
    names = [time.candidate("a", 1.0), time.candidate("b", 30.0, 0.5, compiled=True)]
    (_, second) = measure(names, seconds, time.clock)
    assert (second.seconds is not None) == compiled
    assert compiled or second.reason == "left out: too little time"


def ways(time: Time, seconds: dict[str, float]) -> Callable[[str], Candidate]:
    return lambda way: time.candidate(way, seconds[way])


def test_each_stage_varies_the_best_way_so_far() -> None:
    time = Time()
    stages = [lambda best: [f"{best}l"], lambda best: [f"{best}c", f"{best}d"]]
    seconds = {"p": 1.0, "pl": 0.8, "plc": 0.6, "pld": 0.9}
    tuned = tune("p", stages, ways(time, seconds), 10, 1e3, time.clock)
    assert tuned.way == "plc" and tuned.record() == {name: 1e6 * value for name, value in seconds.items()}


def test_the_default_stays_in_the_record_of_a_choice_that_changes_nothing() -> None:
    time = Time()
    tuned = tune("p", [lambda best: ["q"]], ways(time, {"p": 1.0, "q": 2.0}), 10, 1e3, time.clock)
    assert tuned.way == "p" and set(tuned.record()) == {"p", "q"}


@pytest.mark.parametrize(("requested", "examples", "steps"), [("off", 1e9, 0), ("auto", 10, 2), ("auto", 1e4, 26)])
def test_only_long_jobs_are_tuned(requested: Seconds, examples: float, steps: int) -> None:
    """The expected seconds are those of the default's step times the examples; a short job loses two steps."""
    time = Time()
    tuned = tune("p", [lambda best: ["q"]], ways(time, {"p": 0.1, "q": 0.05}), examples, requested, time.clock)
    assert len(time.taken) == min(steps, 2 + 2 * (ROUNDS + 1))
    assert tuned.way == ("q" if steps > 2 else "p") and (len(tuned.trials) > 0) == (steps > 2)


def test_a_stage_begins_only_if_each_way_fits_twice() -> None:
    """A job of few long steps: the two of the default are all that it loses."""
    time = Time()
    tuned = tune("p", [lambda best: ["q"]], ways(time, {"p": 4.0, "q": 1.0}), 80, "auto", time.clock)
    assert time.taken == ["p", "p"] and tuned.trials == ()
    assert time.now < 0.05 * 80 * 4.0


def test_a_default_that_fails_is_kept() -> None:
    candidates = {"p": Candidate("p", failing(ValueError("no"))), "q": Candidate("q", lambda: None)}
    assert tune("p", [lambda best: ["q"]], candidates.__getitem__, 10, 1e3, Time().clock).way == "p"


IMAGES, VECTORS = nn.Sequential(nn.Conv2d(3, 3, 1)), nn.Sequential(nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("model", "requested", "layout", "default", "others"),
    [
        (IMAGES, "auto", "auto", PLAIN, {"float32, channels-last"}),
        (IMAGES, "auto", "contiguous", PLAIN, set()),
        (VECTORS, "auto", "auto", PLAIN, set()),
        (IMAGES, "bf16", "auto", FAST, {"bfloat16, contiguous"}),
        (IMAGES, "auto", "auto", FAST, {"bfloat16, contiguous", "float32, channels-last", "float32, contiguous"}),
    ],
)
def test_choices_by_hand_are_not_varied(
    model: nn.Module, requested: Any, layout: Layout, default: Precision, others: set[str]
) -> None:
    """Nor is bfloat16 tried where it is not the rule: it is no faster there, and rounds."""
    assert {str(way) for way in other_ways(model, requested, layout)(default)} == others


def test_the_last_stage_compiles_and_on_cuda_also_with_graphs() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    (way,) = compiled_ways(FAST, cpu)
    assert str(way) == "bfloat16, channels-last, compiled" and compiled_ways(way, cpu) == []
    first, graphs = compiled_ways(FAST, cuda)
    assert first == way and str(graphs) == "bfloat16, channels-last, compiled with CUDA graphs"
    assert compiled_ways(graphs, cuda) == []


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_seconds_that_are_none_are_refused(seconds: float) -> None:
    with pytest.raises(InputError, match="tune is"):
        Tuning(seconds)
