"""ELLE and ELLE-A against their formulas, typed again here with plain autograd."""

import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from support.examples import NORMS, make_batch, network, noise_for
from unperturbed.errors import InputError
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.base import mean_over_processes, sum_over_processes
from unperturbed.methods.elle import ELLE, ELLE_A
from unperturbed.methods.fgsm import FGSM
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import InPrecision
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Inputs, Logits, Norm

BATCH = make_batch(12, torch.float64)
THREAT = Threat("Linf", 0.3)


def start(method: ELLE | ELLE_A, model: nn.Module, batch: Batch = BATCH, threat: Threat = THREAT) -> Inner:
    with under_attack(model):
        return method.perturb(model, batch, threat, noise_for(batch))


def triplet(batch: Batch, threat: Threat) -> tuple[Inputs, Inputs, Inputs, Tensor]:
    """Return x_a, x_b, x_c and a for Linf, from the same random numbers."""
    noise = noise_for(batch)
    low, high = (batch.x - threat.eps).clamp(0, 1), (batch.x + threat.eps).clamp(0, 1)
    x_a, x_b = (low + noise.fold(k).uniform(batch.x.shape[1:], batch.x.dtype) * (high - low) for k in (0, 1))
    a = noise.fold(2).uniform((1, 1, 1), batch.x.dtype)
    return x_a, x_b, (1 - a) * x_a + a * x_b, a.flatten()


def elle_by_hand(losses: Sequence[Tensor], a: Tensor, weight: float) -> Tensor:
    adversarial, l_a, l_b, l_c = losses
    return adversarial.mean() + weight * (l_c - (1 - a) * l_a - a * l_b).square().mean()


class Straight(nn.Module):
    """Logits (0, t) with t far above 0, so that the loss of class 0 is t itself: affine, or with a quadratic part."""

    def __init__(self, curvature: float = 0.0) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.randn(32, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
        self.curvature = nn.Parameter(torch.tensor(curvature, dtype=torch.float64))

    def forward(self, x: Inputs) -> Logits:
        x = x.flatten(1)
        t = 1000 + x @ self.slope + self.curvature * x.square().sum(1)
        return torch.stack([torch.zeros_like(t), t], dim=1)


OF_CLASS_0 = Batch(BATCH.x, torch.zeros_like(BATCH.y), BATCH.ids)


def gradients(terms: dict[str, Tensor], model: nn.Module) -> tuple[Tensor, ...]:
    return torch.autograd.grad(torch.stack(list(terms.values())).sum(), list(model.parameters()))


def test_elle_is_its_formula_on_a_smooth_network() -> None:
    model, method = network("plain", torch.float64), ELLE(weight=70.0)
    terms = method.loss(model, BATCH, start(method, model), THREAT, noise_for(BATCH))
    leaf = BATCH.x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(functional.cross_entropy(model(leaf), BATCH.y, reduction="sum"), leaf)
    fgsm = (BATCH.x + 0.3 * slope.sign()).clamp(0, 1)
    x_a, x_b, x_c, a = triplet(BATCH, THREAT)
    losses = [functional.cross_entropy(model(z), BATCH.y, reduction="none") for z in (fgsm, x_a, x_b, x_c)]
    expected = elle_by_hand(losses, a, 70.0)
    torch.testing.assert_close(terms["adversarial"] + terms["linearity"], expected, rtol=0, atol=1e-12)
    assert terms["linearity"] > 1e-4
    for mine, theirs in zip(
        gradients(terms, model), torch.autograd.grad(expected, list(model.parameters())), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_batch_norm_holds_the_statistics_of_the_adversarial_batch() -> None:
    """With their graph to the weights; its averages move once, as in an ordinary training forward."""
    model, method = network("norm", torch.float64), ELLE(weight=70.0)
    inner = start(method, model)
    terms = method.loss(model, BATCH, inner, THREAT, noise_for(BATCH))
    conv, norm, _, _, last = model
    statistics: list[Tensor] = []

    def forward(z: Inputs) -> Tensor:
        h = conv(z)
        if not statistics:
            statistics.extend((h.mean((0, 2, 3), keepdim=True), h.var((0, 2, 3), keepdim=True, correction=0)))
        mean, var = statistics
        h = (h - mean) / (var + norm.eps).sqrt() * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
        return functional.cross_entropy(last(functional.softplus(h).flatten(1)), BATCH.y, reduction="none")

    x_a, x_b, x_c, a = triplet(BATCH, THREAT)
    expected = elle_by_hand([forward(z) for z in (inner.z, x_a, x_b, x_c)], a, 70.0)
    torch.testing.assert_close(terms["adversarial"] + terms["linearity"], expected, rtol=0, atol=1e-12)
    for mine, theirs in zip(
        gradients(terms, model), torch.autograd.grad(expected, list(model.parameters())), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)

    ordinary = network("norm", torch.float64)
    ordinary(inner.z)
    for name, buffer in ordinary.named_buffers():
        torch.testing.assert_close(model.get_buffer(name), buffer, rtol=0, atol=1e-14)


def test_an_affine_loss_has_no_bend() -> None:
    model, method = Straight(), ELLE()
    terms = method.loss(model, OF_CLASS_0, start(method, model, OF_CLASS_0), THREAT, noise_for(BATCH))
    assert terms["linearity"] < 1e-18


def test_the_bend_of_a_quadratic_loss_is_known() -> None:
    """-c a (1 - a) |x_a - x_b|^2."""
    model, method = Straight(curvature=-3.0), ELLE(weight=5.0)
    terms = method.loss(model, OF_CLASS_0, start(method, model, OF_CLASS_0), THREAT, noise_for(BATCH))
    x_a, x_b, _, a = triplet(BATCH, THREAT)
    bend = 3.0 * a * (1 - a) * (x_a - x_b).flatten(1).square().sum(1)
    torch.testing.assert_close(terms["linearity"], 5.0 * bend.square().mean(), rtol=1e-9, atol=0)


def test_the_term_falls_with_the_fourth_power_of_eps() -> None:
    model, method = network("plain", torch.float64), ELLE()
    values = []
    for eps in (1e-2, 5e-3):
        threat = Threat("Linf", eps, None)
        inner = start(method, model, BATCH, threat)
        values.append(float(method.loss(model, BATCH, inner, threat, noise_for(BATCH))["linearity"].detach()))
    assert values[0] / values[1] == pytest.approx(16, rel=0.02)


def test_all_four_losses_carry_gradient() -> None:
    given = [torch.randn((12, 3), dtype=torch.float64, requires_grad=True) for _ in range(4)]

    class Given(nn.Module):
        calls = 0

        def forward(self, x: Inputs) -> Logits:
            self.calls += 1
            return given[self.calls - 1]

    terms = ELLE().loss(Given(), BATCH, Inner(BATCH.x), THREAT, noise_for(BATCH))
    found = torch.autograd.grad(terms["linearity"], given, allow_unused=True, retain_graph=True)
    assert found[0] is None and all(bool((g.norm(dim=1) > 0).all()) for g in found[1:])
    found = torch.autograd.grad(terms["adversarial"], given, allow_unused=True)
    assert found[0] is not None and found[1:] == (None, None, None)


@pytest.mark.parametrize("norm", NORMS)
def test_the_chord_lies_inside_the_threat(norm: Norm) -> None:
    """Box included: half of the ends would otherwise lie outside of it at saturated pixels."""
    model, method = network("plain", torch.float64), ELLE()
    threat = Threat(norm, {"Linf": 0.3, "L2": 0.8, "L1": 3.0}[norm])
    inner = start(method, model, BATCH, threat)
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach().clone()))
    method.loss(model, BATCH, inner, threat, noise_for(BATCH))
    z, x_a, x_b, x_c = seen
    assert torch.equal(z, inner.z) and all(threat.contains(BATCH.x, point).all() for point in seen)
    assert threat.distance(x_a, x_b).min() > 0.1 * threat.eps
    lengths = [threat.distance(*ends) for ends in ((x_a, x_c), (x_c, x_b), (x_a, x_b))]
    torch.testing.assert_close(lengths[0] + lengths[1], lengths[2])
    assert (lengths[0] / lengths[2]).std() > 0.1, "the place on the chord is the example's own"


@pytest.mark.parametrize("method", [ELLE(), ELLE_A()], ids=["elle", "elle-a"])
def test_the_search_is_fgsm(method: ELLE | ELLE_A) -> None:
    model = network("plain", torch.float64)
    with under_attack(model):
        expected = FGSM().perturb(model, BATCH, THREAT, noise_for(BATCH)).z
    assert torch.equal(start(method, model).z, expected)


def test_bfloat16_training_measures_in_float32() -> None:
    """A bend of 1e-5 would drown in bfloat16's rounding of the losses."""
    batch, threat, found = make_batch(8), Threat("Linf", 0.02), []
    for autocast in (None, torch.bfloat16):
        model = InPrecision(network("norm"), autocast)
        inner = Inner(threat.sample(batch.x, noise_for(batch)))
        terms = ELLE().loss(model, batch, inner, threat, noise_for(batch))
        found.append(torch.autograd.grad(terms["linearity"], list(model.parameters())))
    assert all(torch.equal(one, other) and one.any() for one, other in zip(*found, strict=True))


def test_elle_refuses_a_negative_weight_and_warns_of_dropout() -> None:
    assert ELLE().weight == 1000.0
    with pytest.raises(InputError, match="weight"):
        ELLE(weight=-1.0)
    for method in (ELLE(), ELLE_A()):
        assert method.stronger() == AT(PGD(steps=2))
        assert not method.check(network("norm", torch.float64), BATCH, THREAT, noise_for(BATCH))
        assert "dropout" in method.check(network("dropout"), BATCH, THREAT, noise_for(BATCH))[0]


# ELLE-A


def remember(method: ELLE_A, values: Sequence[float]) -> list[float]:
    """Return the weight of each next step, when the mean squares of the bend are these."""
    weights = []
    for value in values:
        log = {"nonlinearity": torch.tensor([0.5 * value, 1.5 * value])}
        method.after_step(BATCH, Inner(BATCH.x, log=log), {}, THREAT)
        weights.append(float(method.current))
    return weights


def authors_weights(values: Sequence[float], top: float) -> list[float]:
    """Return lambda after each step, with the whole history in a list."""
    history: list[float] = []
    weight, weights = 0.0, []
    for value in values:
        if len(history) > 2 and value > np.mean(history) + 2 * np.std(history):
            weight = top
        else:
            weight *= 0.99
        history.append(value)
        weights.append(weight)
    return weights


def test_elle_a_follows_its_rule() -> None:
    draw = np.random.default_rng(0)
    values = (draw.exponential(size=300) * 1e-3).tolist()
    found, expected = remember(ELLE_A(), values), authors_weights(values, 4000.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert 5 < sum(weight == 4000.0 for weight in expected) < 100


@pytest.mark.slow
def test_elle_a_counts_as_if_it_kept_everything() -> None:
    """Welford's recursion in float32 at small numbers far from 0, where sums of squares would cancel."""
    values = (1.0 + 1e-4 * np.random.default_rng(0).normal(size=2000)).astype(np.float32).tolist()
    method = ELLE_A()
    remember(method, values)
    assert int(method.count) == 2000 and float(method.mean) == pytest.approx(np.mean(values), rel=5e-6)
    assert float((method.squares / method.count).sqrt()) == pytest.approx(np.std(values), rel=0.02)


def test_elle_a_does_not_jump_before_it_has_seen_three() -> None:
    assert remember(ELLE_A(), [1.0, 5.0, 50.0, 1e3, 1.0, 1.0]) == pytest.approx([0, 0, 0, 4000, 3960, 3920.4])
    assert remember(ELLE_A(), [1.0, 1.0, 1.0, 1.0]) == [0, 0, 0, 0], "more than usual, not as much"
    assert remember(ELLE_A(weight=7.0, sensitivity=1e3), [1.0, 2.0, 3.0, 9.0]) == [0, 0, 0, 0]


def test_elle_a_is_elle_with_the_weight_of_the_moment() -> None:
    model, method = network("norm", torch.float64), ELLE_A()
    for weight in (0.0, 70.0):
        method.current = torch.tensor(weight)
        inner = start(method, model)
        terms = method.loss(model, BATCH, inner, THREAT, noise_for(BATCH))
        expected = ELLE(weight=70.0).loss(model, BATCH, inner, THREAT, noise_for(BATCH))
        torch.testing.assert_close(inner.log["nonlinearity"].mean(), expected["linearity"] / 70)
        torch.testing.assert_close(terms["linearity"], expected["linearity"] * weight / 70)
        torch.testing.assert_close(terms["adversarial"], expected["adversarial"])
        torch.testing.assert_close(inner.log["weight"], torch.full((12,), weight, dtype=torch.float64))
        assert inner.log["nonlinearity"].min() > 0 and not inner.log["nonlinearity"].requires_grad


def test_elle_a_remembers_after_the_step_only() -> None:
    model, method = network("plain", torch.float64), ELLE_A()
    before = {name: value.clone() for name, value in method.named_buffers()}
    for _ in range(2):
        inner = start(method, model)
        method.loss(model, BATCH, inner, THREAT, noise_for(BATCH))
    assert all(torch.equal(value, before[name]) for name, value in method.named_buffers())
    method.after_step(BATCH, inner, {}, THREAT)
    assert int(method.count) == 1 and float(method.mean) == pytest.approx(float(inner.log["nonlinearity"].mean()))


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"sensitivity": -0.1}, {"decay": 1.5}, {"decay": -0.1}])
def test_elle_a_refuses_what_makes_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        ELLE_A(**wrong)


def test_one_process_is_its_own_mean() -> None:
    values = torch.tensor([1.0, 2.0])
    assert mean_over_processes(values) is values and sum_over_processes(values) is values


def take_part(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    own = torch.tensor([1.0, 10.0]) * (rank + 1)
    found: dict[str, Any] = {"mean": mean_over_processes(own), "sum": sum_over_processes(own), "own": own}
    method = ELLE_A()
    for scale in (1.0, 1.1, 0.9, 2.0):
        log = {"nonlinearity": scale * own}
        method.after_step(BATCH, Inner(BATCH.x, log=log), {}, THREAT)
    memory = {f"memory.{name}": value for name, value in method.named_buffers()}
    torch.save(found | memory, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_remember_the_same(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=take_part, args=(rank, str(tmp_path))) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first["own"].tolist() == [1, 10] and second["own"].tolist() == [2, 20], "what was given stays"
    for found in (first, second):
        assert found["mean"].tolist() == [1.5, 15] and found["sum"].tolist() == [3, 30]
        assert float(found["memory.current"]) == 4000
    alone = ELLE_A()
    for scale in (1.0, 1.1, 0.9, 2.0):
        log = {"nonlinearity": scale * torch.tensor([1.5, 15.0])}
        alone.after_step(BATCH, Inner(BATCH.x, log=log), {}, THREAT)
    for name, value in alone.named_buffers():
        assert torch.equal(first[f"memory.{name}"], second[f"memory.{name}"])
        torch.testing.assert_close(first[f"memory.{name}"], value)
