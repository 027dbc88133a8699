"""The choice between ways to run a network, by measured seconds of the job's own step."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import nn

from unperturbed.networks.precision import Precision, convolutional
from unperturbed.networks.settings import Compile, Layout, Seconds

log = logging.getLogger("unperturbed")
W = TypeVar("W")
LONG = 300.0
"""Expected seconds of a job from which "auto" tunes."""
SHARE = 0.04
"""The share of a job's expected seconds that "auto" spends on tuning."""
COMPILING = 45.0
"""Seconds that must be left for a compiled candidate: a compilation cannot be stopped."""
GAIN = 0.93
"""A candidate must take less than this share of the best way's seconds to replace it, since times are noisy."""
ROUNDS = 9
"""The largest number of timed steps of a candidate."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A way to run a network, as a step of the job.

    Attributes:
        name: in records.
        step: takes a step.
        prepare: is called before each step, and not timed.
        examples: examples in a step; the fewest seconds an example win.
        compiled: whether the first step compiles the network.
    """

    name: str
    step: Callable[[], object]
    prepare: Callable[[], object] = lambda: None
    examples: int = 1
    compiled: bool = False


@dataclass(frozen=True)
class Trial:
    """The measured seconds of a candidate an example, or the reason why there are none."""

    name: str
    seconds: float | None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Clock:
    """The clocks of a measurement: `wall` for its duration, `step` for the seconds of a step."""

    wall: Callable[[], float]
    step: Callable[[], float]

    @classmethod
    def of(cls, device: torch.device) -> "Clock":
        """Return the clocks for a device.

        With a single thread, steps are timed by the processor time of this process, which other processes on the same
        processor do not lengthen.
        """
        if device.type == "cpu" and torch.get_num_threads() == 1:
            return cls(time.perf_counter, time.process_time)

        def finished() -> float:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            elif device.type == "mps":
                torch.mps.synchronize()
            return time.perf_counter()

        return cls(time.perf_counter, finished)


def allowance(requested: Seconds, expected: float) -> float:
    """Return the seconds for tuning a job that is expected to take `expected` seconds; 0: none."""
    if requested == "off":
        return 0.0
    if requested == "auto":
        return SHARE * expected if expected >= LONG else 0.0
    return float(requested)


def fastest(trials: Sequence[Trial]) -> int:
    """Return the position of the fastest trial; the first one, the default, stays unless another is clearly faster."""
    default = trials[0].seconds
    measured = [(trial.seconds, number) for number, trial in enumerate(trials) if trial.seconds is not None]
    if default is None or not measured:
        return 0
    seconds, number = min(measured)
    return number if seconds < GAIN * default else 0


def measure(candidates: Sequence[Candidate], seconds: float, clock: Clock) -> list[Trial]:
    """Time the candidates' steps in turn for up to `seconds`, each at least once, and return the shortest of each.

    The first step of a candidate is set-up and not counted. A candidate that fails, or whose first step does not fit
    into the remaining seconds, is left out; the first one is always tried.
    """
    began, longest = clock.wall(), 0.0
    reasons, steps = dict[int, str](), dict[int, list[float]]()

    def timed(number: int) -> float | None:
        candidate = candidates[number]
        try:
            candidate.prepare()
            before = clock.step()
            candidate.step()
            return (clock.step() - before) / candidate.examples
        except Exception as error:  # of a compiler, a layer, or too little memory
            reasons[number] = f"failed: {_first_line(error)}"
            steps.pop(number, None)
            return None

    for number, candidate in enumerate(candidates):
        left = seconds - (clock.wall() - began)
        if number and left < (COMPILING if candidate.compiled else longest):
            reasons[number] = "left out: too little time"
            continue
        before = clock.wall()
        if timed(number) is not None:
            steps[number] = []
        longest = max(longest, clock.wall() - before) if not candidate.compiled else longest
    for _ in range(ROUNDS):
        before = clock.wall()
        for number in list(steps):
            value = timed(number)
            if value is not None:
                steps[number].append(value)
        if 2 * clock.wall() - before - began > seconds:  # another round would not fit
            break
    return [
        Trial(candidate.name, min(steps[number]) if steps.get(number) else None, reasons.get(number, ""))
        for number, candidate in enumerate(candidates)
    ]


@dataclass(frozen=True, eq=False)
class Tuned(Generic[W]):
    """The way that was chosen, and the trials behind it; without trials it is the default."""

    way: W
    trials: tuple[Trial, ...]

    def record(self) -> dict[str, Any]:
        """Return the trials as plain data: microseconds an example, or the reason why there are none."""
        return {
            trial.name: trial.reason if trial.seconds is None else round(1e6 * trial.seconds, 1)
            for trial in self.trials
        }


def tune(
    default: W,
    stages: Sequence[Callable[[W], Sequence[W]]],
    candidate: Callable[[W], Candidate],
    examples: float,
    requested: Seconds,
    clock: Clock,
) -> Tuned[W]:
    """Return the fastest way to run a job of `examples` examples through a step.

    Args:
        default: the way without tuning.
        stages: each gives alternatives to the best way so far.
        candidate: the step of a way.
        examples: the number of examples in all steps of the job, for its expected duration.
        requested: the seconds for tuning.
        clock: the clocks.
    """
    if requested == "off":
        return Tuned(default, ())
    began = clock.wall()
    (first,) = measure([candidate(default)], 0.0, clock)
    seconds = 0.0 if first.seconds is None else allowance(requested, first.seconds * examples)
    step = (clock.wall() - began) / 2  # of the default: one for its set-up, one that is timed
    best, trials = default, dict[str, Trial]()
    for alternatives in stages if seconds > 0 else ():
        ways = [best, *alternatives(best)]
        left = seconds - (clock.wall() - began)
        if not ways[1:] or left < 2 * len(ways) * step:
            continue
        stage = measure([candidate(way) for way in ways], left, clock)
        trials |= {trial.name: trial for trial in stage}
        best = ways[fastest(stage)]
    chosen = Tuned(best, tuple(trials.values()))
    if trials:
        log.info("%s", said(candidate(best).name, chosen.record(), clock.wall() - began))
    return chosen


def said(chosen: str, record: Mapping[str, Any], seconds: float) -> str:
    """Return a sentence on the choice, with the time of every candidate, and those that were left out."""
    values = [
        f"{name} {value}" if isinstance(value, str) else f"{name} {value / 1e3:.3g} ms"
        for name, value in record.items()
    ]
    return f"Tuned in {seconds:.0f} s: the network runs in {chosen} (an example takes: {'; '.join(values)})."


def other_ways(model: nn.Module, precision: Literal["auto", "32", "bf16", "64"], layout: Layout) -> Any:
    """Return the first stage of tuning: other layouts and, if bfloat16 was chosen by the rule, float32."""

    def alternatives(best: Precision) -> list[Precision]:
        free = layout == "auto" and convolutional(model)
        layouts = [torch.contiguous_format, torch.channels_last] if free else [best.memory_format]
        names: list[Literal["32-true", "bf16-mixed", "64-true"]] = [best.name]
        if precision == "auto" and best.name == "bf16-mixed":
            names.append("32-true")
        ways = [replace(best, name=name, memory_format=layout) for name in names for layout in layouts]
        return [way for way in ways if way != best]

    return alternatives


def compiled_ways(best: Precision, device: torch.device) -> list[Precision]:
    """Return the last stage of tuning: the same, compiled; on CUDA also with CUDA graphs."""
    ways: list[Compile] = [True, "reduce-overhead"] if device.type == "cuda" else [True]
    return [] if best.compiled else [replace(best, compiled=way) for way in ways]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:200]
