"""The binarisation test: strong attacks solve planted problems, weakened ones do not."""

import pytest
import torch
from torch import Tensor, nn

from support.planted import EPS, examples, robust
from support.sabotaged import FGSM, STRONG, sabotaged
from unperturbed.examinations.binarisation import binarisation
from unperturbed.suites.autoattack import STANDARD
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Labels

THREAT = Threat("Linf", EPS)
SABOTAGED = sabotaged(THREAT)


@pytest.fixture(scope="module")
def planted() -> tuple[nn.Module, Batch]:
    x, y = examples(40)
    return robust(), Batch(x, y, torch.arange(40))


@pytest.mark.long
@pytest.mark.slow
def test_a_strong_suite_solves_what_one_step_does_not(planted: tuple[nn.Module, Batch]) -> None:
    solved, one_step = (binarisation(*planted, THREAT, suite, 6) for suite in (STRONG, FGSM))
    assert solved.valid == 6 and solved.solved >= 5 and solved.by_chance <= 1
    assert one_step.valid == 6 and one_step.solved <= 4


def test_the_test_ends_after_so_many_failures(planted: tuple[nn.Module, Batch]) -> None:
    calls = []

    def nothing(model: nn.Module, x: Inputs, y: Labels) -> Tensor:
        calls.append(1)
        return x

    found = binarisation(*planted, THREAT, nothing, 8, failures=2)
    assert (found.solved, found.valid, len(calls)) == (0, 2, 2)


@pytest.mark.long
@pytest.mark.slow
def test_autoattack_passes(planted: tuple[nn.Module, Batch]) -> None:
    found = binarisation(*planted, THREAT, STANDARD, 20)
    assert found.valid >= 18 and found.solved >= 0.95 * found.valid


@pytest.mark.long
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) for name in SABOTAGED if name != "no step"]
)
def test_a_sabotaged_attack_fails(planted: tuple[nn.Module, Batch], name: str) -> None:
    found = binarisation(*planted, THREAT, SABOTAGED[name], 8)
    assert found.valid == 8 and found.solved <= 0.8 * 8
