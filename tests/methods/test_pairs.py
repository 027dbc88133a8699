"""TRADES, MART and logit pairing against the formulas of their papers and of their authors' code, typed again here."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from support.examples import make_batch, network, noise_for, total
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.base import Method
from unperturbed.methods.logit_pairing import ALP, CLP, CLPOriginal
from unperturbed.methods.mart import MART
from unperturbed.methods.trades import TRADES
from unperturbed.networks.modes import under_attack
from unperturbed.threat import Threat
from unperturbed.types import Inner, Logits, Terms

BATCH = make_batch(12, torch.float64)
THREAT = Threat("Linf", 0.3)
Y = BATCH.y


def terms_at(method: Method, clean: Logits, adversarial: Logits) -> Terms:
    """Return the terms for a network that gives these logits for x and for z."""

    class Given(nn.Module):
        def forward(self, x: Tensor) -> Logits:
            return clean if x is BATCH.x else adversarial

    return method.loss(Given(), BATCH, Inner(BATCH.x + 0), THREAT, noise_for(BATCH))


def logits(seed: int, scale: float = 2.0) -> Logits:
    draw = torch.Generator().manual_seed(seed)
    return (scale * torch.randn((12, 3), generator=draw, dtype=torch.float64)).requires_grad_()


def agree(method: Method, expected: Tensor, clean: Logits, adversarial: Logits, tolerance: float = 1e-12) -> None:
    """Assert the same loss and the same gradients in both logits."""
    found = total(terms_at(method, clean, adversarial))
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    for mine, theirs in zip(
        torch.autograd.grad(found, [clean, adversarial], allow_unused=True, materialize_grads=True),
        torch.autograd.grad(expected, [clean, adversarial], allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)


# TRADES


def test_trades_is_the_authors_loss() -> None:
    """CE on the CLEAN logits; KLDivLoss(log p', p) with the mean over the batch, not over the entries."""
    clean, adversarial = logits(0), logits(1)
    criterion = nn.KLDivLoss(reduction="batchmean")
    robust = criterion(adversarial.log_softmax(1), clean.softmax(1))
    agree(TRADES(beta=6.0), functional.cross_entropy(clean, Y) + 6.0 * robust, clean, adversarial)
    assert TRADES().beta == 6.0


def test_trades_classifies_the_clean_inputs() -> None:
    """Not the perturbed ones: the cross-entropy does not know z at all."""
    clean, adversarial = logits(0), logits(1)
    terms = terms_at(TRADES(), clean, adversarial)
    torch.testing.assert_close(terms["clean"], functional.cross_entropy(clean, Y))
    (gradient,) = torch.autograd.grad(terms["clean"], adversarial, allow_unused=True, materialize_grads=True)
    assert not gradient.any()


def test_trades_learns_through_both_branches() -> None:
    clean, adversarial = logits(0), logits(1)
    for branch in torch.autograd.grad(terms_at(TRADES(), clean, adversarial)["divergence"], [clean, adversarial]):
        assert (branch.norm(dim=1) > 1e-6).all()


@pytest.mark.parametrize("method", [TRADES(), MART()], ids=["trades", "mart"])
def test_the_search_starts_beside_the_input(method: TRADES | MART) -> None:
    """At x + 0.001 N(0, 1) inside S(x), each example with its own noise: at x the divergence has no slope."""
    seen: list[Tensor] = []
    model = network("plain", torch.float64)
    model.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach().clone()))
    with under_attack(model):
        method.perturb(model, BATCH, THREAT, noise_for(BATCH))
    start = seen[1] if isinstance(method, TRADES) else seen[0]
    expected = (BATCH.x + 1e-3 * noise_for(BATCH).normal(BATCH.x.shape[1:], torch.float64)).clamp(0, 1)
    assert torch.equal(start, expected)
    free = (BATCH.x > 0.01) & (BATCH.x < 0.99)
    moved = (start - BATCH.x)[free]
    assert 0.8e-3 < moved.std() < 1.2e-3 and moved.abs().max() < 6e-3


def test_trades_climbs_the_divergence_from_the_clean_prediction() -> None:
    """Against the authors' loop: signed steps on KL from the start above, cut to ball and box."""
    model, steps, eps = network("plain", torch.float64), 4, 0.3
    method = TRADES(maximiser=PGD(steps=steps, step_size=0.25))
    with under_attack(model):
        z = method.perturb(model, BATCH, THREAT, noise_for(BATCH)).z
    clean = model(BATCH.x).softmax(1).detach()
    expected = (BATCH.x + 1e-3 * noise_for(BATCH).normal(BATCH.x.shape[1:], torch.float64)).clamp(0, 1)
    for _ in range(steps):
        expected = expected.detach().requires_grad_()
        loss = nn.KLDivLoss(reduction="sum")(model(expected).log_softmax(1), clean)
        (slope,) = torch.autograd.grad(loss, expected)
        expected = torch.min(torch.max(expected + 0.25 * eps * slope.sign(), BATCH.x - eps), BATCH.x + eps).clamp(0, 1)
    torch.testing.assert_close(z, expected.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", [MART(), ALP(), CLP()], ids=lambda m: m.name)
def test_the_others_climb_the_cross_entropy(method: MART | ALP | CLP) -> None:
    model = network("plain", torch.float64)
    with under_attack(model):
        z = method.perturb(model, BATCH, THREAT, noise_for(BATCH)).z
        start = None
        if isinstance(method, MART):
            start = THREAT.project(BATCH.x, BATCH.x + 1e-3 * noise_for(BATCH).normal(BATCH.x.shape[1:], torch.float64))
        expected = PGD(steps=10)(
            lambda z, rows: cross_entropy(model(z), Y[rows]), BATCH.x, THREAT, noise_for(BATCH), start
        )
    assert torch.equal(z, expected)


# MART


def authors_mart(clean: Logits, adversarial: Logits, beta: float) -> Tensor:
    """The loss of mart.py, with its constants against overflow set to nothing."""
    probabilities = adversarial.softmax(1)
    top = probabilities.argsort(dim=1)[:, -2:]
    runner_up = torch.where(top[:, -1] == Y, top[:, -2], top[:, -1])
    boosted = functional.cross_entropy(adversarial, Y) + functional.nll_loss((1 - probabilities).log(), runner_up)
    natural = clean.softmax(1)
    of_label = natural.gather(1, Y[:, None])[:, 0]
    divergence = nn.KLDivLoss(reduction="none")(probabilities.log(), natural).sum(1)
    return boosted + beta * (divergence * (1 - of_label)).sum() / len(Y)


def test_mart_is_the_authors_loss() -> None:
    clean, adversarial = logits(0), logits(1)
    wrong = adversarial.argmax(1) != Y
    assert 0 < wrong.sum() < 12, "right and wrong predictions must both occur"
    agree(MART(beta=5.0), authors_mart(clean, adversarial, 5.0), clean, adversarial, 1e-10)
    assert MART().beta == 5.0


def test_mart_learns_through_the_doubt_and_both_branches() -> None:
    """The weight 1 - p_y(x) is not a constant: its own gradient is part of the clean branch's."""
    clean, adversarial = logits(0), logits(1)
    divergence = terms_at(MART(beta=1.0), clean, adversarial)["divergence"]
    from_clean, from_adversarial = torch.autograd.grad(divergence, [clean, adversarial])
    assert (from_clean.norm(dim=1) > 1e-8).all() and (from_adversarial.norm(dim=1) > 1e-8).all()
    p = clean.softmax(1)
    doubt = (1 - p.gather(1, Y[:, None])[:, 0]).detach()
    kl = nn.KLDivLoss(reduction="none")(adversarial.log_softmax(1), p).sum(1)
    (held,) = torch.autograd.grad((kl * doubt).mean(), clean)
    assert (from_clean - held).abs().max() > 1e-4


def test_mart_is_finite_where_the_authors_form_is_not() -> None:
    """Logits 300 apart in float32, right and wrong: log(1 - p) by logsumexp, with gradients."""
    clean = (300 * torch.eye(3)[Y]).requires_grad_()
    for adversarial in (300 * torch.eye(3)[Y], 300 * torch.eye(3)[(Y + 1) % 3]):
        adversarial = adversarial.clone().requires_grad_()
        terms = terms_at(MART(), clean, adversarial)
        gradients = torch.autograd.grad(total(terms), [clean, adversarial])
        assert total(terms).isfinite() and all(gradient.isfinite().all() for gradient in gradients)


# Logit pairing


def test_alp_is_both_cross_entropies_and_half_the_mean_square() -> None:
    clean, adversarial = logits(0), logits(1)
    for weight in (0.5, 2.0):
        pairing = ((clean - adversarial) ** 2).sum() / (12 * 3)
        expected = functional.cross_entropy(clean, Y) + functional.cross_entropy(adversarial, Y) + weight * pairing
        agree(ALP(weight=weight), expected, clean, adversarial)
    assert ALP().weight == 0.5


def test_clp_is_the_clean_cross_entropy_and_the_mean_distance() -> None:
    clean, adversarial = logits(0), logits(1)
    for weight in (1.0, 3.0):
        distance = torch.linalg.vector_norm(clean - adversarial, dim=1).mean()
        expected = functional.cross_entropy(clean, Y) + weight * distance
        agree(CLP(weight=weight), expected, clean, adversarial, 1e-10)
    assert CLP().weight == 1.0


def test_clp_has_a_gradient_where_the_pair_agrees() -> None:
    clean = logits(0)
    pairing = terms_at(CLP(), clean, clean + 0)["pairing"]
    (gradient,) = torch.autograd.grad(pairing, clean)
    assert not gradient.any() and float(pairing.detach()) < 1e-5


def test_clp_original_pairs_each_noisy_image_with_another() -> None:
    """CE on the noisy images, and each paired once as the first and once as the second with another example."""
    noisy = logits(0)
    terms = terms_at(CLPOriginal(weight=0.7), noisy, noisy)
    pairs = torch.stack([(noisy[k] - noisy[k - 1]).square().sum() / 3 for k in range(12)]).mean()
    torch.testing.assert_close(total(terms), functional.cross_entropy(noisy, Y) + 0.7 * pairs)
    assert CLPOriginal().weight == 0.5


def test_clp_original_adds_gaussian_noise_inside_the_box_and_runs_no_attack() -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> Logits:
            raise AssertionError("the network is not asked")

    for sigma in (1.0, 0.5):
        z = CLPOriginal(sigma=sigma).perturb(Silent(), BATCH, THREAT, noise_for(BATCH)).z
        noise = noise_for(BATCH).normal(BATCH.x.shape[1:], torch.float64)
        torch.testing.assert_close(z, (BATCH.x + sigma * 0.3 * noise).clamp(0, 1), rtol=0, atol=1e-15)
