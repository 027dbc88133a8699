"""The input-gradient penalty against closed forms and its formulas, typed again here with plain autograd."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from support.examples import NORMS, Counted, assert_the_same_loss, losses_held, make_batch, network, noise_for, total
from unperturbed.errors import InputError
from unperturbed.methods.gradient_penalty import GradientPenalty
from unperturbed.networks.modes import under_attack
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Norm, Terms

BATCH = make_batch(6, torch.float64)
EPS: dict[Norm, float] = {"Linf": 0.2, "L2": 0.8, "L1": 3.0}
DUAL = {"Linf": 1, "L2": 2, "L1": torch.inf}
every_norm = pytest.mark.parametrize("norm", NORMS)


def terms_of(method: GradientPenalty, model: nn.Module, threat: Threat, batch: Batch = BATCH) -> Terms:
    with under_attack(model):
        inner = method.perturb(model, batch, threat, noise_for(batch))
    return method.loss(model, batch, inner, threat, noise_for(batch))


def losses(model: nn.Module, x: Tensor) -> Tensor:
    return losses_held(model, x, BATCH)


def direction(norm: Norm, g: Tensor) -> Tensor:
    """Return the vector of length 1 with the largest product with g."""
    if norm == "Linf":
        return g.sign()
    if norm == "L2":
        return g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    flat = g.flatten(1)
    best = flat.abs().argmax(1, keepdim=True)
    return torch.zeros_like(flat).scatter(1, best, flat.gather(1, best).sign()).view_as(g)


def agree(terms: Terms, expected: Tensor, model: nn.Module) -> None:
    assert_the_same_loss(total(terms), expected, model, 1e-9)


def own_gradient(model: nn.Module, *, graph: bool) -> Tensor:
    """Return each example's own gradient: the statistics are of BATCH.x, which is another tensor than x."""
    x = BATCH.x.clone().requires_grad_()
    (g,) = torch.autograd.grad(losses(model, x).sum(), x, create_graph=graph)
    return g


@every_norm
@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("net", ["plain", "norm"])
def test_exact_is_the_dual_norm_and_its_gradient_the_double_backward(norm: Norm, square: bool, net: str) -> None:
    model, eps = network(net, torch.float64), EPS[norm]
    terms = terms_of(GradientPenalty(weight=0.7, form="exact", square=square), model, Threat(norm, eps))
    growth = eps * torch.linalg.vector_norm(own_gradient(model, graph=True).flatten(1), DUAL[norm], dim=1)
    penalty = (growth**2 / 2 if square else growth).mean()
    assert penalty > 0.01
    agree(terms, losses(model, BATCH.x).mean() + 0.7 * penalty, model)


@every_norm
@pytest.mark.parametrize("form", ["forward", "central"])
@pytest.mark.parametrize("net", ["plain", "norm"])
def test_differences_are_their_formula_with_a_constant_direction(norm: Norm, form: str, net: str) -> None:
    """With batch norm the direction is that of the training forward's own gradient, which the batch couples."""
    model, eps, h = network(net, torch.float64), EPS[norm], 0.3
    terms = terms_of(GradientPenalty(weight=0.7, form=form, step=h), model, Threat(norm, eps))  # type: ignore[arg-type]
    x = BATCH.x.clone().requires_grad_()
    (g,) = torch.autograd.grad(functional.cross_entropy(model(x), BATCH.y, reduction="sum"), x)
    if net == "norm":
        assert (g - own_gradient(model, graph=False)).abs().max() > 1e-3
    far = eps * direction(norm, g)
    clean = losses(model, BATCH.x)
    if form == "forward":
        growth = (losses(model, BATCH.x + h * far) - clean) / h
    else:
        growth = (losses(model, BATCH.x + h * far) - losses(model, BATCH.x - h * far)) / (2 * h)
    agree(terms, clean.mean() + 0.7 * (growth**2).mean() / 2, model)


@every_norm
@pytest.mark.parametrize(("form", "order"), [("forward", 1), ("central", 2)])
def test_differences_tend_to_the_dual_norm(norm: Norm, form: str, order: int) -> None:
    """With an error of order h, or h^2."""
    model, threat = network("plain", torch.float64), Threat(norm, EPS[norm])
    exact = threat.eps * torch.linalg.vector_norm(own_gradient(model, graph=False).flatten(1), DUAL[norm], dim=1).mean()

    def error(h: float) -> float:
        method = GradientPenalty(form=form, step=h, square=False)  # type: ignore[arg-type]
        return float(terms_of(method, model, threat)["penalty"].detach() - exact) / float(exact)

    assert abs(error(1e-5)) < 1e-4
    coarse, fine = error(2e-2), error(1e-2)
    assert 1e-7 < abs(fine) < 0.1
    assert 0.9 * 2**order < coarse / fine < 1.1 * 2**order


@every_norm
@pytest.mark.parametrize("form", ["forward", "central", "exact"])
def test_on_a_linear_model_it_is_the_closed_form(norm: Norm, form: str) -> None:
    """l = log(1 + exp(-m)): g = -sigmoid(-m) w, and |g|_q = sigmoid(-m) |w|_q, the box left out."""
    w = torch.randn(32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 2).double())
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.zeros(32), w]))
        model[1].bias.zero_()
    batch = replace(BATCH, y=BATCH.y % 2, targets=BATCH.y % 2)
    method = GradientPenalty(form=form, step=1e-6, square=False)  # type: ignore[arg-type]
    terms = terms_of(method, model, Threat(norm, EPS[norm]), batch)
    margin = (2 * batch.y - 1) * (batch.x.flatten(1) @ w)
    expected = EPS[norm] * (torch.sigmoid(-margin) * torch.linalg.vector_norm(w, DUAL[norm])).mean()
    torch.testing.assert_close(terms["penalty"], expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(terms["clean"], functional.softplus(-margin).mean())


def test_it_is_the_released_loss_for_l2() -> None:
    """tik / 2 * mean(((l(x + h v) - l(x)) / h)^2), v = g / |g|: tik is weight * eps^2, h is step * eps."""
    model, eps, tik, h = network("plain", torch.float64), 0.5, 0.1, 0.01
    terms = terms_of(GradientPenalty(weight=tik / eps**2, step=h / eps), model, Threat("L2", eps))
    v = direction("L2", own_gradient(model, graph=False))
    derivative = (losses(model, BATCH.x + h * v) - losses(model, BATCH.x)) / h
    agree(terms, losses(model, BATCH.x).mean() + tik / 2 * derivative.square().mean(), model)


@pytest.mark.parametrize("form", ["forward", "central", "exact"])
@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("kind", ["no eps", "no gradient"])
def test_it_is_nothing_where_nothing_grows(form: str, square: bool, kind: str) -> None:
    model, method = network("plain", torch.float64), GradientPenalty(form=form, square=square)  # type: ignore[arg-type]
    if kind == "no gradient":
        with torch.no_grad():
            model.get_parameter("3.weight").zero_()
    for norm in NORMS:
        terms = terms_of(method, model, Threat(norm, 0.0 if kind == "no eps" else EPS[norm]))
        assert float(terms["penalty"].detach()) == 0
        gradients = torch.autograd.grad(terms["penalty"], list(model.parameters()), allow_unused=True)
        assert all(g is None or not g.any() for g in gradients)


def test_tiny_eps_is_not_drowned_in_rounding() -> None:
    """As at the start of a ramp: in float32, the penalty over eps does not change."""
    model, batch = network("plain"), make_batch(6)
    method = GradientPenalty(form="exact", square=False)
    sizes = [float(terms_of(method, model, Threat("L2", eps), batch)["penalty"].detach()) / eps for eps in (1e-6, 0.5)]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-5)


@pytest.mark.parametrize(("form", "passes"), [("forward", 2), ("central", 3), ("exact", 1)])
def test_one_forward_serves_the_loss_and_the_direction(form: str, passes: int) -> None:
    counted = Counted(network("plain", torch.float64))
    method, threat = GradientPenalty(form=form), Threat("L2", 0.5)  # type: ignore[arg-type]
    with under_attack(counted):
        inner = method.perturb(counted, BATCH, threat, noise_for(BATCH))
    assert counted.forwards == 0 and inner.z is BATCH.x
    method.loss(counted, BATCH, Inner(BATCH.x), threat, noise_for(BATCH))
    assert counted.forwards == passes * 6


@pytest.mark.parametrize("form", ["forward", "central", "exact"])
def test_batch_norms_averages_move_once(form: str) -> None:
    model, method = network("norm", torch.float64), GradientPenalty(form=form)  # type: ignore[arg-type]
    terms_of(method, model, Threat("L2", 0.5))
    assert int(model.get_buffer("1.num_batches_tracked")) == 1
    seen = model[0](BATCH.x).mean((0, 2, 3))  # type: ignore[index]
    torch.testing.assert_close(model.get_buffer("1.running_mean"), 0.1 * seen)


def test_it_says_what_it_measures_and_where_it_would_go_wrong() -> None:
    model, threat = network("plain", torch.float64), Threat("Linf", 0.2)
    with under_attack(model):
        found = GradientPenalty().examine(model, BATCH, threat, noise_for(BATCH))["growth"]
    torch.testing.assert_close(found, 0.2 * own_gradient(model, graph=False).abs().flatten(1).sum(1))
    assert GradientPenalty().check(model, BATCH, threat, noise_for(BATCH)) == []
    dropped = network("dropout", torch.float64)
    assert len(GradientPenalty().check(dropped, BATCH, threat, noise_for(BATCH))) == 1
    assert GradientPenalty(form="exact").check(dropped, BATCH, threat, noise_for(BATCH)) == []


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"step": 0.0}, {"weight": float("nan")}])
def test_bad_values_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        GradientPenalty(**wrong)  # type: ignore[arg-type]


def test_an_unknown_form_is_refused() -> None:
    method = GradientPenalty()
    object.__setattr__(method, "form", "backward")  # where types are checked, as in tests, it would not come this far
    with pytest.raises(InputError, match="form"):
        method.__post_init__()
