"""Accuracy under common corruptions of images, which are no attack."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unperturbed.checks import COUNT, SEED, checked
from unperturbed.data.corrupted import Corrupted, generated, stored
from unperturbed.data.corruptions import SEVERITIES
from unperturbed.engines.base import Engine
from unperturbed.errors import InputError
from unperturbed.evaluation.batch_size import physical_batch_size
from unperturbed.evaluation.checked_model import check_model, measured_split
from unperturbed.evaluation.draws import margins_at
from unperturbed.evaluation.evidence import Evidence
from unperturbed.evaluation.identity import identity
from unperturbed.evaluation.measurement import Measured, Measurement, Question, Task, measurement, memory_warnings
from unperturbed.evaluation.nearest import AtOnce
from unperturbed.evaluation.parts import Part, Tally
from unperturbed.evaluation.randomised import draws_random_numbers
from unperturbed.findings import Interval, Progress, Result, silent
from unperturbed.networks.failures import within_memory
from unperturbed.networks.logits import Output
from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.networks.rounding import rounding
from unperturbed.statistics.intervals import mean_of_answers, wilson
from unperturbed.storage.opened import published, results_and_weights
from unperturbed.threat import Threat
from unperturbed.types import Batch, PerExample

NOTE = "common corruptions, no attack: says nothing about the worst case"


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class UnderCorruptions(Result[Interval]):
    """The accuracy of a model on corrupted images.

    The columns of `examples` are id, label, clean (the margin), and the margin for each corruption and severity, such
    as `fog-3`; NaN where the logits are not finite.

    Attributes:
        note: a remark on the meaning of the numbers.
        accuracy: by corruption, the accuracies at severities 1 to 5.
        mean_accuracy: the mean over corruptions and severities.
    """

    note: str
    accuracy: Mapping[str, tuple[Interval, ...]]
    mean_accuracy: Interval

    def json(self) -> dict[str, Any]:
        """Return the summary as plain values."""
        rows = [
            {
                "corruption": name,
                "accuracy": [share.value for share in shares],
                "intervals": [[share.low, share.high] for share in shares],
            }
            for name, shares in self.accuracy.items()
        ]
        return (
            {"note": self.note}
            | self.measured()
            | {
                "corrupted_accuracy": self.mean_accuracy.value,
                "corrupted_interval": [self.mean_accuracy.low, self.mean_accuracy.high],
                "corruptions": rows,
            }
            | self.circumstances()
        )

    def __str__(self) -> str:
        """Return the headline."""
        return (
            f"clean {self.clean_accuracy}; mean over {len(self.accuracy)} corruptions at 5 severities "
            f"{self.mean_accuracy} ({self.note})"
        )


@dataclass(eq=False)
class Margins:
    """The state of a block of examples, one row per example."""

    batch: Batch
    clean: PerExample
    """The margin without a corruption; NaN if the logits are not finite."""
    margins: Tensor
    """The margins of the finished corruptions and severities, (n, number of these)."""
    tallies: list[Tally] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    evidence: Evidence = field(default_factory=Evidence)
    """None: no gradient is taken."""

    def table(self, columns: list[str]) -> dict[str, list[Any]]:
        """Return the per-example table, by column."""
        parts = {name: self.margins[:, place].tolist() for place, name in enumerate(columns)}
        return {"id": self.batch.ids.tolist(), "label": self.batch.y.tolist(), "clean": self.clean.tolist()} | parts


@published(results_and_weights)
@checked(seed=SEED, batch_size=COUNT)
def corruption_accuracy(
    model: nn.Module,
    data: Any,
    folder: Path | str | None = None,
    *,
    out: Path | str | None = None,
    overwrite: bool = False,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    output: Output = None,
    engine: str | Engine | None = None,
    progress: Progress = silent,
) -> UnderCorruptions:
    """Return the accuracy on corrupted images, for each corruption and severity.

    The corruptions are those of CIFAR-10-C (Hendrycks & Dietterich 2019, https://arxiv.org/abs/1903.12261). Without
    `folder` they are generated (`data/corruptions.py`: 14 of the 15, with the constants published for images of 32x32).
    The interval of the mean counts examples, not corruptions. **This is no robust accuracy**: nobody searched for the
    worst image.

    Args:
        model: as for `evaluate`.
        data: as for `evaluate`: images in [0, 1].
        folder: the files of CIFAR-10-C, of the same images as `data`; None: corrupt the images here.
        out: folder for `corruptions.json` and, in `corruptions/`, the margins of each example.
        overwrite: replace another measurement that `out` holds.
        seed: of the corruptions' random numbers.
        batch_size: examples in a batch, raised to a power of two.
        output: the part of the model's output with the logits: a position, a name, or a function of it.
        engine: executes the blocks of examples: a name, an import path or an `Engine`; None: this process, or its
            `torch.distributed` group.
        progress: called after every corruption of every block.

    Raises:
        InputError: as `evaluate`, for data that are no images in [0, 1], and for a folder of other images.
    """
    began = time.perf_counter()
    split = measured_split(data)
    bounds = getattr(data, "bounds", (0.0, 1.0))
    if bounds != (0.0, 1.0):
        raise InputError(f"Corruptions are defined for images in [0, 1], but the bounds of the data are {bounds}.")
    source: Corrupted = generated(split, seed) if folder is None else stored(Path(folder), split)
    none = Threat("Linf", 0.0, (0.0, 1.0))
    checked_model = check_model(model, split, none, seed, output)
    physical_size = physical_batch_size(batch_size, checked_model, len(split))
    question = Question(
        noun="measurement under corruptions",
        checked_models=[checked_model],
        split=split,
        threat=none,
        identity=identity(model, checked_model, split, none, seed) | {"corruptions": source.identity},
        rounding=rounding([checked_model.classifier], checked_model.examples, physical_size),
        seed=seed,
        batch_size=physical_size,
        asked=batch_size,
        began=began,
    )
    with measurement(question, None if out is None else Path(out) / "corruptions", overwrite, engine) as job:
        at_once = AtOnce(job.batch_size)
        with under_attack(checked_model.classifier), own_randomness(seed, checked_model.device):
            if draws_random_numbers(checked_model.classifier, checked_model.examples, job.batch_size):
                job.warnings.append("The network draws random numbers: every answer is by one draw of them.")

        def measure(task: Task[Margins]) -> Part:
            margins = _measured(checked_model.classifier, task, source, at_once)
            warnings = [*margins.warnings, *memory_warnings(at_once, job.batch_size)]
            return Part(margins.table(_columns(source)), margins.tallies, warnings)

        measured = job.run(Margins, measure, progress)
        return job.finish(_summary(source, measured, job), measured)


def _columns(source: Corrupted) -> list[str]:
    return [f"{name}-{severity}" for name in source.names for severity in SEVERITIES]


def _measured(model: nn.Module, task: Task[Margins], source: Corrupted, at_once: AtOnce) -> Margins:
    """Return the margins of a block, continuing an interrupted call; they are kept after every corruption."""
    batch, began, state = task.batch, time.perf_counter(), task.begun

    def look(z: Tensor) -> tuple[PerExample, list[str]]:
        result, at_once.batch_size = within_memory(lambda size: margins_at(model, batch, z, size), at_once.batch_size)
        return result

    if state is None:
        clean, warnings = look(batch.x)
        state = Margins(batch, clean, clean.new_zeros(len(clean), 0), [Tally()], warnings)
    names, ids, x = source.names, batch.ids.cpu(), batch.x.float().cpu()
    for number in range(state.margins.shape[1] // len(SEVERITIES), len(names)):
        columns = []
        for severity in SEVERITIES:
            z = source.inputs(names[number], severity, ids, x).to(batch.x)
            columns.append(look(z)[0])
        state.margins = torch.cat([state.margins, torch.stack(columns, dim=1)], dim=1)
        now = time.perf_counter()
        state.tallies[0].seconds += now - began
        state.tallies[0].forwards += len(SEVERITIES) * len(batch.y)
        began = now
        if number + 1 < len(names):
            task.keep(state)
        task.report((number + 1) / len(names), names[number])
    return state


def _summary(source: Corrupted, measured: Measured, job: Measurement) -> UnderCorruptions:
    """Return the accuracies of all parts."""
    table, warnings = measured.table(), list[str]()
    n, columns = len(table["id"]), _columns(source)

    def share(column: str) -> Interval:
        correct = sum(margin < 0 for margin in table[column])
        return wilson(correct, n, correct + sum(margin != margin for margin in table[column]))

    right = sum(margin < 0 for column in columns for margin in table[column])
    lost = sum(margin != margin for column in columns for margin in table[column])
    if lost:
        warnings.append(f"{lost} of {n * len(columns)} images have no finite logits: none of them counts as correct.")
    all_warnings = [*source.notes, *job.question.checked_models[0].warnings, *job.warnings, *measured.warnings()]
    return UnderCorruptions(
        note=NOTE,
        threat="none",
        n=n,
        clean_accuracy=share("clean"),
        mean_accuracy=mean_of_answers(right / len(columns), lost / len(columns), n),
        accuracy={name: tuple(share(f"{name}-{severity}") for severity in SEVERITIES) for name in source.names},
        seconds=measured.seconds,
        warnings=tuple(dict.fromkeys([*all_warnings, *warnings])),
        environment=job.environment,
        examples=table,
    )
