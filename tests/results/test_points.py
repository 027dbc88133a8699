"""Stored adversarial examples: the network misclassifies them, and their originals are those of the evaluation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unperturbed as un
from unperturbed.results.points import answers, originals, stored_points
from unperturbed.results.stored import StoredEvaluation, StoredRun, read_run


def headline(run: StoredRun) -> StoredEvaluation:
    assert run.headline is not None
    return run.headline


def test_points_are_misclassified_and_lie_within_eps_of_their_originals(run: Path) -> None:
    stored = read_run(run, "a")
    points = stored_points(headline(stored))
    assert len(points.ids) == headline(stored).outcome.counts["broken"] > 0
    assert (answers(stored, points) != torch.tensor(points.labels)).all()
    x = originals(stored, headline(stored).outcome, points, range(len(points.ids)))
    assert float((points.z - x).abs().max()) <= 0.1 + 1e-6


def test_other_weights_are_not_taken_for_those_that_were_attacked(run: Path) -> None:
    stored = read_run(run, "a")
    points = stored_points(headline(stored))
    model = un.load_run(run)
    with torch.no_grad():
        for weight in list(model.parameters())[-2:]:  # of two classes, the answers are exchanged
            weight.neg_()
    un.save_weights(model, run / "best.safetensors")
    with pytest.raises(un.InputError, match="adversarial examples correctly"):
        answers(stored, points)


def test_data_that_changed_are_not_shown(run: Path, made: Path) -> None:
    stored = read_run(run, "a")
    points = stored_points(headline(stored))
    assert stored.record is not None and stored.record.data is not None
    place = next(path for path in sorted((Path(stored.record.data) / "test").iterdir()))
    images = sorted(place.glob("*.png"))
    before = [path.read_bytes() for path in images]
    try:
        for path in images:
            Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
        with pytest.raises(un.InputError, match="changed"):
            originals(stored, headline(stored).outcome, points, range(len(points.ids)))
    finally:
        for path, content in zip(images, before, strict=True):
            path.write_bytes(content)
