"""The dual variable against a saddle point that scipy finds, and against its rule typed again."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from scipy.optimize import minimize
from torch import Tensor, nn

from support.examples import make_batch, network, noise_for
from support.toys import Stopped, blobs, equal, mlp, state, stop_at, without_seconds
from unperturbed import runs
from unperturbed.errors import InputError
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.awp import AWP
from unperturbed.methods.base import EpochEnd, Method
from unperturbed.methods.constrained import Constrained
from unperturbed.methods.dale import DALE, DALEKL, DALELaplacian
from unperturbed.methods.elle import ELLE_A
from unperturbed.methods.erm import ERM
from unperturbed.methods.free import Free
from unperturbed.methods.llr import LLR
from unperturbed.methods.trades import TRADES
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import InPrecision
from unperturbed.specs.spec import describe
from unperturbed.threat import Threat
from unperturbed.training import checkpoint
from unperturbed.training.loop import train
from unperturbed.training.recipe import Recipe
from unperturbed.training.step import optimisation_step
from unperturbed.types import Batch, Inner, Terms

THREAT = Threat("Linf", 0.1)
BATCH = make_batch(8, torch.float64)
FGSM = PGD(steps=1, step_size=1.0, random_start=False)
"""Exact on linear models."""


def steps(method: Method, model: nn.Module, batch: Batch, threat: Threat, count: int, lr: float) -> Inner:
    fabric = Fabric(accelerator="cpu", devices=1)
    wrapped, optimiser = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=lr))
    attacked, noise = InPrecision(model), noise_for(batch)
    for _ in range(count):
        _, inner = optimisation_step(fabric, attacked, wrapped, optimiser, method, batch, threat, noise)
    return inner


# A convex problem


def gaussians() -> Batch:
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 2
    centre = torch.tensor([1.0, 0.4], dtype=torch.float64) * (2 * y[:, None] - 1)
    x = centre + torch.randn(200, 2, generator=draw, dtype=torch.float64)
    return Batch(x, y, torch.arange(200))


def saddle(batch: Batch, eps: float, limit: float, exchanged: bool) -> tuple[np.ndarray, float]:
    """Return scipy's weights for min R s.t. N <= rho (or exchanged), and the multiplier from stationarity.

    f = <w, x> + b; the robust loss of logistic regression is the logistic loss at the margin less eps |w|_1.
    """
    x, sign = batch.x.numpy(), 2.0 * batch.y.numpy() - 1

    def losses(v: np.ndarray) -> tuple[float, float]:
        margins = sign * (x @ v[:2] + v[2])
        return (
            float(np.logaddexp(0, -margins).mean()),
            float(np.logaddexp(0, -margins + eps * np.abs(v[:2]).sum()).mean()),
        )

    def slopes(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        margins = sign * (x @ v[:2] + v[2])
        made = []
        for less in (0.0, eps):
            weight = -1 / (1 + np.exp(margins - less * np.abs(v[:2]).sum()))
            by_margin = sign[:, None] * np.hstack([x, np.ones((len(x), 1))])
            by_margin = by_margin - less * np.append(np.sign(v[:2]), 0.0)
            made.append((weight[:, None] * by_margin).mean(0))
        return made[0], made[1]

    goal, bound = (0, 1) if exchanged else (1, 0)
    found = minimize(
        lambda v: losses(v)[goal], np.array([0.5, 0.2, 0.0]), jac=lambda v: slopes(v)[goal], method="SLSQP",
        constraints={"type": "ineq", "fun": lambda v: limit - losses(v)[bound], "jac": lambda v: -slopes(v)[bound]},
        options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    assert found.success and abs(losses(found.x)[bound] - limit) < 1e-6, "the limit is active"
    g, h = slopes(found.x)[goal], slopes(found.x)[bound]
    multiplier = -float(g @ h) / float(h @ h)
    assert np.linalg.norm(g + multiplier * h) < 1e-4, "a saddle point"
    return found.x, multiplier


def logistic() -> nn.Linear:
    model = nn.Linear(2, 2).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-0.2, -0.1], [0.2, 0.1]]))
        model.bias.zero_()
    return model


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("exchanged", [False, True])
def test_the_dual_variable_converges_to_the_multiplier(exchanged: bool) -> None:
    """Logistic regression on two Gaussians under Linf: weights and multiplier agree with scipy's."""
    batch, eps = gaussians(), 0.5
    limit = 0.62 if exchanged else 0.37
    limits: dict[str, Any] = {"method_loss": limit} if exchanged else {"nominal_loss": limit}
    expected, multiplier = saddle(batch, eps, limit, exchanged)
    assert multiplier > 0.1
    model, method = logistic(), Constrained(AT(FGSM), dual_step=0.2, wait=0, dual_max=20, **limits)
    steps(method, model, batch, Threat("Linf", eps, None), 500, 3.0)
    assert abs(float(method.dual) / multiplier - 1) < 0.005
    weights = torch.cat([model.weight[1] - model.weight[0], (model.bias[1] - model.bias[0])[None]]).detach().numpy()
    np.testing.assert_allclose(weights, expected, atol=0.002)
    method.after_epoch(EpochEnd(0.0, 100, 1.0))
    assert method.conclude()[0].startswith("Feasible")


def test_an_idle_limit_lets_the_dual_variable_go_to_zero() -> None:
    method = Constrained(AT(FGSM), nominal_loss=0.9, dual_step=0.1, wait=0)
    steps(method, logistic(), gaussians(), Threat("Linf", 0.5, None), 100, 1.0)
    assert float(method.dual) == 0
    method.after_epoch(EpochEnd(0.0, 100, 1.0))
    assert "Feasible" in method.conclude()[0] and "ended at 0 (" in method.conclude()[0]


@pytest.mark.slow
def test_a_limit_that_cannot_be_met_is_said_and_stays_finite() -> None:
    model, method = logistic(), Constrained(AT(FGSM), nominal_loss=0.01, dual_step=0.5, wait=0, dual_max=6.0)
    steps(method, model, gaussians(), Threat("Linf", 0.5, None), 200, 0.1)
    assert float(method.dual) == 6.0 and all(w.isfinite().all() for w in model.parameters())
    method.after_epoch(EpochEnd(0.0, 100, 1.0))
    (text,) = method.conclude()
    assert text.startswith("Not feasible") and "beyond its limit of 0.01" in text and "dual_max" in text


# The rule, by hand


def once(method: Constrained, seen: float, threat: Threat = THREAT) -> float:
    """Return the dual variable after a step in which the limited loss was `seen`."""
    inner = Inner(BATCH.x, log={method._limited: torch.full((8,), seen), "slack": torch.zeros(8)})
    method.after_step(BATCH, inner, {}, threat)
    return float(method.dual)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [(0.5, 1.0), (0.6, 1.02), (0.25, 0.95), (0.0, 0.9), (3.0, 1.1)],  # the last one counts as twice the limit
)
def test_the_dual_variable_grows_where_the_limit_is_broken_and_only_there(seen: float, expected: float) -> None:
    assert once(Constrained(ERM(), nominal_loss=0.5, dual_step=0.1, wait=0), seen) == pytest.approx(expected)


def test_it_stays_between_zero_and_its_upper_bound() -> None:
    low, high = (Constrained(ERM(), nominal_loss=0.5, dual_step=0.7, wait=0, dual_max=2.0) for _ in range(2))
    for _ in range(5):
        assert once(low, 0.0) >= 0 and once(high, 9.0) <= 2
    assert float(low.dual) == 0 and float(high.dual) == 2
    assert once(low, 9.0) == pytest.approx(0.7), "it comes back from there"


@pytest.mark.parametrize(("wait", "waiting"), [(0.0, 0), (0.25, 1), (0.5, 2), (0.6, 3)])
@pytest.mark.parametrize("every", ["batch", "epoch"])
def test_it_waits_for_the_share_of_the_run_that_it_is_told(every: Any, wait: float, waiting: int) -> None:
    method = Constrained(ERM(), nominal_loss=0.5, dual_step=0.1, dual_max=20, every=every, wait=wait)
    expected = 1.0
    for epoch in range(4):
        moves = epoch >= waiting
        expected += 0.1 if moves and every == "batch" else 0.0
        assert once(method, 9.0) == pytest.approx(expected), epoch
        method.after_epoch(EpochEnd(0.0, 100, (epoch + 1) / 4))
        expected += 3 * 0.1 if moves and every == "epoch" else 0.0
        assert float(method.dual) == pytest.approx(expected), epoch
        assert float(method.seen) == 9.0, "the limited loss is followed all the same"


def test_per_epoch_it_moves_once_by_the_mean() -> None:
    by_epoch = Constrained(ERM(), nominal_loss=0.5, dual_step=0.1, every="epoch", wait=0)
    for seen in (0.4, 0.9, 0.35):
        assert once(by_epoch, seen) == 1.0
    by_epoch.after_epoch(EpochEnd(0.3, 100, 1.0))
    mean = (0.4 + 0.9 + 0.35) / 3
    assert float(by_epoch.dual) == pytest.approx(1 + 3 * 0.1 * (mean - 0.5) / 0.5)
    assert float(by_epoch.seen) == pytest.approx(mean) and float(by_epoch.total) == 0
    once(by_epoch, 0.5)
    by_epoch.after_epoch(EpochEnd(0.3, 100, 1.0))
    assert float(by_epoch.seen) == pytest.approx(0.5), "each epoch begins anew"


def test_a_limit_on_accuracy_follows_the_error_rate_once_an_epoch() -> None:
    method = Constrained(ERM(), nominal_accuracy=0.9, dual_step=0.1, wait=0)
    assert once(method, 7.0) == 1.0 and once(method, 0.0) == 1.0
    method.after_epoch(EpochEnd(0.85, 100, 1.0))  # an error rate of 0.15, half as much again as allowed
    assert float(method.dual) == pytest.approx(1 + 3 * 0.1 * 0.5)
    assert "Not feasible" in method.conclude()[0] and "85.00%" in method.conclude()[0]
    once(method, 7.0)
    method.after_epoch(EpochEnd(0.95, 100, 1.0))
    assert float(method.dual) == pytest.approx(1.0, rel=1e-5)
    assert method.conclude()[0].startswith("Feasible: The clean accuracy, 95.00%")


def test_within_five_percent_counts_as_met() -> None:
    for seen, begins in ((0.524, "Feasible"), (0.53, "Not feasible")):
        method = Constrained(ERM(), nominal_loss=0.5)
        once(method, seen)
        method.after_epoch(EpochEnd(0.0, 100, 1.0))
        assert method.conclude()[0].startswith(begins)
    assert "not known" in Constrained(ERM(), nominal_loss=0.5).conclude()[0]


def test_a_loss_beyond_its_limit_that_counts_as_met_names_the_tolerance() -> None:
    method = Constrained(ERM(), nominal_loss=0.5)
    once(method, 0.52)
    method.after_epoch(EpochEnd(0.0, 100, 1.0))
    (text,) = method.conclude()
    assert (
        text.startswith("Feasible: ") and "(4.0%) beyond its limit of 0.5, a distance that the tolerance of 5%" in text
    )


@pytest.mark.parametrize("seen", [0.4, 0.6])
def test_losses_of_the_steps_do_not_judge_a_running_average(seen: float) -> None:
    method = Constrained(ERM(), nominal_loss=0.5)
    once(method, seen)
    method.after_epoch(EpochEnd(0.0, 100, 1.0, averaged=True))
    assert method.feasible() is None and "whether it meets the limit is not known" in method.conclude()[0]
    limited = Constrained(ERM(), nominal_accuracy=0.9)
    limited.after_epoch(EpochEnd(seen, 40, 1.0, averaged=True))
    assert limited.feasible() is False and f"{seen:.2%} of 40 examples" in limited.conclude()[0]


@pytest.mark.parametrize("wrap", [Constrained, AWP])
@pytest.mark.parametrize("inner", [0.1, AT, "at", None])
def test_only_a_method_is_wrapped(wrap: Any, inner: Any, unchecked: None) -> None:
    with pytest.raises(InputError, match="give a method, such as AT"):
        wrap(inner)


def test_what_is_printed_has_the_method_and_the_limit() -> None:
    assert repr(Constrained(TRADES(beta=3.0), nominal_accuracy=0.9)).startswith("Constrained(TRADES(beta=3.0")
    assert "nominal_accuracy=0.9" in repr(Constrained(TRADES(), nominal_accuracy=0.9))
    assert repr(Constrained(ELLE_A(), nominal_loss=0.5)).startswith("Constrained(\n  nominal_loss=0.5\n")


def test_it_is_feasible_where_its_sentence_says_so() -> None:
    def after(seen: float, **limits: Any) -> Constrained:
        method = Constrained(ERM(), **limits)
        assert not method.feasible(), "no epoch was finished"
        once(method, seen)
        method.after_epoch(EpochEnd(seen, 100, 0.1))
        return method

    cases = [after(seen, nominal_loss=0.5) for seen in (0.4, 0.5, 0.524, 0.53)]
    cases += [after(seen, method_loss=0.5) for seen in (0.524, 0.53)]
    cases += [after(seen, nominal_accuracy=0.95) for seen in (0.96, 0.95, 0.949)]
    assert [each.feasible() for each in cases] == [True, True, True, False, True, False, True, True, False]
    assert all(each.conclude()[0].startswith("Feasible") == each.feasible() for each in cases)
    assert [AWP(each).feasible() for each in cases] == [each.feasible() for each in cases]


@pytest.mark.parametrize(("seen", "dual", "settled"), [(0.2, 1.0, False), (0.2, 0.0, True), (0.49, 1.0, True)])
def test_a_dual_variable_above_0_with_slack_left_has_not_settled(seen: float, dual: float, settled: bool) -> None:
    """Complementary slackness: at a saddle point one of the two is 0."""
    method = Constrained(ERM(), nominal_loss=0.5, dual_start=dual, dual_step=0.1, wait=0)
    once(method, seen)
    method.after_epoch(EpochEnd(0.0, 100, 1.0))
    (text,) = method.conclude()
    assert text.startswith("Feasible") and ("still falling" not in text) == settled


@pytest.mark.parametrize("options", [{"wait": 0.5}, {"wait": 0.0, "dual_step": 0.0}])
def test_a_dual_variable_that_did_not_move_is_not_called_falling(options: dict[str, Any]) -> None:
    method = Constrained(ERM(), nominal_loss=0.5, **options)
    once(method, 0.2)
    method.after_epoch(EpochEnd(0.0, 100, 1.0))
    assert "ended at 1 " in method.conclude()[0] and "did not move" in method.conclude()[0]
    assert "falling" not in method.conclude()[0]


def test_a_dual_variable_that_rose_with_slack_left_is_called_rising() -> None:
    method = Constrained(ERM(), nominal_loss=0.5, dual_step=0.1, wait=0)
    for seen in (0.0, 0.0, 0.9):  # 0.8 after the first two
        once(method, seen)
    method.after_epoch(EpochEnd(0.0, 100, 0.5))
    assert "still falling" in method.conclude()[0]
    for seen in (0.9, 0.0, 0.48):
        once(method, seen)
    method.began = method.dual - 0.01
    method.after_epoch(EpochEnd(0.0, 100, 1.0))
    assert method.conclude()[0].startswith("Feasible") and "still rising" in method.conclude()[0]


def test_a_limit_on_the_methods_terms_is_not_met_at_a_smaller_eps() -> None:
    """While eps grows, the terms are those of an easier task; the clean loss is the same task all the time."""
    terms, clean = Constrained(AT(), method_loss=0.5), Constrained(AT(), nominal_loss=0.5)
    for method in (terms, clean):
        for eps in (0.05, 0.06):
            once(method, 0.2, Threat("Linf", eps))
        method.after_epoch(EpochEnd(0.9, 100, 0.5))
    assert not terms.feasible() and "eps still grew" in terms.conclude()[0]
    assert clean.feasible() and clean.conclude()[0].startswith("Feasible")
    for _ in range(2):
        once(terms, 0.2)
    terms.after_epoch(EpochEnd(0.9, 100, 1.0))
    assert terms.feasible() and terms.conclude()[0].startswith("Feasible")


def test_a_dual_variable_that_leaves_0_with_the_noise_of_batches_is_not_called_falling() -> None:
    method = Constrained(ERM(), nominal_loss=0.5, dual_start=0.0, dual_step=0.1, wait=0)
    for seen in (0.3, 0.6, 0.3, 0.3, 0.6):  # 0, 0.02, 0, 0, 0.02: it is 0 in four of the five batches
        once(method, seen)
    method.after_epoch(EpochEnd(0.0, 100, 1.0))
    (text,) = method.conclude()
    assert float(method.dual) == pytest.approx(0.02) and "and was 0 in 80% of its batches" in text
    assert "does not bind" in text and "falling" not in text
    once(method, 2.0)  # 0.12
    method.after_epoch(EpochEnd(0.0, 100, 1.0))
    once(method, 0.3)
    method.after_epoch(EpochEnd(0.0, 100, 1.0))
    assert float(method.idle) == 0 and "still falling" in method.conclude()[0], "each epoch begins anew"


# The terms


def terms_of(method: Method, model: nn.Module) -> tuple[Terms, Inner]:
    with under_attack(model):
        inner = method.perturb(model, BATCH, THREAT, noise_for(BATCH))
    terms = method.loss(model, BATCH, inner, THREAT, noise_for(BATCH))
    torch.stack(list(terms.values())).sum().backward()
    return {name: term.detach() for name, term in terms.items()}, inner


@pytest.mark.parametrize("method", [TRADES(), LLR(), DALE(weight=0.5), DALELaplacian(weight=0.5), DALEKL()])
def test_the_terms_are_the_lagrangian(method: Method) -> None:
    model = network("plain", torch.float64)
    own, _ = terms_of(method, model)
    nominal = cross_entropy(model(BATCH.x), BATCH.y).mean().detach()

    terms, inner = terms_of(Constrained(method, nominal_loss=0.3, dual_start=1.7), model)
    assert {name: float(terms[name]) for name in own} == pytest.approx({name: float(own[name]) for name in own})
    assert sum(map(float, terms.values())) == pytest.approx(
        sum(map(float, own.values())) + 1.7 * (float(nominal) - 0.3)
    )
    assert float(terms["constraint"]) == pytest.approx(1.7 * (float(nominal) - 0.3))
    assert float(inner.log["slack"].mean()) == pytest.approx(0.3 - float(nominal))
    assert float(inner.log["dual"].mean()) == pytest.approx(1.7)

    total = sum(float(term) for term in own.values())
    terms, inner = terms_of(Constrained(method, method_loss=0.4, dual_start=1.7), model)
    assert terms.keys() == {*own, "constraint"}
    assert sum(map(float, terms.values())) == pytest.approx(float(nominal) + 1.7 * (total - 0.4))
    assert float(inner.log["method_loss"].mean()) == pytest.approx(total)

    terms, _ = terms_of(Constrained(method, nominal_accuracy=0.9, dual_start=1.7), model)
    assert float(terms["constraint"]) == pytest.approx(1.7 * float(nominal))


@pytest.mark.parametrize("limits", [{"nominal_loss": 0.3}, {"method_loss": 0.4}])
def test_the_method_is_handed_all_of_its_own_terms_and_no_other(limits: dict[str, float]) -> None:
    handed: list[Terms] = []

    class Watched(DALE):
        def after_step(self, batch: Batch, inner: Inner, terms: Terms, threat: Threat) -> None:
            handed.append(terms)

    steps(Constrained(Watched(weight=0.5), **limits), network("plain", torch.float64), BATCH, THREAT, 1, 0.1)
    assert handed[0].keys() == {"sampled", "nominal"}


def test_a_name_that_both_use_is_refused() -> None:
    class Term(ERM):
        def loss(self, *given: Any) -> Terms:
            return {"constraint": super().loss(*given)["clean"]}

    class Log(ERM):
        def perturb(self, *given: Any) -> Inner:
            inner = super().perturb(*given)
            return Inner(inner.z, log={"slack": torch.zeros(8)})

    for kind, name in ((Term, "constraint"), (Log, "slack")):
        with pytest.raises(InputError, match=name):
            terms_of(Constrained(kind()), network("plain", torch.float64))


@pytest.mark.parametrize("limits", [{"nominal_loss": 0.3}, {"method_loss": 0.4}])
def test_the_nominal_loss_is_of_the_labels_where_targets_are_smoothed(limits: dict[str, float]) -> None:
    model, method = network("plain", torch.float64), Constrained(ERM(), dual_start=1.7, **limits)
    smooth = nn.functional.one_hot(BATCH.y, 3) * 0.7 + 0.1
    batch = Batch(BATCH.x, BATCH.y, BATCH.ids, smooth.double())
    inner = method.perturb(model, batch, THREAT, noise_for(batch))
    terms = method.loss(model, batch, inner, THREAT, noise_for(batch))
    logits = model(batch.x).detach()
    nominal, trained = (float(cross_entropy(logits, y).mean()) for y in (batch.y, batch.targets))
    assert abs(nominal - trained) > 1e-3
    exchanged = nominal + 1.7 * (trained - 0.4), trained + 1.7 * (nominal - 0.3)
    assert float(sum(terms.values()).detach()) == pytest.approx(exchanged["nominal_loss" in limits])


def test_no_gradient_moves_the_dual_variable() -> None:
    model, method = network("plain", torch.float64), Constrained(AT(), nominal_loss=0.3)
    terms_of(method, model)
    assert not method.dual.requires_grad and method.dual.grad is None and not list(method.parameters())


def test_the_inner_methods_memory_moves_and_sees_its_own_terms() -> None:
    """Also under an exchanged limit, whose dual variable scales what ELLE-A does not look at."""
    for limits in ({"nominal_loss": 0.3}, {"method_loss": 2.0}):
        method, alone = Constrained(ELLE_A(), **limits), ELLE_A()
        for each in (method, alone):
            steps(each, network("plain", torch.float64), BATCH, THREAT, 1, 0.0)
        inner = method.method
        assert isinstance(inner, ELLE_A)
        torch.testing.assert_close(inner.mean, alone.mean)
        assert int(inner.count) == 1


def test_it_takes_over_the_inner_methods_repeats_and_ramp() -> None:
    assert (Constrained(Free()).repeats, Constrained(Free()).ramp) == (Free.repeats, Free.ramp)
    assert Constrained(ERM()).ramp == 0.0


def test_a_stronger_method_keeps_the_dual_variable() -> None:
    method = Constrained(AT(PGD(3)), nominal_loss=0.5, every="epoch", dual_max=7.0)
    method.dual = torch.tensor(2.5)
    stronger = method.stronger()
    assert isinstance(stronger, Constrained) and stronger.method == AT(PGD(6))
    assert float(stronger.dual) == 2.5 and (stronger.every, stronger.dual_max) == ("epoch", 7.0)
    other = Constrained(ELLE_A()).stronger()
    assert isinstance(other, Constrained) and other.method == AT(PGD(2))
    assert Constrained(ERM()).stronger() is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nominal_loss": 0.1, "nominal_accuracy": 0.9}, "only one of"),
        ({"nominal_accuracy": 97.0}, "nominal_accuracy is 97.0, but is a share"),
        ({"nominal_loss": -0.1}, "nominal_loss is -0.1"),
        ({"method_loss": math.inf}, "method_loss is inf"),
        ({"dual_step": -1.0}, "dual_step is -1.0"),
        ({"wait": 4}, "wait is 4, but is a share of the run"),
        ({"wait": math.nan}, "wait is nan"),
        ({"dual_start": 3.0, "dual_max": 2.0}, "dual_max is 2.0"),
        ({"method": Constrained()}, "limited a second time"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Constrained(**settings)


# In a run


def run(folder: Path, **options: Any) -> Any:
    method = Constrained(LLR(maximiser=PGD(2)), nominal_loss=0.6, every=options.pop("every", "batch"))
    recipe = Recipe(epochs=4, batch_size=18, checkpoint_minutes=1e-9)
    return train(mlp(6, 3), blobs(60), THREAT, method, recipe, out=folder, **options)


@pytest.mark.slow
@pytest.mark.parametrize("every", ["batch", "epoch"])
def test_a_run_logs_and_concludes_and_resumes_in_the_same_bits(every: str, tmp_path: Path) -> None:
    straight = run(tmp_path / "straight", every=every)
    assert straight.conclusions == tuple(json.loads((tmp_path / "straight" / runs.RESULT).read_text())["conclusions"])
    assert "nominal loss" in straight.conclusions[0]
    lines = runs.read_jsonl(tmp_path / "straight" / runs.METRICS)
    for line in lines:
        assert line["slack"] == pytest.approx(0.6 - line["nominal_loss"], abs=1e-5)
        assert line["dual"] >= 0 and line["method/nominal_loss"] > 0 and 0 <= line["dual_at_zero"] <= 1
    assert len({line["dual"] for line in lines}) > 1
    for stop in (2, 7):
        with pytest.raises(Stopped):
            run(tmp_path / "stopped", every=every, resume=stop > 2, progress=stop_at(stop))
    resumed = run(tmp_path / "stopped", every=every, resume=True)
    assert equal(state(resumed.model), state(straight.model)) and resumed.conclusions == straight.conclusions
    assert without_seconds(lines) == without_seconds(runs.read_jsonl(tmp_path / "stopped" / runs.METRICS))
    saved = [checkpoint.load(tmp_path / name / runs.CHECKPOINT)["own"]["memory"] for name in ("straight", "stopped")]
    assert "dual" in saved[0] and all(torch.equal(saved[0][name], saved[1][name]) for name in saved[0])


def test_a_clean_accuracy_reaches_the_dual_variable(tmp_path: Path) -> None:
    method = Constrained(AT(PGD(2)), nominal_accuracy=0.999, dual_step=0.05, wait=0, dual_max=20)
    ended = train(mlp(6, 3), blobs(60), THREAT, method, Recipe(epochs=2, batch_size=18), out=tmp_path).method
    assert isinstance(ended, Constrained) and float(method.dual) == 1.0, "the run is of a copy"
    probed = [line["probe/clean"] for line in runs.read_jsonl(tmp_path / runs.METRICS)]
    dual = 1.0
    for accuracy in probed:
        dual = min(max(dual + 3 * 0.05 * min((0.999 - accuracy) / 0.001, 1), 0.0), 20.0)
    assert float(ended.dual) == pytest.approx(dual, rel=1e-4) and float(ended.seen) == pytest.approx(probed[-1])


def test_another_inner_method_or_limit_is_another_run() -> None:
    cases = ((AT(PGD(3)), 0.1), (AT(PGD(4)), 0.1), (AT(PGD(3)), 0.2), (ELLE_A(), 0.1), (ELLE_A(10.0), 0.1))
    described = [describe(Constrained(method, nominal_loss=limit)) for method, limit in cases]
    assert len({str(each) for each in described}) == 5
    assert described[0]["init_args"]["method"]["init_args"]["maximiser"]["init_args"]["steps"] == 3


def test_the_memory_moves_to_the_device_wherever_it_is() -> None:
    method = Constrained(ELLE_A())
    checkpoint.move_memory(method, torch.device("meta"))
    buffers: list[Tensor] = [method.dual, method.seen, *method.method.buffers()]  # type: ignore[attr-defined]
    assert all(buffer.device.type == "meta" for buffer in buffers)
