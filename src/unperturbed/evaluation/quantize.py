"""Adversarial examples as 8-bit images: on the grid k/255 inside the threat set, verified again, stored as PNG."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from unperturbed.attacks.base import padded_logits
from unperturbed.checks import checked
from unperturbed.data.convert import as_split
from unperturbed.data.split import Data, Split
from unperturbed.errors import InputError
from unperturbed.evaluation.grid import Levels, as_inputs, check_eight_bit, levels_of, nearest, spent
from unperturbed.evaluation.hashes import network_hash, weights_hash
from unperturbed.evaluation.search import TIE
from unperturbed.evaluation.store import CARRIED, Store, carried_of
from unperturbed.findings import Interval, Outcome, Shown, Verdict
from unperturbed.losses import margin
from unperturbed.networks.classifier import Classes, as_classifier
from unperturbed.networks.dtype import home
from unperturbed.networks.logits import Output
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.noise import Noise
from unperturbed.runs import write_atomically, write_json
from unperturbed.runs.lock import alone_in
from unperturbed.runs.tensors import read_tensors
from unperturbed.statistics.intervals import wilson
from unperturbed.storage.opened import published, results_and_weights
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Labels, Model, PerExample

Rounding = Literal["nearest", "gradient", "random"]

DRAWS = 4
"""Number of random roundings after those to the nearest level and along the gradient failed."""
COLUMNS = ("id", "label", "prediction", "verdict", "rounding", "distance")
INDEX = "index.csv"


@dataclass(frozen=True, eq=False, repr=False)
class Quantised(Shown):
    """The verdicts on adversarial examples as 8-bit images; the evaluation's numbers do not change.

    Attributes:
        n: examples of the evaluation.
        counts: the adversarial examples by verdict after rounding: broken, survived (lost), unknown.
        robust_accuracy: share of all examples that survived the evaluation, or whose adversarial example was lost in
            rounding: an upper bound on robust accuracy against 8-bit images.
        examples: by column, a row an adversarial example: id, label, prediction, verdict, rounding, distance (in the
            threat's norm and in input units).
        images: uint8 (m, channels, height, width), if not written to a folder.
    """

    n: int
    counts: Mapping[Verdict, int]
    robust_accuracy: Interval
    examples: Mapping[str, list[Any]]
    images: Tensor | None = None

    def json(self) -> dict[str, Any]:
        """Return the summary as plain values."""
        return {
            "n": self.n,
            "counts": dict(self.counts),
            "robust_accuracy": self.robust_accuracy.value,
            "interval": [self.robust_accuracy.low, self.robust_accuracy.high],
            "roundings": {name: self.examples["rounding"].count(name) for name in ("nearest", "gradient", "random")},
        }

    def __str__(self) -> str:
        """Return the headline."""
        total = sum(self.counts.values())
        return (
            f"{self.counts.get('broken', 0)} of {total} adversarial examples are adversarial as 8-bit images; robust "
            f"against such images at most {self.robust_accuracy}"
        )


@published(results_and_weights)
@checked()
@alone_in(lambda given: given["out"] and (images_folder(Path(given["out"]), given["outcome"].suite), ""))
def quantize(
    model: nn.Module,
    data: Any,
    threat: Threat,
    outcome: Outcome,
    *,
    out: Path | str | None = None,
    output: Output = None,
) -> Quantised:
    """Round the adversarial examples of an evaluation to 8-bit images inside S(x), and verify them again.

    Each goes to the grid point `nearest` to it. If that does not break the network, every pixel is rounded along the
    gradient of the margin there, and then at random a few times; the first break counts.

    Args:
        model: as it was evaluated.
        data: as it was evaluated.
        threat: as it was evaluated.
        outcome: of `evaluate`.
        out: the folder that `evaluate` wrote to; images and `index.csv` go to `SUITE/png` in it, a summary next to it.
            None if the outcome was not written; then the images are returned.
        output: the part of the model's output with the logits: a position, a name, or a function of it.

    Raises:
        InputError: if the originals are no 8-bit images of one or three channels, if model, data or threat are not
        those of the outcome, and if the outcome is a mean over draws, since a single forward decides here.
    """
    split = data.test if isinstance(data, Data) and data.test is not None else as_split(data)
    _check_same(model, split, threat, outcome)
    threat.refuse_sparse("Rounding to 8-bit images")
    check_eight_bit(split)
    device, dtype = home(model)
    weight = torch.zeros(0, device=device, dtype=dtype)
    first = split.inputs(split.names().argsort(stable=True)[:64]).to(weight)
    classifier = as_classifier(model, first[:1], output, Classes.seen_in(split.labels))
    if network_hash(classifier, first, int(outcome.environment["seed"]))[0] != outcome.environment["network"]:
        raise InputError("The outcome is of another network with these weights: give the model that was evaluated.")
    seed, batch_size = int(outcome.environment["seed"]), int(outcome.environment["batch_size"])
    row_of = {name: position for position, name in enumerate(split.names().tolist())}
    rows: list[dict[str, list[Any]]] = []
    images = [torch.empty(0, *split.shape, dtype=torch.uint8)]
    if out is not None:
        clear(Path(out), outcome.suite)
    random_states = torch.random.fork_rng([weight.device] if weight.device.type == "cuda" else [])
    with under_attack(classifier), as_reported(weight.device), random_states:
        torch.manual_seed(seed)
        for ids, points in adversarial_points(outcome, out):
            for block_ids, z in zip(torch.split(ids, batch_size), torch.split(points, batch_size), strict=True):
                where = torch.tensor([row_of[name] for name in block_ids.tolist()], dtype=torch.int64)
                batch = Batch(split.inputs(where).to(weight), split.labels[where].to(weight.device), block_ids)
                rounded = round_block(classifier, batch, z.to(weight), threat, Noise.of(seed, block_ids), batch_size)
                rows.append(rounded.table(batch, threat))
                if out is None:
                    images.append(rounded.levels.to(torch.uint8))
                else:
                    _write_images(images_folder(Path(out), outcome.suite), block_ids, rounded.levels)
    table = {column: [value for part in rows for value in part[column]] for column in COLUMNS}
    quantised = _quantised(outcome, table, torch.cat(images) if out is None else None)
    if out is not None:
        _write_index(images_folder(Path(out), outcome.suite) / INDEX, table)
        write_json(Path(out) / f"{outcome.suite}-8bit.json", quantised.json())
    return quantised


# The rounding


@dataclass(frozen=True, eq=False)
class Rounded:
    """A few adversarial examples on the grid."""

    levels: Levels
    """On the CPU, like the other fields."""
    margin: PerExample
    """NaN if the logits were not finite at one of the tried points."""
    prediction: Labels
    rounding: list[Rounding]

    def verdicts(self) -> list[Verdict]:
        """Return the verdicts: broken, survived, or unknown (a tie, NaN)."""
        return ["broken" if m > 0 else "survived" if m < 0 else "unknown" for m in self.margin.tolist()]

    def table(self, batch: Batch, threat: Threat) -> dict[str, list[Any]]:
        """Return the table by column, one row per example."""
        distance = spent(levels_of(batch.x.cpu()), self.levels, threat).double()
        return {
            "id": batch.ids.tolist(),
            "label": batch.y.tolist(),
            "prediction": self.prediction.tolist(),
            "verdict": list(self.verdicts()),
            "rounding": list(self.rounding),
            "distance": ((distance.sqrt() if threat.norm == "L2" else distance) / 255).tolist(),
        }


def round_block(model: Model, batch: Batch, z: Inputs, threat: Threat, noise: Noise, batch_size: int) -> Rounded:
    """Return the adversarial points z rounded into S(x): nearest, else along the gradient, else at random."""
    levels, target, labels = levels_of(batch.x.cpu()), z.cpu().double() * 255, batch.y
    k = nearest(levels, target, threat)
    margins, prediction = _fresh(model, as_inputs(k, z), labels, batch_size)
    rounding: list[Rounding] = ["nearest"] * len(z)
    for draw in range(1 + DRAWS):
        rows = (~(margins > 0)).nonzero()[:, 0]
        if len(rows) == 0:
            break
        targets, y = target[rows], labels[rows.to(labels.device)]
        if draw == 0:
            tried = torch.where(_slope(model, as_inputs(k[rows], z), y) > 0, targets.ceil(), targets.floor())
        else:
            tried = (targets + noise.rows(rows).fold(draw).uniform(targets.shape[1:], torch.float64)).floor()
        points = nearest(levels[rows], tried, threat)
        looked, classes = _fresh(model, as_inputs(points, z), y, batch_size)
        margins[rows[looked.isnan()]] = torch.nan  # an unknown example has not survived
        won = looked > 0
        k[rows[won]], margins[rows[won]], prediction[rows[won]] = points[won], looked[won], classes[won]
        for row in rows[won].tolist():
            rounding[row] = "gradient" if draw == 0 else "random"
    return Rounded(k, margins, prediction, rounding)


def _fresh(model: Model, z: Inputs, y: Labels, batch_size: int) -> tuple[PerExample, Labels]:
    """Return margins (NaN if the logits are not finite) and predictions; near ties are computed alone."""
    logits = padded_logits(model, z, batch_size)
    for row in (margin(logits, y).abs() <= TIE).nonzero()[:, 0].tolist():
        logits[row] = padded_logits(model, z[row : row + 1], 1)[0]
    margins = torch.where(logits.isfinite().all(1), margin(logits, y), torch.nan)
    return margins.cpu(), logits.argmax(1).cpu()


def _slope(model: Model, z: Inputs, y: Labels) -> Inputs:
    with torch.enable_grad():
        z = z.requires_grad_()
        (slope,) = torch.autograd.grad(margin(model(z), y).sum(), z)
    return slope.cpu()


# Reading and writing


def images_folder(folder: Path, suite: str) -> Path:
    """Return the folder of a suite's images."""
    return folder / suite / "png"


def clear(folder: Path, suite: str) -> None:
    """Remove the files of an earlier `quantize` for this suite."""
    (folder / f"{suite}-8bit.json").unlink(missing_ok=True)
    images = images_folder(folder, suite)
    (images / INDEX).unlink(missing_ok=True)
    for image in images.glob("[0-9]*.png"):
        image.unlink()


def check_single_draws(over_draws: bool) -> None:
    """Raise InputError for means over draws, whose verdicts are those of the majority of draws."""
    if over_draws:
        raise InputError(
            "--quantize judges 8-bit images by one forward each, and rand by means over draws: leave it out."
        )


def _check_same(model: nn.Module, split: Split, threat: Threat, outcome: Outcome) -> None:
    check_single_draws("draws" in outcome.examples)
    if str(threat) != outcome.threat:
        raise InputError(f"The outcome is of {outcome.threat}, not of {threat}: give the threat of the evaluation.")
    if weights_hash(model) != outcome.environment["weights"]:
        raise InputError("The outcome is of other weights: give the model that was evaluated.")
    labels = dict(zip(split.names().tolist(), split.labels.tolist(), strict=True))
    if [labels.get(name) for name in outcome.examples["id"]] != outcome.examples["label"]:
        raise InputError("The outcome is of other examples or labels: give the data that were evaluated.")


def adversarial_points(outcome: Outcome, out: Path | str | None) -> Iterator[tuple[Labels, Inputs]]:
    """Return ids and perturbed inputs of the broken examples, from memory or a part at a time from the folder."""
    if outcome.adversarial is not None:
        verdicts = zip(outcome.examples["id"], outcome.examples["verdict"], strict=True)
        yield torch.tensor([i for i, v in verdicts if v == "broken"], dtype=torch.int64), outcome.adversarial
        return
    if out is None:
        raise InputError("The adversarial examples of this outcome were written to a folder: give it as out.")
    store = Store(Path(out) / outcome.suite)
    for number in range(len(list((Path(out) / outcome.suite).glob("part-*.parquet")))):
        table = store.read(number).table
        ids = [i for i, v in zip(table["id"], table["verdict"], strict=True) if v == "broken"]
        yield torch.tensor(ids, dtype=torch.int64), store.read_adversarial(number)
    carried = Path(out) / outcome.suite / CARRIED
    if carried.exists():
        tensors, about = read_tensors(carried)
        if about is not None and about["of"] == carried_of(outcome):
            yield torch.tensor([row["id"] for row in about["rows"]], dtype=torch.int64), tensors["adversarial"]


def _write_images(folder: Path, ids: Labels, levels: Levels) -> None:
    arrays = levels.to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for name, array in zip(ids.tolist(), arrays, strict=True):
        image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
        write_atomically(folder / f"{name:05d}.png", image.save)


def _write_index(path: Path, table: Mapping[str, list[Any]]) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(zip(*(table[column] for column in COLUMNS), strict=True))

    write_atomically(path, write)


def _quantised(outcome: Outcome, table: Mapping[str, list[Any]], images: Tensor | None) -> Quantised:
    counts: dict[Verdict, int] = {
        "broken": table["verdict"].count("broken"),
        "survived": table["verdict"].count("survived"),
        "unknown": table["verdict"].count("unknown"),
    }
    standing = outcome.counts["survived"] + counts["survived"]
    at_most = standing + outcome.counts["unknown"] + counts["unknown"]
    return Quantised(outcome.n, counts, wilson(standing, outcome.n, at_most), table, images)
