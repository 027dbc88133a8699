"""Searches in bfloat16: float32 decides, and repeats searches in which rounding may have hidden a break."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from support.examples import network
from support.toys import QUICK
from unperturbed.attacks.base import Attack, AttackResult
from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.data.convert import as_split
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.block import attack_block, untouched
from unperturbed.evaluation.checked_model import check_model
from unperturbed.evaluation.search import Networks, as_searched, precision_of_search
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD
from unperturbed.networks.precision import Precision
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Model

THREAT = Threat("Linf", 0.1, None)
X = torch.rand(12, 3, generator=torch.Generator().manual_seed(0)) * 0.2
Y = torch.zeros(12, dtype=torch.int64)


class Reading(nn.Module):
    """Leads with class 1 by the first feature less 0.5, plus `off`."""

    def __init__(self, off: float = 0.0) -> None:
        super().__init__()
        self.off, self.seen = off, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        lead = x[:, :1] - 0.5 + self.off
        return torch.cat([-lead / 2, lead / 2], 1)


@dataclass(frozen=True)
class Moving(Attack):
    """Moves the first feature to where the network it is given says a little less than 0, or `goal`."""

    goals: tuple[float, ...]
    label: str = "moving"
    restarts: int = 1
    bears_rounding: ClassVar[bool] = True

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        z = batch.x.clone()
        z[:, 0] = torch.tensor(self.goals)[batch.ids]
        with torch.no_grad():
            logits = model(z)
        n = len(z)
        return AttackResult(
            z, logits[:, 1] - logits[:, 0], torch.ones(n, dtype=torch.bool), torch.ones_like(batch.y), n
        )


def verdicts(goals: list[float], rough: Reading, precise: Reading) -> tuple[list[str], int]:
    """Return the verdicts, and how many forwards were counted."""
    batch, attack = Batch(X[: len(goals)], Y[: len(goals)], torch.arange(len(goals))), Moving(tuple(goals))
    plain = Reading()
    block = untouched(plain, batch, 8, 0)
    suite = Suite("moving", (attack,), "")
    attack_block(Networks(plain, precise, rough, 8), block, Threat("Linf", 1.0, None), suite, 0)
    assert not block.warnings
    return list(block.verdicts()), block.tallies[0].forwards


def test_a_claim_of_the_rough_search_that_does_not_hold_is_looked_at_again() -> None:
    """Every margin is 0.02 too high: 0.49 looks broken and is not; nobody calls it unknown for that."""
    rough, precise = Reading(0.02), Reading()
    found, forwards = verdicts([0.49, 0.6, 0.1, 0.2, 0.3], rough, precise)
    assert found == ["survived", "broken", "survived", "survived", "survived"]
    assert forwards == 5 + 1, "and the slopes in both networks, at x and at the point found, are not counted"


def test_what_came_near_is_looked_at_again() -> None:
    """Every margin is 0.02 too low: what ends within four times that of a break is attacked again in float32."""
    rough, precise = Reading(-0.02), Reading()
    found, forwards = verdicts([0.43, 0.41, 0.1, 0.51], rough, precise)
    assert found == ["survived", "survived", "survived", "broken"]
    assert forwards == 4 + 1, "only 0.43 lies so near; 0.51 is broken whatever the rough one said"


def test_a_claim_that_float32_repeats_and_refutes_is_unknown() -> None:
    found, _ = verdicts([0.49, 0.1, 0.2, 0.3], Reading(0.02), Reading(0.02))
    assert found == ["unknown", "survived", "survived", "survived"]


def test_values_that_are_not_finite_in_the_rough_search_are_no_verdict() -> None:
    class Overflowing(Reading):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * torch.where(x[:, :1] > 0.35, torch.nan, 1.0)

    found, _ = verdicts([0.4, 0.1, 0.2, 0.3], Overflowing(), Reading())
    assert found == ["survived"] * 4


def test_attacks_that_need_small_differences_search_in_float32() -> None:
    assert not FAB().bears_rounding
    model, rough = network("norm").eval(), Reading()
    x = torch.rand(4, 2, 4, 4)
    batch = Batch(x, model(x).argmax(1), torch.arange(4))
    block = untouched(model, batch, 8, 0)
    attack_block(Networks(model, model, rough, 8), block, THREAT, Suite("fab", (FAB(steps=2),), ""), 0)
    assert rough.seen == 0 and block.tallies[0].forwards > 0


def test_a_network_that_rounds_flat_is_attacked_in_float32() -> None:
    """In bfloat16 a saturated unit's slope is exactly 0: the search would not move, and all would seem robust."""
    torch.manual_seed(0)
    steep = nn.Sequential(nn.Linear(3, 2), Steep(), nn.Linear(2, 2)).eval()
    x = torch.rand(40, 3)
    y = steep(x).argmax(1)
    batch, threat = Batch(x, y, torch.arange(40)), Threat("Linf", 0.3, None)
    suite = Suite("one", (GradientAttack("PGD-margin", margin, PGD(steps=20), restarts=2),), "")
    found = []
    for rough in (Flat(steep), None):
        block = untouched(steep, batch, 8, 0)
        attack_block(Networks(steep, steep, rough, 8), block, threat, suite, 0)
        found.append(block.verdicts())
    assert found[0] == found[1] and 5 < found[1].count("broken") < 40


class Plateau(nn.Module):
    """Class 1 leads by -1 up to x_0 = 0.5 and by 100 (x_0 - 0.535) beyond; `moves`: whether that has a slope."""

    def __init__(self, moves: bool) -> None:
        super().__init__()
        self.moves = moves

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rise = 100 * (x[:, 0] - 0.535)
        rise = rise if self.moves else rise.detach()
        lead = torch.where(x[:, 0] > 0.5, rise, -1.0) + 0 * x.sum(1)
        return torch.stack([-lead / 2, lead / 2], 1)


def test_a_search_that_ends_where_nothing_has_a_slope_has_not_seen_the_rest() -> None:
    """From most starts float32 sees no slope either; from some it climbs, where the rough network is flat."""
    x = torch.full((40, 3), 0.42)
    batch, threat = Batch(x, torch.zeros(40, dtype=torch.int64), torch.arange(40)), Threat("Linf", 0.12, None)
    suite = Suite("one", (GradientAttack("PGD", margin, PGD(steps=10), restarts=2),), "")
    found = []
    for rough in (Plateau(False), None):
        plain = Plateau(True)
        block = untouched(plain, batch, 8, 0)
        attack_block(Networks(plain, plain, rough, 8), block, threat, suite, 0)
        found.append(block.verdicts())
    assert found[0] == found[1] and 0 < found[1].count("broken") < 40


def test_a_failure_in_the_second_search_changes_nothing() -> None:
    """Differences seen earlier are forgotten with the search: otherwise the first search is not repeated."""

    class Tilted(Reading):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            lead = super().forward(x)
            return lead + torch.where(x[:, :1] > 0.4, 9 * (x[:, 1:2] - x[:, 1:2].detach()), 0.0) * lead.new_tensor(
                [0, 1]
            )

    class Once(Reading):
        last = -1

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.seen == self.last:
                self.seen += 1
                raise RuntimeError("once")
            return super().forward(x)

    whole = Batch(X, Y, torch.arange(12))
    suite = Suite("moving", (Moving(tuple([0.45] * 6 + [0.1] * 6)),), "")
    found = []
    for last in (-1, 4):  # two slopes at x and two at the point found, in the eight places: then the second search
        block, precise = untouched(Reading(), whole, 8, 0), Once()
        precise.last = last
        attack_block(Networks(Reading(), precise, Tilted(), 8), block, Threat("Linf", 1.0, None), suite, 0)
        found.append((block.unlike.tolist(), block.table(Threat("Linf", 1.0, None), suite), block.tallies[0].forwards))
    assert found[0] == found[1] and found[0][0] == [True] * 6 + [False] * 6 and found[0][2] == 12 + 6


def test_slopes_are_looked_at_in_as_many_places_as_memory_holds() -> None:
    class Small(Reading):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 4:
                raise RuntimeError("out of memory")
            return super().forward(x)

    block = untouched(Reading(), Batch(X, Y, torch.arange(12)), 8, 0)
    networks = Networks(Reading(), Small(), Reading(), 8)
    attack_block(networks, block, THREAT, Suite("pgd", (GradientAttack("PGD", margin, PGD(steps=2)),), ""), 0)
    assert networks.batch_size == 4 and not block.warnings and not block.unlike.any()


class Steep(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(6 * x)


class Flat(nn.Module):
    """The same values, and no slope anywhere."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(x).detach() + 0 * x.sum()
        return logits


def bfloat16(*_: object) -> Precision:
    return Precision("bf16-mixed", torch.channels_last, torch.float32)


@pytest.mark.slow
def test_the_verdicts_are_those_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each broken example is broken in float32; at most one in fifty is found by one of the two alone."""
    monkeypatch.setattr("unperturbed.evaluation.search.choose", bfloat16)
    torch.manual_seed(0)
    model = network("norm").eval()
    x = torch.randn(150, 2, 4, 4)
    with torch.no_grad():
        model[-1].bias -= model(x).mean(0)  # else one class takes them all
    y = model(x).argmax(1)
    assert y.bincount().amax() < 120
    both = [evaluate(model, (x, y), Threat("Linf", 0.1, None), QUICK, precision=p) for p in ("auto", "32")]  # type: ignore[arg-type]
    assert [outcome.environment["search"] for outcome in both] == ["bfloat16", "float32"]
    for outcome in both:
        rows = [row for row, verdict in enumerate(outcome.examples["verdict"]) if verdict == "broken"]
        assert (model(outcome.adversarial).argmax(1) != y[rows]).all() and outcome.counts["unknown"] == 0
        assert Threat("Linf", 0.1, None).contains(x[rows], outcome.adversarial).all()
    differ = sum(a != b for a, b in zip(*(outcome.examples["verdict"] for outcome in both), strict=True))
    assert differ <= 3 and 10 < both[0].counts["broken"] < 140


def searched(model: nn.Module, x: torch.Tensor) -> Networks:
    checked = check_model(model, as_split((x.float(), torch.zeros(len(x), dtype=torch.int64))), THREAT, 0)
    return as_searched(checked, precision_of_search(checked, "auto"), 8)


def test_a_network_that_does_not_know_bfloat16_is_searched_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            maps = self.conv(x)
            if maps.dtype != torch.float32:
                raise RuntimeError("not implemented for 'BFloat16'")
            logits: torch.Tensor = maps.mean((2, 3))
            return logits

    monkeypatch.setattr("unperturbed.evaluation.search.choose", bfloat16)
    x = torch.rand(5, 3, 4, 4)
    assert searched(Picky(), x).rough is None
    assert searched(network("norm").eval(), x[:, :2]).rough is not None
    assert searched(network("norm").eval().double(), x[:, :2].double()).rough is None
