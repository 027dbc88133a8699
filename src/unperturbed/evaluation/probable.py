"""Accuracy under random perturbations: on how many examples most of S(x) is classified correctly."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unperturbed.attacks.base import padded_logits
from unperturbed.checks import AT_LEAST_ONE, COUNT, SEED, checked
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import BLOCK
from unperturbed.evaluation.randomised import draws_random_numbers
from unperturbed.evaluation.subject import (
    data_hash,
    look_at,
    measured_split,
    physical_batch_size,
    versions,
    weights_hash,
)
from unperturbed.findings import Interval, Progress, silent
from unperturbed.losses import margin
from unperturbed.networks.failures import failed_on_all, isolate, within_memory
from unperturbed.networks.logits import Output
from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.networks.rounding import rounding
from unperturbed.noise import Noise
from unperturbed.statistics.intervals import wilson
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, PerExample

NOTE = "random perturbations, no attack: says nothing about the worst case"


@dataclass(frozen=True, eq=False)
class Probable:
    """How a model does under random perturbations of each example.

    Attributes:
        note: what a reader of the numbers must know.
        threat: the threat set that was drawn from, as text.
        n: examples.
        draws: of each example.
        clean_accuracy: share classified correctly without a perturbation.
        mean_accuracy: share of all draws classified correctly, with Wilson's interval for n answers.
        accuracy: by rho, the share of examples with at most a share rho of their draws not classified correctly.
        unknown: by rho, the examples that draws without finite logits leave undecided.
        seconds: in all.
        warnings: whatever makes the numbers doubtful.
        environment: versions, seed, hashes.
        examples: the table, by column: id, label, clean (the margin), and how many draws are right, wrong and unknown.
    """

    note: str
    threat: str
    n: int
    draws: int
    clean_accuracy: Interval
    mean_accuracy: Interval
    accuracy: Mapping[float, Interval]
    unknown: Mapping[float, int]
    seconds: float
    warnings: tuple[str, ...]
    environment: Mapping[str, Any]
    examples: Mapping[str, list[Any]]

    def json(self) -> dict[str, Any]:
        """Return the summary as plain values."""
        return {
            "note": self.note,
            "threat": self.threat,
            "n": self.n,
            "draws": self.draws,
            "clean_accuracy": self.clean_accuracy.value,
            "clean_interval": [self.clean_accuracy.low, self.clean_accuracy.high],
            "mean_accuracy": self.mean_accuracy.value,
            "mean_interval": [self.mean_accuracy.low, self.mean_accuracy.high],
            "probable": [
                {
                    "rho": rho,
                    "probable_accuracy": each.value,
                    "interval": [each.low, each.high],
                    "unknown": self.unknown[rho],
                }
                for rho, each in self.accuracy.items()
            ],
            "seconds": self.seconds,
            "warnings": list(self.warnings),
            "environment": dict(self.environment),
        }


@checked(draws=AT_LEAST_ONE, seed=SEED, batch_size=COUNT)
def probable_accuracy(
    model: nn.Module,
    data: Any,
    threat: Threat,
    rho: float | Sequence[float] = (0.1, 0.05, 0.01),
    *,
    draws: int = 100,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    output: Output = None,
    progress: Progress = silent,
) -> Probable:
    """Return the share of examples that are classified correctly on at least a share 1 - rho of random points of S(x).

    ProbAcc(rho) = mean over (x, y) of 1[P(f(z) = y) >= 1 - rho], z uniform in S(x) (Robey et al. 2022,
    https://arxiv.org/abs/2202.01136; their code calls it quantile accuracy, and asks for strictly more). P is taken
    over `draws` draws, so that an example close to the limit may fall on either side of it. In L2 and L1 points are
    uniform in the ball and then projected onto the box. A draw is correct where its margin is strictly below 0 in a
    forward in the weights' own precision. One without finite logits is unknown: an example that passes counts it as
    wrong, and one that it leaves undecided widens the interval upwards.

    This is no robust accuracy, nor a bound on it that means much: an example that an attack breaks may well pass.

    Args:
        model: as for `evaluate`.
        data: as for `evaluate`.
        threat: what is drawn from.
        rho: the shares of draws that may be wrong, or a single one; 0: none.
        draws: points of each example; the same for an example in any company and order.
        seed: of the draws.
        batch_size: examples that the network sees at a time, raised to a power of two.
        progress: told of every draw of every block.
        output: which part of what the model returns are the logits: a place, a name, or a function of it.

    Raises:
        InputError: on what `evaluate` refuses, no draw, and shares outside [0, 1) or too small for so few draws.
    """
    began = time.perf_counter()
    shares = [rho] if isinstance(rho, int | float) else list(rho)
    _check(shares, draws)
    split = measured_split(data)
    subject = look_at(model, split, threat, seed, output)
    classifier, warnings = subject.classifier, list(subject.warnings)
    places = physical_batch_size(batch_size, subject, len(split))
    rounded = rounding([classifier], subject.some, places)
    columns: dict[str, list[Any]] = {name: [] for name in ("id", "label", "clean", "right", "wrong", "unknown")}
    order = split.names().argsort(stable=True)  # then results do not depend on the order of the split
    with under_attack(classifier), as_reported(subject.device), own_randomness(seed, subject.device):
        if draws_random_numbers(classifier, subject.some, places):
            warnings.append("The network draws random numbers: every answer is by one draw of them.")
        for number, rows in enumerate(torch.split(order, BLOCK)):
            batch = subject.batch(split, rows, threat)
            noise = Noise.of(seed, batch.ids)

            def look(z: Inputs, places: int, batch: Batch = batch) -> tuple[tuple[PerExample, list[str]], int]:
                return within_memory(lambda few: _margins(classifier, batch, z, few), places)

            (clean, failed), places = look(batch.x, places)
            right, unknown = torch.zeros_like(batch.y), torch.zeros_like(batch.y)
            for draw in range(draws):
                (found, _), places = look(threat.sample(batch.x, noise.fold(draw)), places)
                right += found < 0
                unknown += found.isnan()
                progress(number * BLOCK + len(rows) * (draw + 1) / draws, len(split), f"draw {draw + 1} of {draws}")
            warnings += failed
            columns["id"] += batch.ids.tolist()
            columns["label"] += batch.y.tolist()
            columns["clean"] += clean.tolist()
            columns["right"] += right.tolist()
            columns["wrong"] += (draws - right - unknown).tolist()
            columns["unknown"] += unknown.tolist()

    back = order.argsort().tolist()
    table = {name: [column[row] for row in back] for name, column in columns.items()}
    n, lost = len(split), sum(table["unknown"])
    correct, not_finite = sum(each < 0 for each in table["clean"]), sum(each != each for each in table["clean"])
    accuracy, undecided = dict[float, Interval](), dict[float, int]()
    for share in shares:
        allowed = _allowed(share, draws)
        passed = sum(right >= draws - allowed for right in table["right"])
        undecided[share] = sum(wrong <= allowed for wrong in table["wrong"]) - passed
        accuracy[share] = wilson(passed, n, passed + undecided[share])
    if lost:
        warnings.append(f"{lost} of {n * draws} draws have no finite logits: none of them counts as correct.")
    right_draws = sum(table["right"]) / draws
    return Probable(
        note=NOTE,
        threat=str(threat),
        n=n,
        draws=draws,
        clean_accuracy=wilson(correct, n, correct + not_finite),
        mean_accuracy=_mean(right_draws, lost / draws, n),
        accuracy=accuracy,
        unknown=undecided,
        seconds=time.perf_counter() - began,
        warnings=tuple(dict.fromkeys(warnings)),
        environment=versions()
        | {
            "device": str(subject.device),
            "batch_size": places,
            **rounded,
            "seed": seed,
            "weights": weights_hash(model),
            "data": data_hash(split),
        },
        examples=table,
    )


def _check(rho: Sequence[float], draws: int) -> None:
    if draws < 1:
        raise InputError(f"draws is {draws}, but must be at least 1.")
    if not rho or len(set(rho)) < len(rho):
        raise InputError(f"rho is {rho}: give one share or more, each once.")
    for share in rho:
        if not 0 <= share < 1:
            raise InputError(f"rho is {share}, but is a share of the draws that may be wrong: 0 or more, less than 1.")
        if share > 0 and _allowed(share, draws) == 0:
            needed = math.ceil(1 / share - 1e-9)
            raise InputError(f"rho {share:g} allows none of {draws} draws to be wrong: take {needed} draws or more.")


def _allowed(rho: float, draws: int) -> int:
    """Return how many of the draws may be wrong: the largest whole number that is at most rho * draws."""
    return int(rho * draws + 1e-9)


def _margins(model: nn.Module, batch: Batch, z: Inputs, places: int) -> tuple[PerExample, list[str]]:
    """Return the margins at z, NaN where the logits are not finite or the network fails even alone, and a warning."""
    parts, failures = isolate(lambda rows: padded_logits(model, z[rows], places), torch.arange(len(z)))
    if not parts:
        raise failed_on_all(failures)
    margins: Tensor = torch.full((len(z),), torch.nan).to(z)
    for rows, logits in parts:
        margins[rows] = torch.where(logits.isfinite().all(dim=1), margin(logits, batch.y[rows]), torch.nan)
    reasons = [repr(error) for error in failures.values()]
    return margins, [f"On {len(reasons)} examples the forward failed, even alone: {reasons[0]:.200}"] if reasons else []


def _mean(right: float, lost: float, n: int) -> Interval:
    """Return right / n with Wilson's interval for n answers: those of one example differ less than those of many."""
    low, high = wilson(math.floor(right), n).low, wilson(min(math.ceil(right + lost - 1e-9), n), n).high
    return Interval(right / n, low, high, n)
