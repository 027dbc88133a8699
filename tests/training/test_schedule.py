import math
from dataclasses import replace
from typing import Literal

import pytest

from unperturbed.threat import Threat
from unperturbed.training.recipe import Recipe
from unperturbed.training.schedule import learning_rate, ramped


@pytest.mark.parametrize(
    ("schedule", "share", "factor"),
    [
        ("constant", 0.0, 1.0), ("constant", 0.99, 1.0),
        ("cosine", 0.0, 1.0), ("cosine", 0.5, 0.5), ("cosine", 1.0, 0.0), ("cosine", 1 / 3, 0.75),
        ("one-cycle", 0.0, 0.0), ("one-cycle", 0.15, 0.5), ("one-cycle", 0.3, 1.0), ("one-cycle", 0.65, 0.5),
        ("one-cycle", 1.0, 0.0),
        ("step", 0.49, 1.0), ("step", 0.5, 0.1), ("step", 0.74, 0.1), ("step", 0.75, 0.01), ("step", 1.0, 0.01),
    ],
)  # fmt: skip
def test_learning_rate(schedule: Literal["constant"], share: float, factor: float) -> None:
    assert learning_rate(Recipe(schedule=schedule), share) == pytest.approx(factor, abs=1e-12)


def test_milestones_are_the_recipe_s() -> None:
    recipe = Recipe(schedule="step", milestones=(0.2, 0.4, 0.6))
    assert [round(-math.log10(learning_rate(recipe, share))) for share in (0.1, 0.2, 0.5, 0.9)] == [0, 1, 2, 3]


def test_eps_grows_from_nothing_to_its_value() -> None:
    threat = Threat("L2", 0.8, (-1.0, 2.0))
    assert [ramped(threat, 0.25, share).eps for share in (0.0, 0.125, 0.25, 0.7)] == pytest.approx([0, 0.4, 0.8, 0.8])
    early = ramped(threat, 0.5, 0.1)
    assert early.norm == "L2" and early.bounds == (-1.0, 2.0) and threat.eps == 0.8
    assert ramped(threat, 0.0, 0.0).eps == 0.8


def test_every_step_of_a_run_moves_the_weights_except_the_first_of_one_cycle() -> None:
    factors = [learning_rate(replace(Recipe(), schedule="one-cycle"), step / 20) for step in range(20)]
    assert factors[0] == 0 and min(factors[1:]) > 0 and max(factors) == pytest.approx(1.0, abs=0.08)
