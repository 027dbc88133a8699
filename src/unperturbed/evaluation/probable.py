"""Accuracy under random perturbations: the share of examples on which most of S(x) is classified correctly."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from unperturbed.checks import AT_LEAST_ONE, COUNT, SEED, checked
from unperturbed.engines.base import Engine
from unperturbed.errors import InputError
from unperturbed.evaluation.batch_size import physical_batch_size
from unperturbed.evaluation.checked_model import check_model, measured_split
from unperturbed.evaluation.devices import shared_by_devices
from unperturbed.evaluation.draws import Counts, count_draws
from unperturbed.evaluation.identity import identity
from unperturbed.evaluation.measurement import Measured, Measurement, Question, Task, measurement, memory_warnings
from unperturbed.evaluation.nearest import AtOnce
from unperturbed.evaluation.parts import Part
from unperturbed.evaluation.randomised import draws_random_numbers
from unperturbed.findings import Interval, Progress, Result, silent
from unperturbed.networks.logits import Output
from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.networks.rounding import rounding
from unperturbed.statistics.intervals import mean_of_answers, share_within, wilson
from unperturbed.storage.opened import published, results_and_weights
from unperturbed.threat import Threat

NOTE = "random perturbations, no attack: says nothing about the worst case"


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Probable(Result[Interval]):
    """The accuracy of a model under random perturbations of each example.

    The columns of `examples` are id, label, clean (the margin), and the numbers of right, wrong and unknown draws.

    Attributes:
        note: a remark on the meaning of the numbers.
        draws: number of draws per example.
        mean_accuracy: share of all draws classified correctly, with Wilson's interval for n answers.
        accuracy: by rho, the share of examples with at most a share rho of their draws not classified correctly; its
            interval is that of the share whose chance of a wrong draw is at most rho.
        unknown: by rho, the examples that are undecided because of draws without finite logits.
    """

    note: str
    draws: int
    mean_accuracy: Interval
    accuracy: Mapping[float, Interval]
    unknown: Mapping[float, int]

    def json(self) -> dict[str, Any]:
        """Return the summary as plain values."""
        shares = [
            {
                "rho": rho,
                "probable_accuracy": share.value,
                "interval": [share.low, share.high],
                "unknown": self.unknown[rho],
            }
            for rho, share in self.accuracy.items()
        ]
        return (
            {"note": self.note}
            | self.measured()
            | {
                "draws": self.draws,
                "mean_accuracy": self.mean_accuracy.value,
                "mean_interval": [self.mean_accuracy.low, self.mean_accuracy.high],
                "probable": shares,
            }
            | self.circumstances()
        )

    def __str__(self) -> str:
        """Return the headline."""
        shares = [f"right on {1 - rho:.6g} of draws {share}" for rho, share in self.accuracy.items()]
        return (
            f"clean {self.clean_accuracy}; mean over draws {self.mean_accuracy}; {'; '.join(shares)}; under "
            f"{self.threat} ({self.draws} {self.note})"
        )


@published(results_and_weights)
@checked(draws=AT_LEAST_ONE, seed=SEED, batch_size=COUNT, devices=COUNT)
@shared_by_devices
def probable_accuracy(
    model: nn.Module,
    data: Any,
    threat: Threat,
    rho: float | Sequence[float] = (0.1, 0.05, 0.01),
    *,
    draws: int = 100,
    out: Path | str | None = None,
    overwrite: bool = False,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    output: Output = None,
    devices: int = 1,
    engine: str | Engine | None = None,
    progress: Progress = silent,
) -> Probable:
    """Return the share of examples that are classified correctly on at least a share 1 - rho of random points of S(x).

    ProbAcc(rho) = mean over (x, y) of 1[P(f(z) = y) >= 1 - rho], z uniform in S(x) (Robey et al. 2022,
    https://arxiv.org/abs/2202.01136; their code calls it quantile accuracy, and asks for strictly more). P is taken
    over `draws` draws, so that an example close to the limit may fall on either side: the interval covers the draws and
    the examples (`share_within`), and is wide if many examples are near rho. In L2 and L1 points are uniform in the
    ball and then projected onto the box. A draw is correct if its margin is strictly below 0 in a forward in the
    weights' precision. A draw without finite logits is unknown: an example that passes counts it as wrong, and an
    undecided example widens the interval upwards.

    This is not a robust accuracy, and only a weak upper bound on it: an example that an attack breaks may pass.

    Args:
        model: as for `evaluate`.
        data: as for `evaluate`.
        threat: the threat set to draw from.
        rho: the shares of draws that may be wrong, or a single one; 0: none.
        draws: number of points per example; the points are the same in any batch and order.
        out: folder for `probable.json` and, in `probable/`, the counts of each example; the shares rho may differ
            between two calls, which read the same counts.
        overwrite: replace other counts that `out` holds.
        seed: of the draws.
        batch_size: examples in a batch, raised to a power of two.
        devices: processes that share the examples: each on a GPU, where the model is on one, or with a part of the
            processor's threads. Model, data and suite are sent to them, so that they must be picklable.
        engine: executes the blocks of examples: a name, an import path or an `Engine`; None: this process, or its
            `torch.distributed` group.
        progress: called after every draw of every block.
        output: the part of the model's output with the logits: a position, a name, or a function of it.

    Raises:
        InputError: as `evaluate`, for no draws, shares outside [0, 1) or too small for the draws, and if `out` holds
        counts of other weights, data, threat, draws, seed or version.
    """
    began = time.perf_counter()
    shares = [rho] if isinstance(rho, int | float) else list(rho)
    _check(shares, draws)
    split = measured_split(data)
    checked_model = check_model(model, split, threat, seed, output)
    physical_size = physical_batch_size(batch_size, checked_model, len(split))
    question = Question(
        noun="count of draws",
        checked_models=[checked_model],
        split=split,
        threat=threat,
        identity=identity(model, checked_model, split, threat, seed) | {"draws": draws},
        rounding=rounding([checked_model.classifier], checked_model.examples, physical_size),
        seed=seed,
        batch_size=physical_size,
        asked=batch_size,
        began=began,
    )
    with measurement(question, None if out is None else Path(out) / "probable", overwrite, engine) as job:
        at_once = AtOnce(job.batch_size)
        with under_attack(checked_model.classifier), own_randomness(seed, checked_model.device):
            if draws_random_numbers(checked_model.classifier, checked_model.examples, job.batch_size):
                job.warnings.append("The network draws random numbers: every answer is by one draw of them.")

        def measure(task: Task[Counts]) -> Part:
            counts = count_draws(checked_model.classifier, task, threat, draws, seed, at_once)
            warnings = [*counts.warnings, *memory_warnings(at_once, job.batch_size)]
            return Part(counts.table(), counts.tallies, warnings)

        measured = job.run(Counts, measure, progress)
        return job.finish(_probable(shares, draws, measured, job), measured)


def _probable(shares: Sequence[float], draws: int, measured: Measured, job: Measurement) -> Probable:
    """Return the accuracies of all parts."""
    table, threat = measured.table(), job.question.threat
    n, lost = len(table["id"]), sum(table["unknown"])
    correct = sum(margin < 0 for margin in table["clean"])
    not_finite = sum(margin != margin for margin in table["clean"])
    accuracy, undecided, warnings = dict[float, Interval](), dict[float, int](), list[str]()
    for share in shares:
        allowed = _allowed(share, draws)
        passed = sum(right >= draws - allowed for right in table["right"])
        undecided[share] = sum(wrong <= allowed for wrong in table["wrong"]) - passed
        if threat.eps == 0:  # a single point: the draws are equal
            accuracy[share] = wilson(passed, n, passed + undecided[share])
            continue
        accuracy[share] = share_within(table["wrong"], table["unknown"], draws, share)
        warnings += _few_draws(accuracy[share], share, draws)
    if lost:
        warnings.append(f"{lost} of {n * draws} draws have no finite logits: none of them counts as correct.")
    all_warnings = [*job.question.checked_models[0].warnings, *job.warnings, *measured.warnings(), *warnings]
    return Probable(
        note=NOTE,
        threat=str(threat),
        n=n,
        draws=draws,
        clean_accuracy=wilson(correct, n, correct + not_finite),
        mean_accuracy=mean_of_answers(sum(table["right"]) / draws, lost / draws, n),
        accuracy=accuracy,
        unknown=undecided,
        seconds=measured.seconds,
        warnings=tuple(dict.fromkeys(all_warnings)),
        environment=job.environment,
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


def _few_draws(share: Interval, rho: float, draws: int) -> list[str]:
    """Return a warning if the draws, and not the examples, make an interval wide."""
    examples = wilson(round(share.value * share.n), share.n)
    if rho == 0 or share.high - share.low < 2 * (examples.high - examples.low) + 0.05:
        return []
    return [
        f"At rho {rho:g}, {draws} draws leave open on which side of it many examples are ({share.low:.1%} to "
        f"{share.high:.1%}): take more draws, such as {max(10 * draws, math.ceil(20 / rho))}."
    ]


def _allowed(rho: float, draws: int) -> int:
    """Return the largest number of wrong draws: the largest integer that is at most rho * draws."""
    return int(rho * draws + 1e-9)
