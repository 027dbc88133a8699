"""Checks of the loss and of the answers around the examples: stable, nearly linear, drawn as they are."""

import math

import pytest
import torch
from torch import Tensor

from support.audited import under_audit
from support.planted import Around, Behind, fit, robust
from unperturbed.examinations.audited import CheckResult, Grid
from unperturbed.examinations.audits.linearity import linearity
from unperturbed.examinations.audits.radii import radii
from unperturbed.examinations.audits.stand_in import stand_in
from unperturbed.examinations.audits.surface import surface
from unperturbed.examinations.audits.transferred import taught, transferred
from unperturbed.examinations.audits.unstable import HONEST, unstable
from unperturbed.examinations.remedies.candidates import AS_IT_IS, Candidate
from unperturbed.losses import cross_entropy


class Jagged(Around):
    """Adds to the logits what has no relation to neighbouring inputs."""

    def forward(self, x: Tensor) -> Tensor:
        wave = torch.sin(1e5 * x.flatten(1) @ torch.linspace(-1, 1, 640).view(64, 10))
        return self.net(x) + 20 * wave  # type: ignore[no-any-return]


@pytest.mark.slow
def test_tiny_noise_changes_an_honest_loss_little_and_a_jagged_one_much() -> None:
    honest, jagged = unstable(under_audit(robust())), unstable(under_audit(Jagged(robust())))
    assert honest.verdict == "pass" and honest.numbers[0].value < 2 * HONEST
    assert jagged.verdict == "fail" and jagged.causes == ("shattered",), jagged.measured


@pytest.mark.long
@pytest.mark.slow
def test_the_nonlinearity_vanishes_with_the_radius() -> None:
    small, usual = (linearity(under_audit(robust(), 30, eps=eps)) for eps in (1e-3, 0.15))
    gamma = [found.numbers[0].value for found in (small, usual)]
    assert 0 < gamma[1] and gamma[0] < 1e-3 * gamma[1], "quadratic in the radius"
    assert usual.verdict == "pass", usual.measured


def test_the_surface_has_the_mean_loss_of_the_examples_in_the_middle() -> None:
    audited = under_audit(robust())
    found = surface(audited)
    assert found.surface is not None
    middle = len(found.surface.along) // 2
    loss = cross_entropy(audited.answers(audited.few.x[:4]), audited.few.y[:4]).double().mean()
    assert found.surface.along[middle] == 0
    assert found.surface.values[middle][middle] == pytest.approx(float(loss), abs=1e-5)
    assert CheckResult.of(found.json()) == found, "kept in a file as it is"


@pytest.mark.long
@pytest.mark.slow
def test_a_small_network_learns_the_labels_and_breaks_what_a_hidden_gradient_protects() -> None:
    hidden = under_audit(Behind(fit(0.0, 0, 6), "zero"), 60)
    assert taught(hidden, hidden.batch.x)[1] > 0.8
    found = transferred(hidden)
    assert found.verdict == "fail" and found.causes == ("shattered",), found.measured
    assert len(found.broke) == round(found.numbers[0].value * found.numbers[0].n)


@pytest.mark.long
@pytest.mark.slow
def test_points_of_other_networks_break_no_more_of_an_honest_one() -> None:
    audited = under_audit(robust(), 60)
    audited.peers["an undefended network"] = fit(0.0, 0, 6)  # type: ignore[index]
    found = transferred(audited)
    assert found.verdict == "pass" and "an undefended network" in found.measured


@pytest.mark.slow
def test_what_breaks_another_network_only_is_no_attack_on_this_one() -> None:
    audited = under_audit(robust())
    audited.__dict__["candidates"] = [Candidate("another network", fit(0.0, 0, 6))]
    assert stand_in(audited).verdict == "fail"
    audited.__dict__["candidates"] = [Candidate(AS_IT_IS, audited.model)]
    assert stand_in(audited).verdict == "pass"


@pytest.mark.slow
def test_half_of_the_box_must_break_all_but_chance() -> None:
    honest, hidden = radii(under_audit(robust(), 30)), radii(under_audit(Behind(robust(), "zero"), 30))
    assert honest.verdict == "pass" and honest.numbers[2].value <= 0.2
    assert hidden.verdict == "fail" and hidden.numbers[2].value > 0.5


def test_a_grid_is_read_back_as_it_was_written() -> None:
    grid = Grid((-1.0, 0.0, 1.0), ((1.0, 2.0, 3.0),) * 3, "loss")
    assert Grid.of({"along": list(grid.along), "values": [list(row) for row in grid.values], "caption": "loss"}) == grid
    assert math.isclose(sum(grid.along), 0)
