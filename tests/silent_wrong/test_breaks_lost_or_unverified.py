"""The basis of a verdict: the worst restart (S10), the budget (S18), true labels (S19), a fresh forward (S22)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from support.toys import QUICK, Function, blobs, linear, mlp, uniform
from unperturbed.attacks.base import Attack, AttackResult
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.findings import Outcome
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Logits, Model, Norm

# Restarts (S10)


def pocket(x: Inputs) -> Logits:
    """Class 1 for z_0 in [0.5, 0.52], class 0 elsewhere; flat, so that only a start inside finds it."""
    inside = ((x[:, 0] > 0.5) & (x[:, 0] < 0.52)).to(x.dtype)
    return torch.stack([0.5 + 0 * x.sum(1), inside], dim=1)


def restarted(restarts: int, data: Any) -> Outcome:
    attack = GradientAttack("pocket", margin, PGD(steps=2), restarts)
    return evaluate(Function(pocket), data, Threat("Linf", 0.1), Suite("pocket", (attack,), "a test"))


def broken(outcome: Outcome) -> set[int]:
    return {i for i, v in zip(outcome.examples["id"], outcome.examples["verdict"], strict=True) if v == "broken"}


@pytest.mark.long
@pytest.mark.slow
def test_every_restart_counts_for_every_example_s10() -> None:
    """A start hits the pocket with probability 0.1: r restarts break 1 - 0.9^r, and never lose what fewer found."""
    x = uniform(600, 2, low=0.42, high=0.48)
    data = x, torch.zeros(600, dtype=torch.int64)
    outcomes = {restarts: restarted(restarts, data) for restarts in (1, 2, 5, 20)}
    for restarts, outcome in outcomes.items():
        expected = 1 - 0.9**restarts
        assert abs(outcome.counts["broken"] / 600 - expected) < 4 * (expected * (1 - expected) / 600) ** 0.5
        assert outcome.counts["broken"] + outcome.counts["survived"] == 600
    sets = [broken(outcome) for outcome in outcomes.values()]
    assert sets[0] < sets[1] < sets[2] < sets[3]


def test_the_best_iterate_of_all_restarts_is_kept_s10() -> None:
    x, y = blobs(120)
    model = mlp(6, 3, seed=1)
    margins = [
        np.array(
            evaluate(
                model, (x, y), Threat("L2", 0.05), Suite("s", (GradientAttack("a", margin, PGD(steps=2), r),), "")
            ).examples["margin"]
        )
        for r in (1, 2, 6)
    ]
    assert (margins[0] <= margins[1]).all() and (margins[1] <= margins[2]).all()
    assert (margins[0] < margins[2]).any()


# Budget and labels (S18, S19)


def lengths(norm: Norm, delta: np.ndarray) -> np.ndarray:
    flat = np.abs(delta.reshape(len(delta), -1))
    if norm == "Linf":
        return np.asarray(flat.max(1))
    return np.asarray(flat.sum(1) if norm == "L1" else np.sqrt((flat**2).sum(1)))


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.06), ("L2", 0.3), ("L1", 1.1)])
def test_written_inputs_keep_to_the_budget_and_fool_the_model_s18_s19(norm: Norm, eps: float, tmp_path: Path) -> None:
    x, y = blobs(150, d=16, seed=4)
    x = torch.where(x < 0.3, 0.0, torch.where(x > 0.7, 1.0, x))  # the box is active
    model = linear(16, 3, seed=2)
    y = torch.where(uniform(150, 1).flatten() < 0.8, model(x).argmax(1), y)
    before = x.clone(), y.clone()
    outcome = evaluate(model, (x, y), Threat(norm, eps), QUICK, out=tmp_path)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])
    table = parquet.read_table(tmp_path / "pgd/part-00000.parquet").to_pydict()
    z = load_file(tmp_path / "pgd/part-00000.safetensors")["adversarial"]
    rows = [i for i, verdict in enumerate(table["verdict"]) if verdict == "broken"]
    assert len(z) == len(rows) == outcome.counts["broken"] > 20

    delta = z.double().numpy() - x[rows].double().numpy()
    assert (lengths(norm, delta) <= eps * (1 + 1e-6) + 1e-7).all() and 0 <= float(z.min()) and float(z.max()) <= 1
    np.testing.assert_allclose(np.array(table["distance"])[rows], lengths(norm, delta), rtol=1e-5)

    assert z.dtype == torch.float32
    assert ((z * 255 - (z * 255).round()).abs() > 1e-2).float().mean() > 0.2  # not rounded to 8 bits
    assert (model(z).argmax(1) != y[rows]).all()
    np.testing.assert_allclose(margin(model(z), y[rows]).detach(), np.array(table["margin"])[rows], atol=1e-5)


@dataclass(frozen=True)
class Spy(Attack):
    """Does nothing, and remembers what it was asked."""

    seen: list[Batch]
    label: str = "spy"
    restarts: int = 1

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        self.seen.append(batch)
        n = len(batch.x)
        return AttackResult(
            batch.x, torch.full((n,), -1.0), torch.ones(n, dtype=torch.bool), torch.ones_like(batch.y), 0
        )


def test_attacks_are_given_the_true_labels_and_only_what_is_classified_correctly_s19() -> None:
    x, y = blobs(90)
    model = linear(6, 3, seed=2)
    correct = model(x).argmax(1) == y
    assert 5 < int(correct.sum()) < 85
    spy = Spy([])
    outcome = evaluate(model, (x, y), Threat("Linf", 0.1), Suite("spy", (spy,), ""))
    assert torch.equal(spy.seen[0].y, y[correct]) and torch.equal(spy.seen[0].x, x[correct])
    assert spy.seen[0].ids.tolist() == correct.nonzero().flatten().tolist()
    assert [v != "misclassified" for v in outcome.examples["verdict"]] == correct.tolist()
    assert outcome.clean_accuracy.value == int(correct.sum()) / 90 == outcome.robust_accuracy.value


# Verification (S22)


@dataclass(frozen=True)
class Liar(Attack):
    """Claims to have broken every example by moving it by `shift`."""

    shift: float
    label: str = "liar"
    restarts: int = 1

    def __post_init__(self) -> None:
        """Take any shift, NaN too."""

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        n = len(batch.x)
        z = batch.x + self.shift
        return AttackResult(z, torch.ones(n), torch.ones(n, dtype=torch.bool), torch.ones_like(batch.y), n)


def sum_model() -> nn.Module:
    """Return a classifier that says 1 where x_0 > 0.5."""
    return Function(lambda x: torch.stack([torch.full_like(x[:, 0], 0.5), x[:, 0]], dim=1))


def lie(shift: float, eps: float, x: Tensor) -> Outcome:
    data = x, torch.zeros(len(x), dtype=torch.int64)
    return evaluate(sum_model(), data, Threat("Linf", eps), Suite("liar", (Liar(shift),), ""))


def test_a_claim_that_a_fresh_forward_refutes_is_not_believed_s22() -> None:
    outcome = lie(0.1, 0.1, uniform(20, 2, low=0.2, high=0.3))
    assert outcome.counts == {"misclassified": 0, "broken": 0, "survived": 0, "unknown": 20}
    assert outcome.unverified == 20 and outcome.attacks[0].broken == 0 and len(outcome.adversarial) == 0
    assert any("20 successes claimed by an attack were refuted" in text for text in outcome.warnings)


@pytest.mark.parametrize(("shift", "eps"), [(0.3, 0.2), (0.3, 0.2999), (0.7, 1.0), (torch.nan, 0.2)])
def test_a_success_outside_the_ball_or_the_box_is_not_believed_s22(shift: float, eps: float) -> None:
    x = uniform(20, 2, low=0.4, high=0.45)
    outcome = lie(shift, eps, x)
    assert outcome.counts["unknown"] == outcome.unverified == 20
    assert torch.tensor(outcome.examples["margin"]).max() < 0


def test_the_same_success_inside_is_believed_s22() -> None:
    outcome = lie(0.3, 0.3, uniform(20, 2, low=0.4, high=0.45))
    assert outcome.counts["broken"] == 20 and outcome.unverified == 0
    assert not any("refuted" in text for text in outcome.warnings)


def test_a_model_with_constant_logits_is_not_robust_s22() -> None:
    """Its argmax is class 0 everywhere, so that ties would favour the label 0."""
    x, y = uniform(30, 3), torch.arange(30) % 3
    outcome = evaluate(
        Function(lambda x: torch.zeros(len(x), 3) + 0 * x.sum(1, keepdim=True)), (x, y), Threat("L2", 1), "pgd"
    )
    assert outcome.clean_accuracy.value == outcome.robust_accuracy.value == 0
    assert outcome.counts["misclassified"] == outcome.ties == 30


def test_a_tie_is_no_success_and_is_counted_s22() -> None:
    """The worst point of each example has exactly equal logits."""
    x = torch.full((16, 2), 0.25)
    model = Function(lambda x: torch.stack([torch.full_like(x[:, 0], 0.5), x[:, 0]], dim=1))
    outcome = evaluate(model, (x, torch.zeros(16, dtype=torch.int64)), Threat("Linf", 0.25), QUICK)
    assert outcome.counts["broken"] == 0 and outcome.ties == 16
    assert outcome.examples["margin"] == [0.0] * 16
    assert outcome.counts["unknown"] == 16 and outcome.robust_accuracy.value == 0, "nor is it robust"


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_a_break_that_only_company_brings_about_is_not_believed_s22(scale: float) -> None:
    """Each logit is a little off in company, as sums are that a larger batch splits otherwise; alone nothing breaks."""

    def logits(x: Tensor) -> Tensor:
        off = 1e-3 if len(x) > 1 else 0.0
        return scale * torch.stack([torch.full_like(x[:, 0], 0.5), x[:, 0] + off], dim=1)

    x, y = torch.full((20, 2), 0.3995), torch.zeros(20, dtype=torch.int64)
    suite = Suite("liar", (Liar(0.1),), "")
    outcome = evaluate(Function(logits), (x, y), Threat("Linf", 0.1), suite)
    assert outcome.counts["broken"] == 0 and outcome.unverified == outcome.counts["unknown"] == 20


@dataclass(frozen=True)
class Modest(Attack):
    """Breaks every example and does not say so."""

    label: str = "modest"
    restarts: int = 1

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        n = len(batch.x)
        return AttackResult(batch.x + 0.3, torch.zeros(n), torch.ones(n, dtype=torch.bool), torch.ones_like(batch.y), n)


def test_a_break_that_only_the_fresh_forward_sees_counts() -> None:
    data = uniform(20, 2, low=0.4, high=0.45), torch.zeros(20, dtype=torch.int64)
    outcome = evaluate(sum_model(), data, Threat("Linf", 0.3), Suite("modest", (Modest(),), ""))
    assert outcome.counts["broken"] == 20 and outcome.unverified == 0


def test_logits_that_round_to_ties_are_not_robust() -> None:
    """A last ReLU makes both logits 0 in a band around the boundary."""

    def logits(x: Tensor) -> Tensor:
        a = 10 * (x[:, 0] - 0.5)
        return torch.stack([(-a - 1).relu(), (a - 1).relu()], dim=1)

    x = uniform(200, 6)
    y = (x[:, 0] > 0.5).long()
    outcome = evaluate(Function(logits), (x, y), Threat("Linf", 0.2), QUICK)
    certain = int(((x[:, 0] - 0.5).abs() > 0.3).sum())
    assert outcome.counts["survived"] <= certain and outcome.counts["unknown"] > 0
