"""Adversarial examples as images: the original, the perturbed image, and the perturbation amplified."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from unperturbed.errors import InputError
from unperturbed.reports.document import Block, Paragraph, Part, Picture, Pictures, Section, section
from unperturbed.results.points import Points, answers, originals, stored_points
from unperturbed.results.sections.classes import class_name
from unperturbed.results.stored import StoredEvaluation, StoredRun

MOST = 10
"""Number of shown examples per run."""
SMALLEST = 96
"""Pixels of the shorter side after enlarging small images, by integer factors."""
LARGEST = 128
"""Pixels of the longer side after reducing large images."""


def examples(runs: Sequence[StoredRun]) -> Section | None:
    """Return the section, with a part for each run whose headline is an evaluation with a table."""
    parts = [Part(run.name if len(runs) > 1 else "", _blocks(run)) for run in runs]
    return section("Adversarial examples", parts, "Each pair differs by a perturbation within the threat set.")


def _blocks(run: StoredRun) -> tuple[Block, ...]:
    stored = run.headline
    if stored is None:
        return ()
    try:
        points = stored_points(stored)
        if points.z.dim() != 4 or points.z.shape[1] not in (1, 3):
            raise InputError(f"inputs of shape {tuple(points.z.shape[1:])} are no images of one or three channels")
        rows = chosen(points.ids, points.labels)
        x = originals(run, stored.outcome, points, rows)
    except (InputError, OSError, ImportError) as error:
        return (Paragraph(f"Adversarial examples are left out: {error}."),)
    return (_grid(run, stored, points, rows, x),)


def chosen(ids: Sequence[int], labels: Sequence[int]) -> list[int]:
    """Return the shown rows: the first of each class, then further ones, by id."""
    order = sorted(range(len(ids)), key=lambda row: ids[row])
    first = dict[int, int]()
    for row in order:
        first.setdefault(labels[row], row)
    rows = [*first.values(), *(row for row in order if row not in {*first.values()})]
    return sorted(rows[:MOST], key=lambda row: ids[row])


def _grid(run: StoredRun, stored: StoredEvaluation, points: Points, rows: Sequence[int], x: Tensor) -> Block:
    shown = Points(
        tuple(points.ids[row] for row in rows), tuple(points.labels[row] for row in rows), points.z[list(rows)]
    )
    names = [class_name(run, label) for label in shown.labels]
    try:
        predicted = [class_name(run, answer) for answer in answers(run, shown).tolist()]
    except InputError:
        predicted = ["another class"] * len(rows)
    change = shown.z - x
    largest = float(change.abs().max())
    factor = 0.5 / max(largest, 1e-12)
    low, high = _range(x, shown.z)
    kinds = (
        ("original", (x - low) / (high - low), "as it is"),
        ("adversarial", (shown.z - low) / (high - low), "perturbed, taken for {taken}"),
        ("perturbation", 0.5 + factor * change, "the perturbation, amplified"),
    )
    pictures = tuple(
        (
            kind,
            tuple(
                Picture(png(image), f"Example {name}, class {true}: {words.replace('{taken}', answer)}")
                for name, true, answer, image in zip(shown.ids, names, predicted, images, strict=True)
            ),
        )
        for kind, images, words in kinds
    )
    about = (
        f"Broken by {stored.outcome.suite} under {stored.outcome.threat}. Above each: true class → the class that the "
        f"adversarial example is taken for. Perturbations are amplified {factor:.3g} times around grey, so that the "
        f"largest change, {largest:.3g}, is black or white."
    )
    columns = tuple(f"{true} → {answer}" for true, answer in zip(names, predicted, strict=True))
    return Pictures("Adversarial examples, one of each class first", columns, pictures, about)


def _range(*images: Tensor) -> tuple[float, float]:
    """Return the values for black and white: 0 and 1 for images within [0, 1]."""
    low, high = min(float(image.min()) for image in images), max(float(image.max()) for image in images)
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, max(high, low + 1e-12))


def png(image: Tensor) -> bytes:
    """Return an image (channels, height, width) with values from 0 to 1 as a PNG file; small ones are enlarged."""
    levels = (image.detach().clamp(0, 1).nan_to_num() * 255).round().to("cpu").numpy().astype(np.uint8)
    picture = Image.fromarray(levels[0] if len(levels) == 1 else np.moveaxis(levels, 0, 2))
    if (factor := SMALLEST // min(picture.size)) > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    picture.thumbnail((LARGEST, LARGEST))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()
