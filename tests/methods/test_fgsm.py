"""One-step methods against closed forms and the papers' arithmetic."""

import pytest
import torch
from torch import Tensor, nn

from support.examples import NORMS, make_batch, network, noise_for, smoothed
from unperturbed.errors import InputError
from unperturbed.methods.at import AT
from unperturbed.methods.fgsm import FGSM, N_FGSM, RS_FGSM
from unperturbed.networks.modes import under_attack
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Norm

BATCH = make_batch(16, torch.float64)
NET = network("plain", torch.float64)
DUAL: dict[Norm, float] = {"Linf": 1, "L2": 2, "L1": torch.inf}


def sign_of_the_slope(z: Inputs) -> Tensor:
    z = z.clone().requires_grad_()
    nn.functional.cross_entropy(NET(z), BATCH.y).backward()
    assert z.grad is not None
    NET.zero_grad()
    return z.grad.sign()


@pytest.mark.parametrize("norm", NORMS)
def test_fgsm_is_exact_on_a_linear_model_of_two_classes(norm: Norm) -> None:
    """The worst loss is log(1 + exp(-(f_y - f_other) + eps |w_y - w_other|_*)), * the dual norm."""
    draw = torch.Generator().manual_seed(0)
    linear = nn.Linear(20, 2, dtype=torch.float64)
    x, y = torch.randn(9, 20, generator=draw, dtype=torch.float64), torch.arange(9) % 2
    batch, threat, eps = Batch(x, y, torch.arange(9)), Threat(norm, 0.3, None), 0.3
    with under_attack(linear):
        inner = FGSM().perturb(linear, batch, threat, noise_for(batch))
    lead = linear(x).detach() @ torch.tensor([1.0, -1.0], dtype=torch.float64) * (1 - 2 * y)
    worst = lead - eps * (linear.weight[0] - linear.weight[1]).detach().norm(DUAL[norm])
    terms = FGSM().loss(linear, batch, inner, threat, noise_for(batch))
    torch.testing.assert_close(terms["adversarial"].detach(), nn.functional.softplus(-worst).mean(), rtol=1e-12, atol=0)


def test_fgsm_is_one_signed_step_from_the_input() -> None:
    eps = 0.2
    with under_attack(NET):
        z = FGSM().perturb(NET, BATCH, Threat("Linf", eps), noise_for(BATCH)).z
    assert torch.allclose(z, (BATCH.x + eps * sign_of_the_slope(BATCH.x)).clamp(0, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("step_size", [1.25, 0.5])
def test_rs_fgsm_is_a_long_step_from_noise_cut_to_the_cube(step_size: float) -> None:
    """Wong et al. 2020, algorithm 3: delta ~ U(-eps, eps); delta <- clamp(delta + alpha sign(gradient there))."""
    eps = 0.2
    start = Threat("Linf", eps).sample(BATCH.x, noise_for(BATCH))
    delta = (start - BATCH.x + step_size * eps * sign_of_the_slope(start)).clamp(-eps, eps)
    with under_attack(NET):
        z = RS_FGSM(step_size=step_size).perturb(NET, BATCH, Threat("Linf", eps), noise_for(BATCH)).z
    torch.testing.assert_close(z, (BATCH.x + delta).clamp(0, 1), rtol=0, atol=1e-12)
    assert RS_FGSM().step_size == 1.25


@pytest.mark.parametrize("step_size", [0.0, -1.0, float("inf")])
def test_rs_fgsm_refuses_a_step_of_no_length_when_it_is_made(step_size: float) -> None:
    with pytest.raises(InputError, match="step_size is"):
        RS_FGSM(step_size=step_size)


@pytest.mark.parametrize(("noise_size", "step_size"), [(2.0, 1.0), (0.0, 1.0), (1.0, 0.5), (2.0, 0.0)])
def test_n_fgsm_is_a_step_from_strong_noise_cut_to_the_box_alone(noise_size: float, step_size: float) -> None:
    """De Jorge et al. 2022, algorithm 1: eta ~ U(-k eps, k eps); delta = eta + alpha sign(gradient at x + eta)."""
    eps, threat = 0.05, Threat("Linf", 0.05)
    start = Threat("Linf", noise_size * eps).sample(BATCH.x, noise_for(BATCH))
    expected = (start + step_size * eps * sign_of_the_slope(start)).clamp(0, 1)
    with under_attack(NET):
        z = N_FGSM(noise_size, step_size).perturb(NET, BATCH, threat, noise_for(BATCH)).z
    torch.testing.assert_close(z, expected, rtol=0, atol=1e-12)
    reach = threat.distance(BATCH.x, z).max() / eps
    assert reach <= noise_size + step_size + 1e-9
    if (noise_size, step_size) == (2.0, 1.0):
        assert reach > 2.5, "it is not projected on the ball"
        assert N_FGSM() == N_FGSM(2.0, 1.0)


@pytest.mark.parametrize("method", [FGSM(), RS_FGSM(), N_FGSM(), AT()])
def test_the_loss_compares_with_the_smoothed_targets(method: FGSM | RS_FGSM | N_FGSM | AT) -> None:
    batch = smoothed(BATCH)
    threat = Threat("Linf", 0.1)
    with under_attack(NET):
        inner = method.perturb(NET, batch, threat, noise_for(batch))
        z = method.perturb(NET, BATCH, threat, noise_for(batch)).z
    assert torch.equal(inner.z, z), "the attack climbs the loss of the label"
    terms = method.loss(NET, batch, inner, threat, noise_for(batch))
    expected = -(batch.targets * NET(z).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(terms["adversarial"], expected)


def test_sizes_below_zero_are_refused() -> None:
    for wrong in ({"noise_size": -1.0}, {"step_size": -0.5}):
        with pytest.raises(InputError, match=r"-1\.0|-0\.5"):
            N_FGSM(**wrong)
