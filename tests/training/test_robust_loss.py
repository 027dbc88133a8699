"""A user's loop with `robust_loss` trains like `train`, and the network's state is restored."""

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from support.toys import blobs, mlp
from unperturbed.errors import InputError, RunError
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method
from unperturbed.methods.constrained import Constrained
from unperturbed.methods.trades import TRADES
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training.robust_loss import robust_loss

THREAT = Threat("Linf", 0.1)
X, Y = blobs(40)


def gradients(loss: Tensor, model: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("method", [AT(PGD(steps=3)), TRADES(maximiser=PGD(steps=2))])
def test_it_is_the_loss_of_the_methods_formula(method: Method) -> None:
    from unperturbed.networks.modes import under_attack
    from unperturbed.types import Batch

    model = mlp(6, 3)
    found = gradients(robust_loss(method, model, X, Y, THREAT, step=4, seed=3), model)
    batch, noise = Batch(X, Y, torch.arange(40)), Noise.of(3, torch.arange(40)).fold(4).fold(1)
    with under_attack(model):
        inner = method.perturb(model, batch, THREAT, noise)
    terms = method.loss(model, batch, inner, THREAT, noise)
    expected = gradients(torch.stack(list(terms.values())).sum(), model)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_modes_gradients_and_random_numbers_are_left_alone() -> None:
    model = nn.Sequential(mlp(6, 3), nn.Dropout(0.0)).train()
    model[1].eval()
    state = torch.get_rng_state()
    robust_loss(AT(PGD(steps=1)), model, X, Y, THREAT, step=0)
    assert model.training and not model[1].training and torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


def test_the_step_and_the_ids_key_the_random_starts() -> None:
    model, method = mlp(6, 3), AT(PGD(steps=1))
    first, again, other = (float(robust_loss(method, model, X, Y, THREAT, step=step).detach()) for step in (0, 0, 1))
    assert first == again != other
    assert float(robust_loss(method, model, X, Y, THREAT, step=0, ids=torch.arange(40) + 7).detach()) != first


def test_a_memory_moves_with_every_step_and_the_backward_still_runs() -> None:
    model = mlp(6, 3)
    method = Constrained(AT(PGD(steps=1)), nominal_loss=0.0, wait=0.0, dual_step=0.5)
    optimiser, duals = torch.optim.SGD(model.parameters(), 0.1), []
    for step in range(6):
        loss = robust_loss(method, model, X, Y, THREAT, step=step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        duals.append(float(method.dual))
    assert duals[0] <= duals[1] and duals[-1] > duals[0]


@pytest.mark.long
@pytest.mark.slow
def test_a_network_is_let_go_with_its_last_reference() -> None:
    model = mlp(6, 3)
    robust_loss(Constrained(AT(PGD(steps=1)), nominal_loss=0.1), model, X, Y, THREAT, step=0)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_other_outputs_work_and_what_is_wrong_is_named() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp(6, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.inner(x), x

    assert robust_loss(AT(PGD(steps=1)), Pair(), X, Y, THREAT, step=0).isfinite()
    with pytest.raises(InputError):
        robust_loss(AT(), nn.Flatten(0), X, Y, THREAT, step=0)
    broken = mlp(6, 3)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(RunError, match="not finite"):
        robust_loss(AT(PGD(steps=1)), broken, X, Y, THREAT, step=0)
