"""DALE against its formulas, typed again here, and what its noise does."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.examples import make_batch, network, noise_for
from support.toys import blobs, mlp
from unperturbed.errors import InputError
from unperturbed.maximise.frank_wolfe import FrankWolfe
from unperturbed.maximise.langevin import Langevin
from unperturbed.maximise.pgd import PGD
from unperturbed.maximise.restarts import Restarts
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method
from unperturbed.methods.constrained import Constrained
from unperturbed.methods.dale import DALE, DALEKL, DALELaplacian
from unperturbed.methods.trades import TRADES
from unperturbed.networks.modes import under_attack
from unperturbed.threat import Threat
from unperturbed.training.loop import train
from unperturbed.training.recipe import Recipe
from unperturbed.types import Inner, Model, Terms

BATCH = make_batch(8, torch.float64)
EPS = 0.2
THREAT = Threat("Linf", EPS)
NOISE = noise_for(BATCH)
PRESETS = (DALE, DALELaplacian, DALEKL)


def perturbed(method: Method, model: Model, **given: Any) -> Inner:
    with under_attack(model):
        return method.perturb(model, given.get("batch", BATCH), given.get("threat", THREAT), NOISE)


def terms_of(method: Method, model: Model, inner: Inner) -> Terms:
    return {name: term.detach() for name, term in method.loss(model, BATCH, inner, THREAT, NOISE).items()}


def potential(kind: type, logits: Tensor, clean: Tensor) -> Tensor:
    p, q = logits.softmax(1), clean.softmax(1)
    if kind is DALEKL:
        return (q * (q / p).log()).sum()
    return (1 - p[torch.arange(8), BATCH.y]).log().sum()


@pytest.mark.parametrize("kind", PRESETS)
def test_a_chain_by_hand(kind: type) -> None:
    """The released moves: c N next to the sign, or c L inside it, from x + 0.001 N; sums, not means, over examples."""
    model, steps = network("plain", torch.float64), 10
    found = perturbed(kind(), model).z
    temperature, h = kind().maximiser.temperature, 0.25
    c = EPS * (2 * h * temperature) ** 0.5
    clean = model(BATCH.x).detach()
    stream = NOISE.fold(-1)
    z = (BATCH.x + 1e-3 * NOISE.normal(BATCH.x.shape[1:], torch.float64)).clamp(0, 1)
    for k in range(steps):
        z = z.clone().requires_grad_()
        u = torch.autograd.grad(potential(kind, model(z), clean), z)[0]
        draw = stream.fold(k).laplacian if kind is DALELaplacian else stream.fold(k).normal
        v = draw(BATCH.x.shape[1:], torch.float64)
        if kind is DALELaplacian:
            z = z.detach() + h * EPS * (u + c / (h * EPS**2) * v).sign()
        else:
            z = z.detach() + h * EPS * u.sign() + c * v
        z = (BATCH.x + (z - BATCH.x).clamp(-EPS, EPS)).clamp(0, 1)
    torch.testing.assert_close(found, z, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", PRESETS)
def test_the_loss_by_hand(kind: type) -> None:
    model = network("plain", torch.float64)
    inner = perturbed(kind(), model)
    terms = terms_of(kind(weight=0.3), model, inner)
    p, q = model(inner.z).detach().softmax(1), model(BATCH.x).detach().softmax(1)
    rows = torch.arange(8)
    robust = (q * (q / p).log()).sum(1) if kind is DALEKL else -p[rows, BATCH.y].log()
    expected = {"sampled": robust.mean(), "nominal": -0.3 * q[rows, BATCH.y].log().mean()}
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)
    assert set(terms_of(kind(weight=0.0), model, inner)) == {"sampled"}


def test_each_of_the_three_losses_is_a_field() -> None:
    model = network("plain", torch.float64)
    inner = perturbed(DALE(), model)
    plain = terms_of(DALE(), model, inner)
    assert terms_of(DALE(robust="kl"), model, inner)["sampled"] != plain["sampled"]
    assert terms_of(DALE(robust="boosted"), model, inner)["sampled"] > plain["sampled"]
    assert terms_of(DALE(nominal="boosted"), model, inner)["nominal"] > plain["nominal"]
    assert terms_of(DALE(robust="boosted", nominal="cross-entropy"), model, inner)["nominal"] == plain["nominal"]
    kl_sampler = perturbed(DALE(sampler="kl"), model)
    assert torch.equal(kl_sampler.z, perturbed(DALEKL(), model).z) and not torch.equal(kl_sampler.z, inner.z)


def test_without_noise_dale_is_pgd_and_says_so() -> None:
    """On either potential: signs do not see the factor p / (1 - p)."""
    model = network("plain", torch.float64)
    cold = Langevin(steps=7, temperature=0.0)
    for kind in (DALE, DALELaplacian):
        method = kind(maximiser=cold)
        pgd = kind(maximiser=PGD(steps=7), sampler="cross-entropy")
        assert torch.equal(perturbed(method, model).z, perturbed(pgd, model).z)
        (text,) = method.check(model, BATCH, THREAT, NOISE)
        assert method.name in text and "PGD" in text
        assert "PGD" in pgd.check(model, BATCH, THREAT, NOISE)[0]
        assert kind().check(model, BATCH, THREAT, NOISE) == []
    trained = train(mlp(6, 3), blobs(60), Threat("Linf", 0.1), DALE(maximiser=cold), Recipe(epochs=1))
    assert any("is PGD" in text for text in trained.warnings)


@pytest.mark.parametrize(
    ("maximiser", "words"),
    [
        (Langevin(temperature=0.0, move="plain"), "its chain is gradient ascent"),
        (Langevin(steps=0), "with 0 steps it ends where it begins"),
        (Restarts(Langevin(temperature=0.0)), "its chain is PGD"),
        (Restarts(Restarts(PGD())), "its chain is PGD, not Langevin"),
        (FrankWolfe(), "its chain is FrankWolfe, not Langevin"),
        (Restarts(Langevin(move="plain")), None),
        (Langevin(move="plain"), None),
    ],
)
@pytest.mark.parametrize("kind", PRESETS)
def test_a_chain_that_does_not_sample_is_told_of(kind: type, maximiser: Any, words: str | None) -> None:
    told = kind(maximiser=maximiser).check(network("plain"), BATCH, THREAT, NOISE)
    assert (not told) if words is None else (len(told) == 1 and words in told[0] and kind.name in told[0])


def test_every_chain_begins_near_x_whatever_its_random_start() -> None:
    model = network("plain", torch.float64)
    made = [perturbed(DALE(maximiser=Langevin(steps=2, random_start=start)), model).z for start in (True, False)]
    assert torch.equal(*made)
    still = perturbed(DALE(maximiser=Langevin(steps=0)), model).z
    assert 0 < float((still - BATCH.x).abs().max()) < 0.01 < EPS


def test_kl_without_noise_is_trades_divided_by_beta() -> None:
    model = network("plain", torch.float64)
    cold = DALEKL(weight=1 / 6, maximiser=Langevin(steps=10, temperature=0.0))
    inner, trades = perturbed(cold, model), perturbed(TRADES(), model)
    assert torch.equal(inner.z, trades.z)
    ours, theirs = terms_of(cold, model, inner), terms_of(TRADES(), model, trades)
    torch.testing.assert_close(6 * torch.stack(list(ours.values())).sum(), torch.stack(list(theirs.values())).sum())


def test_the_spread_of_two_chains() -> None:
    """0 without noise, more with more of it, at most 1; the defaults' is not small."""
    model = network("plain", torch.float64)

    def spread(temperature: float, move: str = "sign") -> float:
        method = DALE(maximiser=Langevin(steps=10, temperature=temperature, move=move))  # type: ignore[arg-type]
        with under_attack(model):
            return float(method.examine(model, BATCH, THREAT, NOISE)["spread"].mean())

    assert spread(0.0) == 0
    assert spread(1e-5) < spread(Langevin().temperature) < spread(1.0) < 1
    assert spread(Langevin().temperature) > 0.03


@pytest.mark.parametrize("kind", PRESETS)
def test_examples_classified_beyond_doubt_are_attacked_s12(kind: type) -> None:
    """At logit gaps of 50 in float32, where 1 - p is 0: every point moves, everything is finite."""

    class Sure(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slope = nn.Parameter(torch.full((4,), 0.01))

        def forward(self, x: Tensor) -> Tensor:
            score = 25 + x @ self.slope
            return torch.stack([score, -score, -score], dim=1)

    model = Sure()
    batch = make_batch(4)
    batch = type(batch)(torch.full((4, 4), 0.5), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    cold = kind(maximiser=Langevin(steps=3, temperature=0.0))
    with under_attack(model):
        inner = cold.perturb(model, batch, Threat("Linf", 0.1), NOISE.rows(torch.arange(4)))
    assert inner.z.isfinite().all()
    if kind is not DALEKL:  # whose divergence is 0 beyond doubt
        torch.testing.assert_close(inner.z, torch.full((4, 4), 0.4))
    terms = cold.loss(model, batch, inner, Threat("Linf", 0.1), NOISE)
    torch.stack(list(terms.values())).sum().backward()
    assert model.slope.grad is not None and model.slope.grad.isfinite().all()


@pytest.mark.parametrize("kind", PRESETS)
def test_the_chain_of_an_example_does_not_depend_on_the_batch_size(kind: type) -> None:
    model = network("plain", torch.float64)
    few = torch.arange(2)
    batch = type(BATCH)(BATCH.x[few], BATCH.y[few], BATCH.ids[few])
    with under_attack(model):
        alone = kind().perturb(model, batch, THREAT, noise_for(batch)).z
    torch.testing.assert_close(alone, perturbed(kind(), model).z[few], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", PRESETS)
def test_the_dual_form_is_constrained_around_the_sampler(kind: type) -> None:
    chain = Langevin(steps=3)
    made = kind.dual(0.2, maximiser=chain, every="epoch", dual_start=0.5)
    assert isinstance(made, Constrained) and made.method == kind(weight=0.0, maximiser=chain)
    assert (made.nominal_loss, made.every, float(made.dual)) == (0.2, "epoch", 0.5)
    assert kind.dual(nominal_accuracy=0.9).nominal_accuracy == 0.9
    for settings in ({"nominal": "boosted"}, {"weight": 0.5}):
        with pytest.raises(InputError, match=f"{next(iter(settings))} is .* Leave it out"):
            kind.dual(0.2, **settings)


def test_dale_dual_is_constrained_at_with_langevin() -> None:
    model, chain = network("plain", torch.float64), Langevin(steps=3)
    dual, plain = DALE.dual(0.2, sampler="cross-entropy", maximiser=chain), Constrained(AT(chain), 0.2)
    inner = perturbed(dual, model)
    ours, theirs = (list(terms_of(method, model, inner).values()) for method in (dual, plain))
    assert ours == theirs


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(InputError, match="weight is -1"):
        DALE(weight=-1.0)
    for name in ("robust", "sampler", "nominal"):
        method = DALE()
        object.__setattr__(method, name, "hinge")
        with pytest.raises(InputError, match=f"{name} is 'hinge'"):
            method.__post_init__()
