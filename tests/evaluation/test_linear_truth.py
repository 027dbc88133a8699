"""On linear classifiers the robust accuracy is known: the suite must find exactly that."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from support.rounding import round_alike
from support.shares import first
from support.toys import QUICK, SHORT, blobs, linear, mlp, uniform, wavy
from unperturbed.attacks.gradient import Suite
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.block import attack_block, untouched
from unperturbed.evaluation.search import TIE, Networks
from unperturbed.findings import Outcome
from unperturbed.losses import margin
from unperturbed.suites.by_name import suite_with_gate
from unperturbed.suites.fast import FAST
from unperturbed.suites.pgd import PGD_SUITE
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Labels, Norm

UNCHECKED = suite_with_gate(FAST, gate=False, estimate=None)
NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
EPS: dict[Norm, float] = {"Linf": 0.05, "L2": 0.12, "L1": 0.25}


def gain(norm: Norm, eps: float, slope: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Return max <slope, d> over ‖d‖ <= eps, 0 <= d_i sign(slope_i) <= room_i, per example, in closed form."""
    size = np.abs(slope)
    if norm == "Linf":
        return np.asarray((size * np.minimum(room, eps)).sum(1))
    if norm == "L2":
        assert (room >= eps).all()
        return np.asarray(eps * np.sqrt((size**2).sum(1)))
    order = np.argsort(-size, axis=1)
    size, room = np.take_along_axis(size, order, 1), np.take_along_axis(room, order, 1)
    spent = np.minimum(np.maximum(eps - (room.cumsum(1) - room), 0), room)
    return np.asarray((size * spent).sum(1))


def worst_margins(model: nn.Linear, x: Inputs, y: Labels, threat: Threat) -> np.ndarray:
    """Return the largest margin over S(x): every other class's linear score, maximised over ball and box."""
    weight, bias = model.weight.detach().double().numpy(), model.bias.detach().double().numpy()
    z, labels = x.double().numpy(), y.numpy()
    worst = np.full(len(z), -np.inf)
    for j in range(len(weight)):
        slope = weight[j] - weight[labels]
        room = np.where(slope > 0, 1 - z, z)
        value = (slope * z).sum(1) + bias[j] - bias[labels] + gain(threat.norm, threat.eps, slope, room)
        worst = np.where(labels == j, worst, np.maximum(worst, value))
    return worst


def labelled(model: nn.Linear, x: Inputs) -> Labels:
    """Return the model's labels, wrong for a tenth of the examples."""
    y = model(x).argmax(1)
    return torch.where(torch.arange(len(x)) % 10 == 0, (y + 1) % model.out_features, y)


def assert_true(outcome: Outcome, model: nn.Linear, x: Inputs, y: Labels, threat: Threat) -> None:
    worst = worst_margins(model, x, y, threat)
    wrong = (model(x).argmax(1) != y).numpy()
    truth = np.where(wrong, "misclassified", np.where(worst > 0, "broken", "survived"))
    assert outcome.examples["verdict"] == truth.tolist()
    assert all((truth == verdict).sum() > 5 for verdict in ("misclassified", "broken", "survived"))
    assert outcome.robust_accuracy.value == (truth == "survived").mean()
    assert (np.array(outcome.examples["margin"])[~wrong] <= worst[~wrong] + 1e-5).all()
    if model.out_features == 2:  # more classes have more local maxima
        survived = truth == "survived"
        np.testing.assert_allclose(np.array(outcome.examples["margin"])[survived], worst[survived], atol=4e-3)


def away_from_ties(model: nn.Linear, x: Inputs, threat: Threat, least: float) -> tuple[Inputs, Labels]:
    y = labelled(model, x)
    keep = torch.from_numpy(np.abs(worst_margins(model, x, y, threat)) > least)
    return x[keep], y[keep]


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", first(1, [4, 2]))
@pytest.mark.parametrize("suite", [PGD_SUITE, UNCHECKED], ids=lambda suite: suite.name)
def test_the_verdicts_are_the_truth(norm: Norm, classes: int, suite: Suite) -> None:
    threat, model = Threat(norm, EPS[norm]), linear(8, classes, seed=3)
    x, y = away_from_ties(model, uniform(150, 8, seed=1, low=0.25, high=0.75), threat, 5e-3)
    assert_true(evaluate(model, (x, y), threat, suite), model, x, y, threat)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["Linf", "L1"])
def test_the_verdicts_are_the_truth_where_the_box_cuts_the_ball(norm: Norm) -> None:
    threat, model = Threat(norm, 3 * EPS[norm]), linear(8, seed=5)
    x = torch.where(uniform(100, 8, seed=2) < 0.5, uniform(100, 8, seed=3), uniform(100, 8, seed=4).round())
    x, y = away_from_ties(model, x, threat, 5e-3)
    assert ((x == 0) | (x == 1)).float().mean() > 0.4
    assert_true(evaluate(model, (x, y), threat, "pgd"), model, x, y, threat)


def test_without_a_budget_robust_is_clean() -> None:
    model, x = linear(8), uniform(60, 8)
    y = labelled(model, x)
    for norm in NORMS:
        outcome = evaluate(model, (x, y), Threat(norm, 0.0), QUICK)
        assert outcome.counts == {"misclassified": 6, "broken": 0, "survived": 54, "unknown": 0}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.rounding
@pytest.mark.parametrize("norm", first(1, NORMS))
@pytest.mark.parametrize("suite", first(1, [QUICK, *SHORT]), ids=lambda suite: suite.name)
def test_verdicts_do_not_depend_on_the_batch_size(suite: Suite, norm: Norm) -> None:
    """Float32 rounds differently at another physical size; only an example within 1e-4 of a tie may turn with it."""
    x, model = uniform(40, 8, seed=6), wavy()
    y = model(x).argmax(1)
    outcomes = [evaluate(model, (x, y), Threat(norm, EPS[norm]), suite, batch_size=size) for size in (1, 7, 64)]
    assert [outcome.environment["batch_size"] for outcome in outcomes] == [1, 8, 64]
    verdicts = np.array([outcome.examples["verdict"] for outcome in outcomes])
    close = (np.abs([outcome.examples["margin"] for outcome in outcomes]) <= TIE).any(0)
    assert (verdicts == verdicts[0])[:, ~close].all()
    assert close.sum() <= sum(outcome.ties for outcome in outcomes) and close.sum() < 5
    assert outcomes[0].counts["broken"] > 2 and outcomes[0].counts["survived"] > 2


@pytest.mark.slow
@pytest.mark.rounding
@pytest.mark.parametrize("norm", NORMS)
def test_results_are_the_same_in_any_order(norm: Norm) -> None:
    """In every bit where the network rounds rows alike; elsewhere verdicts, except for ties."""
    x, model = uniform(60, 8, seed=6), wavy().eval()
    y = model(x).argmax(1)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    threat = Threat(norm, EPS[norm])

    def block(rows: Labels) -> tuple[list[str], torch.Tensor, torch.Tensor]:
        result = untouched(model, Batch(x[rows], y[rows], rows), 16, 0)
        for _ in QUICK.attacks:
            attack_block(Networks(model, model, None, 16), result, threat, QUICK, 0)
        return list(result.verdicts()), result.z, result.margin

    straight, shuffled = block(torch.arange(60)), block(order)
    assert len(set(shuffled[0])) == 2
    if round_alike(model, x, 16, 60):
        assert torch.equal(straight[1][order], shuffled[1]) and torch.equal(straight[2][order], shuffled[2])
        assert [straight[0][i] for i in order] == shuffled[0]
    else:
        assert_same_verdicts([straight[0][i] for i in order], straight[2][order], shuffled[0], shuffled[2])


def assert_same_verdicts(verdicts: list[str], margins: Tensor, others: list[str], other_margins: Tensor) -> None:
    """Assert the same verdict of every example but for ties, of which there are few."""
    ties = torch.minimum(margins.abs(), other_margins.abs()) <= TIE
    assert all(a == b or tie for a, b, tie in zip(verdicts, others, ties.tolist(), strict=True))
    assert ties.sum() < len(ties) / 8


@pytest.mark.slow
@pytest.mark.rounding
def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    x, model, threat = uniform(60, 8, seed=6), wavy(), Threat("L2", 0.12)
    y = model(x).argmax(1)
    whole = evaluate(model, (x, y), threat, QUICK, batch_size=16)
    monkeypatch.setattr("unperturbed.evaluation.measurement.BLOCK", 13)
    parts = evaluate(model, (x, y), threat, QUICK, batch_size=16)
    if round_alike(model, x, 16, 60):
        assert parts.examples == whole.examples and parts.counts == whole.counts
        assert torch.equal(parts.adversarial, whole.adversarial)
        assert [a.broken for a in parts.attacks] == [a.broken for a in whole.attacks]
    else:
        tables = (whole.examples, parts.examples)
        found, others = ((table["verdict"], torch.tensor(table["margin"])) for table in tables)
        assert_same_verdicts(*found, *others)


def test_a_network_in_float64_is_evaluated_in_float64() -> None:
    x, y = blobs(40, seed=2)
    model = mlp(6, 3).double()
    outcome = evaluate(model, (x, y), Threat("Linf", 0.05), QUICK)
    assert outcome.environment["precision"] == "float64" and outcome.adversarial.dtype == torch.float64
    rows = [i for i, verdict in enumerate(outcome.examples["verdict"]) if verdict == "broken"]
    assert len(rows) > 3
    margins = margin(model(outcome.adversarial), y[rows])
    torch.testing.assert_close(margins.tolist(), [outcome.examples["margin"][i] for i in rows], rtol=1e-12, atol=1e-12)


class Paired(nn.Module):
    """Returns its logits in company, as a tuple or by name."""

    def __init__(self, inner: nn.Module, named: bool) -> None:
        super().__init__()
        self.inner, self.named = inner, named

    def forward(self, x: Inputs) -> object:
        logits = self.inner(x)
        return {"logits": logits, "features": x} if self.named else (logits, x)


@pytest.mark.parametrize("named", [True, False])
def test_logits_in_company_are_found(named: bool) -> None:
    data, model = blobs(40, seed=2), mlp(6, 3)
    expected = evaluate(model, data, Threat("Linf", 0.05), QUICK)
    assert evaluate(Paired(model, named), data, Threat("Linf", 0.05), QUICK).examples == expected.examples


def test_the_suite_is_as_published() -> None:
    """50 steps of 2.5 eps / 50 from a random start, 10 restarts on the cross-entropy and 10 on the margin."""
    assert [(a.label, a.ascent.steps, a.restarts) for a in PGD_SUITE.attacks] == [
        ("PGD-CE", 50, 10), ("PGD-margin", 50, 10)
    ]  # fmt: skip
    assert all(a.ascent.random_start and a.ascent.step_size is None for a in PGD_SUITE.attacks)
    assert PGD_SUITE.note == "upper bound only: no AutoAttack"
