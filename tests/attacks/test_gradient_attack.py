import pytest
import torch

from support.toys import Function, linear, mlp, uniform
from unperturbed.attacks.base import AttackResult
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.attacks.multi_targeted import MultiTargeted
from unperturbed.errors import InputError
from unperturbed.losses import cross_entropy, margin
from unperturbed.maximise.pgd import PGD
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Logits, Loss, Norm

ATTACK = GradientAttack("PGD", cross_entropy, PGD(steps=10), restarts=3)


def found(
    model: torch.nn.Module, x: Inputs, threat: Threat, attack: GradientAttack = ATTACK, places: int = 8
) -> AttackResult:
    ids = torch.arange(len(x))
    batch = Batch(x, model(x).argmax(1), ids)
    return attack(model, batch, threat, Noise.of(0, ids), places)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.06), ("L2", 0.15), ("L1", 0.3)])
@pytest.mark.parametrize("loss", [cross_entropy, margin])
def test_what_it_claims_is_what_the_network_says(loss: Loss, norm: Norm, eps: float) -> None:
    x, model, threat = uniform(50, 6), linear(6, 3), Threat(norm, eps)
    result = found(model, x, threat, GradientAttack("a", loss, PGD(steps=10), 2))
    y = model(x).argmax(1)
    torch.testing.assert_close(result.margin, margin(model(result.z), y).detach(), rtol=1e-4, atol=1e-5)
    assert threat.contains(x, result.z).all() and result.finite.all()
    broken = result.margin > 0
    assert 3 < broken.sum() < 47
    assert (result.restart[~broken] == 2).all() and (result.restart[broken] <= 2).all() and result.restart.min() == 1


def test_iterates_are_ranked_by_margin_whatever_is_climbed() -> None:
    """The climbed loss leads to z = 0.7, but the margin is largest at 0.5, on the way."""

    def logits(x: Inputs) -> Logits:
        a = x[:, 0]
        return torch.stack([torch.zeros_like(a), -0.1 - (a - 0.5).abs(), a - 10], dim=1)

    straight_on = GradientAttack("a", lambda logits, y: logits[:, 2], PGD(10, 0.1, random_start=False))
    batch = Batch(torch.tensor([[0.3, 0.5]]), torch.tensor([0]), torch.tensor([0]))
    result = straight_on(Function(logits), batch, Threat("Linf", 0.4), Noise.of(0, batch.ids), 2)
    assert float(result.z[0, 0]) == pytest.approx(0.5, abs=1e-5) and float(result.margin) == pytest.approx(
        -0.1, abs=1e-5
    )


@pytest.mark.slow
def test_the_company_of_an_example_does_not_matter() -> None:
    """With 8 features: MKL adds up rows whose length is no multiple of 4 differently from place to place."""
    x, model, threat = uniform(40, 8), mlp(8, 3), Threat("L2", 0.3)
    batch = Batch(x, model(x).argmax(1), torch.arange(40))
    turned = Batch(x.flip(0), batch.y.flip(0), batch.ids.flip(0))
    one, other = (ATTACK(model, b, threat, Noise.of(0, b.ids), 8) for b in (batch, turned))
    assert torch.equal(one.z, other.z.flip(0)) and torch.equal(one.margin, other.margin.flip(0))
    assert torch.equal(one.restart, other.restart.flip(0)) and one.passes == other.passes


def test_the_work_stops_at_success() -> None:
    x, model = uniform(40, 6), linear(6, 2)
    weak, strong = found(model, x, Threat("Linf", 1e-3)), found(model, x, Threat("Linf", 1.0))
    assert weak.passes > 35 * 3 * 11 and strong.passes < weak.passes / 4
    assert (strong.margin > 0).all()


def test_an_example_without_a_finite_value_keeps_its_input() -> None:
    x = uniform(5, 2)
    batch = Batch(x, torch.zeros(5, dtype=torch.int64), torch.arange(5))
    model = Function(lambda x: torch.full((len(x), 2), torch.nan) * x.sum(1, keepdim=True))
    result = ATTACK(model, batch, Threat("Linf", 0.1), Noise.of(0, batch.ids), 4)
    assert not result.finite.any() and (result.margin == -torch.inf).all() and torch.equal(result.z, x)


def test_no_examples_no_work() -> None:
    result = found(linear(6, 2), uniform(0, 6), Threat("Linf", 0.1))
    assert len(result.z) == 0 and result.passes == 0


@pytest.mark.parametrize("kind", [GradientAttack, MultiTargeted])
@pytest.mark.parametrize("settings", [{"restarts": 0}, {"draws": 0}, {"enough": -1.0}, {"enough": float("nan")}])
def test_settings_that_would_leave_every_example_alone_are_refused(
    kind: type[GradientAttack] | type[MultiTargeted], settings: dict[str, float]
) -> None:
    """Without a climb nothing breaks, and all would seem robust."""
    with pytest.raises(InputError, match="nothing is attacked"):
        kind("a", margin, PGD(), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("targets", [0, -1])
def test_at_least_one_target_is_tried(targets: int) -> None:
    with pytest.raises(InputError, match=f"targets {targets}: at least 1"):
        MultiTargeted(targets=targets)


def test_a_suite_needs_an_attack() -> None:
    with pytest.raises(InputError, match="would call everything robust"):
        Suite("none", (), "")
