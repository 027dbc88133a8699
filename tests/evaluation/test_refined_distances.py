"""Descents in the search for distances: nearer points, all verified, and the same after an interruption."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from support.toys import uniform, wavy
from unperturbed.attacks.descent import Descent
from unperturbed.attacks.fab import FAB
from unperturbed.attacks.fast_minimum_norm import FastMinimumNorm
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.attacks.primal_dual import PrimalDual
from unperturbed.evaluation.curve import minimum_norm
from unperturbed.evaluation.distances import Distances
from unperturbed.evaluation.store import Store
from unperturbed.losses import cross_entropy
from unperturbed.maximise.apgd import APGD
from unperturbed.threat import Threat
from unperturbed.types import Norm

BEFORE = Suite("before", (FAB(steps=10), GradientAttack("APGD-CE", cross_entropy, APGD(steps=6))), "a test")
DESCENT = Descent("PDPGD", PrimalDual(steps=40), FastMinimumNorm(30, 0.1, 1e-3, 0.02, 5e-4))
AFTER = Suite("after", (*BEFORE.attacks, DESCENT), "a test")


def distances(suite: Suite, norm: Norm, out: Path | None = None, n: int = 40) -> Distances:
    x, model = uniform(n, 8, seed=6), wavy()
    threat = Threat(norm, {"Linf": 0.1, "L2": 0.2, "L1": 0.4}[norm])
    return minimum_norm(model, (x, model(x).argmax(1)), threat, suite, radii=[threat.eps / 2], batch_size=16, out=out)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_with_a_descent_no_distance_is_larger_and_each_is_that_of_a_misclassified_point(norm: Norm) -> None:
    before, after = distances(BEFORE, norm), distances(AFTER, norm)
    pairs = list(zip(after.examples["distance"], before.examples["distance"], strict=True))
    assert sum(new < old for new, old in pairs) > 4
    assert all(new <= 1.001 * old for new, old in pairs)
    x, model = uniform(40, 8, seed=6), wavy()
    rows = [row for row, attack in enumerate(after.examples["attack"]) if attack]
    z, y = torch.as_tensor(after.nearest), model(x).argmax(1)
    assert bool((model(z).argmax(1) != y[rows]).all()) and bool(((z >= 0) & (z <= 1)).all())
    truth = Threat(norm, 1.0).distance(x[rows], z)
    torch.testing.assert_close(truth, torch.tensor(after.examples["distance"])[rows])
    assert "PDPGD" in {record.name for record in after.searches if record.nearest}


@pytest.mark.long
@pytest.mark.slow
def test_an_interrupted_search_ends_with_the_same_distances(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After FAB, after the descent, after each radius, and after the refinement."""
    straight, write = distances(AFTER, "L2", tmp_path / "straight"), Store.keep

    def stop(*given: Any) -> None:
        write(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "keep", stop)
    stops = 0
    while True:
        try:
            resumed = distances(AFTER, "L2", tmp_path / "out")
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops >= 4 and resumed.examples == straight.examples
    assert [replace(record, seconds=0.0) for record in resumed.searches] == [
        replace(record, seconds=0.0) for record in straight.searches
    ]
