"""APGD move by move, driven with chosen scores: what counts as a rise, when the step is halved, where it goes on."""

import pytest
import torch
from torch import Tensor

from unperturbed.maximise.apgd import APGD, _periods
from unperturbed.maximise.ascent import Memory
from unperturbed.noise import Noise
from unperturbed.threat import Threat

THREAT = Threat("L2", 0.5, None)
X = torch.zeros(1, 2, dtype=torch.float64)
STEPS = 20
FIRST = int(0.22 * STEPS)
"""The first checkpoint."""
EAST = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
NORTH = torch.tensor([[0.0, 1.0]], dtype=torch.float64)


def driven(
    scores: list[float], gradients: list[Tensor] | None = None, rho: float = 0.75
) -> tuple[list[Tensor], Memory]:
    """Return the points, the start first, of a climb that meets these scores and gradients, and its memory."""
    rule = APGD(steps=STEPS, rho=rho)
    memory, points = rule.memory(X, Noise.of(0, torch.tensor([0]))), [torch.zeros_like(X)]
    for k, score in enumerate(scores):
        gradient = EAST if gradients is None else gradients[k]
        value = torch.tensor([score], dtype=torch.float64)
        points.append(rule.step(X, points[-1], value, gradient, k, memory, THREAT))
    return points, memory


def sizes(scores: list[float], rho: float = 0.75) -> float:
    return float(driven(scores, None, rho)[1]["size"])


@pytest.mark.parametrize("height", [0.0, -5e3])
@pytest.mark.parametrize("fall", [1e-12, 1e-6, 1e-4, 1e-3, 0.1])
def test_a_score_that_falls_however_little_is_no_rise(fall: float, height: float) -> None:
    scores = [height - fall * k * max(-height, 1.0) for k in range(FIRST + 1)]
    points, memory = driven(scores[:-1])
    assert float(memory["rises"]) == 0
    assert sizes(scores) == 0.5


@pytest.mark.parametrize("height", [0.0, -5e3])
@pytest.mark.parametrize("rise", [1e-12, 1e-6, 1e-3, 0.1])
def test_a_score_that_rises_however_little_is_a_rise(rise: float, height: float) -> None:
    assert sizes([height + rise * k * max(-height, 1.0) for k in range(FIRST + 1)]) == 1.0


def test_a_score_that_stays_is_no_rise() -> None:
    assert sizes([0.0] * (FIRST + 1)) == 0.5


@pytest.mark.parametrize(("rises", "size"), [(0, 0.5), (2, 0.5), (3, 0.5), (4, 1.0)])
def test_the_step_is_halved_where_no_more_than_three_quarters_of_the_moves_rose(rises: int, size: float) -> None:
    """There are four moves before the first checkpoint."""
    scores = [0.0]
    for k in range(FIRST):
        scores.append(scores[-1] + (1.0 if k < rises else -1.0))
    assert float(driven(scores[:-1])[1]["rises"]) == min(rises, FIRST - 1) and sizes(scores) == size


def test_a_rise_is_against_the_move_before_and_not_against_the_best() -> None:
    """Up from below the best in the three moves after the first checkpoint: no second halving."""
    assert sizes([9.0, 3.0, 2.0, 1.0, 0.0, 1.0, 2.0, 3.0]) == 0.5
    assert sizes([9.0, 3.0, 2.0, 1.0, 0.0, 1.0, 2.0, 1.0]) == 0.25


def test_rises_are_counted_anew_from_each_checkpoint() -> None:
    """Four rises before the first one do not make up for two falls before the second, though the best score rises."""
    assert sizes([0.0, 1.0, 2.0, 3.0, 4.0]) == 1.0
    assert sizes([0.0, 1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 5.0]) == 0.5


def test_of_equal_scores_the_first_point_is_the_best() -> None:
    points, memory = driven([3.0, 3.0, 2.0], [EAST, NORTH, EAST])
    assert torch.equal(memory["best"], points[0]) and torch.equal(memory["slope"], EAST)


def test_a_best_score_that_stands_halves_the_step_unless_it_was_halved_before() -> None:
    assert sizes([0.0, 1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0], rho=0.25) == 0.5
    assert sizes([0.0, 1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 5.0], rho=0.25) == 1.0
    assert sizes([9.0, 3.0, 2.0, 1.0, 0.0, 1.0, 2.0, 3.0], rho=0.25) == 0.5


def test_it_goes_on_from_the_best_point_with_the_gradient_there() -> None:
    """The best score is the second point's, whose gradient points north; all others point east."""
    scores, gradients = [0.0, 9.0, 1.0, 0.5, 0.2], [EAST, NORTH, EAST, EAST, EAST]
    points, memory = driven(scores, gradients)
    best, before = points[1], points[FIRST - 1]
    ahead = THREAT.project(X, best + 0.5 * 2 * THREAT.eps * NORTH)
    expected = THREAT.project(X, best + 0.75 * (ahead - best) + 0.25 * (best - points[FIRST - 1]))
    assert torch.allclose(points[-1], expected, atol=1e-12) and not torch.equal(before, best)
    assert torch.equal(memory["best"], best) and float(memory["top"]) == 9.0


def test_the_first_move_has_no_momentum_and_the_later_ones_a_quarter() -> None:
    points, _ = driven([0.0, 1.0], [EAST, NORTH])
    assert torch.allclose(points[1], THREAT.project(X, EAST), atol=1e-12)
    ahead = THREAT.project(X, points[1] + 2 * THREAT.eps * NORTH)
    expected = THREAT.project(X, points[1] + 0.75 * (ahead - points[1]) + 0.25 * (points[1] - points[0]))
    assert torch.allclose(points[2], expected, atol=1e-12)


def test_checkpoints_come_closer_as_the_paper_says() -> None:
    """w = 0, 22, 41, 57, 70, 80, 87, 93, 99: each period is 3 moves shorter, and at least 6."""
    found = [point for point, period in enumerate(_periods(100)) if period]
    assert found == [22, 41, 57, 70, 80, 87, 93, 99]
    assert [_periods(100)[point] for point in found] == [22, 19, 16, 13, 10, 7, 6, 6]


def test_in_l1_the_step_shrinks_at_each_checkpoint_unless_the_best_point_became_sparser() -> None:
    """Checkpoints are 4% of the moves apart; the best point is the input: it becomes sparser at the first one alone."""
    rule, x = APGD(steps=100), torch.full((1, 20), 0.5, dtype=torch.float64)
    memory, point, sizes = rule.memory(x, Noise.of(0, torch.tensor([0]))), x, []
    for k in range(40):
        value = torch.tensor([-float(k)], dtype=torch.float64)
        point = rule.step(x, point, value, torch.ones_like(x), k, memory, Threat("L1", 0.5, None))
        sizes.append(float(memory["size"]))
    shrunk = [max(1.5**-times, 0.1) for times in range(9)]
    assert sizes == pytest.approx([1.0] * 4 + [size for size in shrunk for _ in range(4)], abs=1e-12)
