"""SORA against its formula, typed again here."""

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional

from support.examples import NORMS, Counted, make_batch, network, noise_for, smoothed
from unperturbed.errors import InputError
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.sora import SORA
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import InPrecision
from unperturbed.threat import Threat
from unperturbed.training.step import optimisation_step
from unperturbed.types import Batch, Inner, Inputs, Logits, Norm, Terms

BATCH = make_batch(12, torch.float64)
THREAT = Threat("Linf", 0.1)
EPS: dict[Norm, float] = {"Linf": 0.1, "L2": 0.5, "L1": 2.0}


class Scaled(SORA):
    """As under a wrapper that weighs the loss."""

    def loss(self, *given: object) -> Terms:  # type: ignore[override]
        return {name: 0.2 * term for name, term in super().loss(*given).items()}  # type: ignore[arg-type]


def step(
    method: SORA, model: nn.Module, batch: Batch = BATCH, threat: Threat = THREAT, clip: float | None = None
) -> Inner:
    fabric = Fabric(accelerator="cpu", devices=1)
    wrapped, optimiser = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    _, inner = optimisation_step(
        fabric, InPrecision(model), wrapped, optimiser, method, batch, threat, noise_for(batch), clip
    )
    return inner


def perturbed(method: SORA, model: nn.Module, batch: Batch = BATCH, threat: Threat = THREAT) -> Inner:
    with under_attack(model):
        return method.perturb(model, batch, threat, noise_for(batch))


def at(kappa: float) -> SORA:
    method = SORA()
    method.kappa = torch.tensor(kappa)
    return method


@pytest.mark.parametrize(
    ("kappa", "alpha"), [(1.0, 2.0), (0.99, 2.0), (0.98, 2.0), (0.96, 1.0), (0.5, 0.08), (0.0, 0.04), (-1.0, 0.02)]
)
def test_the_points_are_the_papers(kappa: float, alpha: float) -> None:
    """u + alpha c sign(g), cut by the box alone; alpha = 2 eps min(1, 0.02 / (1 - kappa))."""
    model, noise = network("norm", torch.float64), noise_for(BATCH)
    inner = perturbed(at(kappa), model)
    low, high = (BATCH.x - 0.1).clamp(0, 1), (BATCH.x + 0.1).clamp(0, 1)
    u = low + noise.fold(0).uniform(BATCH.x.shape[1:], torch.float64) * (high - low)
    model.eval()
    u.requires_grad_()
    (g,) = torch.autograd.grad(functional.cross_entropy(model(u), BATCH.y), u)
    c = noise.fold(1).uniform(BATCH.x.shape[1:], torch.float64)
    expected = (u.detach() + alpha * 0.1 * c * g.sign()).clamp(0, 1)
    torch.testing.assert_close(inner.z.detach(), expected, rtol=0, atol=1e-6 * alpha)  # kappa is in float32
    torch.testing.assert_close(inner.log["kappa"], torch.full((12,), kappa, dtype=torch.float64))
    assert alpha < 2 or (inner.z - BATCH.x).abs().max() > 0.2, "outside the ball"
    assert inner.z.is_leaf and inner.z.requires_grad


@pytest.mark.parametrize("norm", NORMS)
def test_the_points_stay_inside_the_box_and_three_eps(norm: Norm) -> None:
    model, threat = network("plain", torch.float64), Threat(norm, EPS[norm])
    z = perturbed(SORA(), model, BATCH, threat).z.detach()
    assert z.min() >= 0 and z.max() <= 1
    assert threat.distance(BATCH.x, z).max() <= 3 * EPS[norm] * (1 + 1e-6)
    assert threat.distance(BATCH.x, z).max() > EPS[norm]


class Bowl(nn.Module):
    """Logits (0, t), t = 1000 + <slope, x> - curvature / 2 |x|^2: the loss of class 0 is t, its Hessian known."""

    def __init__(self, curvature: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(1 + torch.rand(32, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
        self.curvature = curvature

    def forward(self, x: Inputs) -> Logits:
        x = x.flatten(1)
        t = 1000 + x @ self.slope - self.curvature / 2 * x.square().sum(1)
        return torch.stack([torch.zeros_like(t), t], dim=1)


INSIDE = Batch(BATCH.x * 0.2 + 0.4, torch.zeros_like(BATCH.y), BATCH.ids)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("curvature", [0.0, 0.5, 0.9])
def test_kappa_follows_the_slope_along_the_step(norm: Norm, curvature: float) -> None:
    """g = w - b u and g' = w - b z: kappa <- 0.95 kappa + 0.05 sum <d, g'> / sum <d, g>."""
    model, method, threat = Bowl(curvature), SORA(), Threat(norm, EPS[norm], None)
    w = model.slope.detach().clone()
    inner = step(method, model, INSIDE, threat)
    u = threat.sample(INSIDE.x, noise_for(INSIDE).fold(0)).flatten(1)
    g, after = w - curvature * u, w - curvature * inner.z.detach().flatten(1)
    direction = {
        "Linf": g.sign(),
        "L2": g / g.norm(dim=1, keepdim=True),
        "L1": functional.one_hot(g.abs().argmax(1), 32) * g.sign(),
    }[norm]
    measured = float((direction * after).sum() / (direction * g).sum())
    assert (measured < 0.999) == (curvature > 0)
    assert float(method.kappa) == pytest.approx(0.95 * 0.99 + 0.05 * measured, rel=1e-6)


@pytest.mark.slow
def test_many_steps_reach_the_slope_and_the_steps_shorten() -> None:
    model, method = Bowl(0.9), SORA()
    lengths = [float((step(method, model, INSIDE).z.detach() - INSIDE.x).abs().mean()) for _ in range(60)]
    assert 0.5 < float(method.kappa) < 0.98 and lengths[-1] < 0.8 * lengths[0]


@pytest.mark.parametrize("end", [1.0, -1.0])
def test_kappa_is_cut_to_one(end: float) -> None:
    method = SORA(rate=1.0)
    inner = perturbed(method, Bowl(0.5), INSIDE)
    inner.reuse["scale"].fill_(1 / 12)
    inner.z.grad = 5 * end * inner.reuse["direction"]
    method.after_step(INSIDE, inner, {}, THREAT)
    assert float(method.kappa) == end


def test_kappa_does_not_feel_how_the_loss_is_scaled() -> None:
    """The mean over the batch, a wrapper's weight, gradient clipping."""
    kappas = []
    for kind, clip in ((SORA, None), (Scaled, None), (SORA, 1e-6)):
        method = kind()
        step(method, network("plain", torch.float64), clip=clip)
        kappas.append(float(method.kappa))
    half = SORA()
    step(half, network("plain", torch.float64), Batch(*(torch.cat([t, t]) for t in (BATCH.x, BATCH.y, BATCH.ids))))
    assert kappas[0] != 0.99
    assert kappas == pytest.approx([kappas[0]] * 3, rel=1e-6) and float(half.kappa) == pytest.approx(
        kappas[0], rel=1e-6
    )


def test_a_flat_loss_tells_nothing() -> None:
    model, method = network("plain", torch.float64), at(0.7)
    with torch.no_grad():
        model.get_parameter("3.weight").zero_()
    inner = step(method, model)
    assert float(method.kappa) == pytest.approx(0.7) and inner.z.isfinite().all()


def test_kappa_is_remembered_after_the_step_only() -> None:
    model, method = network("plain", torch.float64), SORA()
    inner = perturbed(method, model)
    for _ in range(2):
        method.loss(model, BATCH, inner, THREAT, noise_for(BATCH))["adversarial"].backward()
    assert float(method.kappa) == pytest.approx(0.99)
    assert inner.reuse["scale"].tolist() == pytest.approx([1 / 12] * 12)


def test_the_weights_learn_from_the_loss_itself() -> None:
    """Noting the scale leaves the gradient alone."""
    model, method = network("norm", torch.float64), SORA()
    inner = perturbed(method, model)
    found = method.loss(model, BATCH, inner, THREAT, noise_for(BATCH))["adversarial"]
    expected = functional.cross_entropy(model(inner.z), BATCH.y)
    weights = [*model.parameters(), inner.z]
    for mine, theirs in zip(
        torch.autograd.grad(3 * found, weights), torch.autograd.grad(3 * expected, weights), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)
    assert inner.reuse["scale"].tolist() == pytest.approx([3 / 12] * 12)


def test_a_backward_that_leaves_no_gradient_is_an_error() -> None:
    method = SORA()
    with pytest.raises(RuntimeError, match="SORA needs the gradient"):
        method.after_step(BATCH, perturbed(method, network("plain", torch.float64)), {}, THREAT)


def test_the_second_gradient_costs_nothing() -> None:
    counted = Counted(network("plain", torch.float64))
    step(SORA(), counted)
    assert (counted.forwards, counted.to_inputs, counted.to_weights) == (24, 12, 12)


def test_the_slopes_of_all_processes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    def join(tensor: Tensor) -> None:
        seen.append(tensor.clone())
        tensor.add_(torch.tensor([0.0, float(tensor[1])]))  # the other process has lost all of its slope

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", join)
    method = SORA()
    step(method, Bowl(0.5), INSIDE)
    after, before = seen[0]
    assert float(method.kappa) == pytest.approx(0.95 * 0.99 + 0.05 * float(after / before) / 2, rel=1e-5)


@pytest.mark.parametrize("wrong", [{"step_size": -1.0}, {"bend": 0.0}, {"rate": 1.5}, {"rate": -0.1}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is "):
        SORA(**wrong)


def test_the_defaults_are_the_released_ones() -> None:
    method = SORA()
    assert (method.step_size, method.bend, method.rate, float(method.kappa)) == pytest.approx((2.0, 0.02, 0.05, 0.99))
    assert method.stronger() == AT(PGD(steps=2))


@pytest.mark.slow
def test_smoothed_labels_on_a_straight_loss_do_not_shorten_the_steps() -> None:
    """Both slopes are of the loss that is trained: the same one within a tiny ball, whatever the targets."""
    method, model = at(0.5), network("plain", BATCH.x.dtype)
    batch, tiny = smoothed(BATCH), Threat("Linf", 1e-6)
    for _ in range(200):
        inner = perturbed(method, model, batch, tiny)
        terms = method.loss(model, batch, inner, tiny, noise_for(batch))
        terms["adversarial"].backward()
        method.after_step(batch, inner, terms, tiny)
    assert float(method.kappa) > 0.99
