"""The methods on local geometry, their regularisers' weight gradients as training takes them, and their comparison."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from support.examples import make_batch
from unperturbed.methods.base import Method
from unperturbed.methods.cure import CURE
from unperturbed.methods.elle import ELLE, ELLE_A
from unperturbed.methods.fw_at import FWAT, FWATAdapt
from unperturbed.methods.grad_align import GradAlign
from unperturbed.methods.gradient_penalty import GradientPenalty
from unperturbed.methods.llr import LLR
from unperturbed.methods.scorpio import SCORPIO
from unperturbed.methods.soar import SOAR
from unperturbed.methods.sora import SORA
from unperturbed.networks.modes import buffers_restored, under_attack
from unperturbed.networks.precision import InPrecision
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training.step import optimisation_step
from unperturbed.types import Batch, Inner, Model, Terms

THREAT = Threat("Linf", 0.15)
BATCH = make_batch(16)
Gradient = dict[str, Tensor]


def elle_a() -> ELLE_A:
    """Return ELLE-A after its weight has jumped; it begins at 0."""
    method = ELLE_A()
    method.current = torch.tensor(1000.0)
    return method


@dataclass(frozen=True)
class Case:
    """One regularising term of a method: the only one where a method has no other."""

    make: Callable[[], Method]
    term: str
    norm: str = "batch"
    """The second normalisation of the network: "batch" or "layer"."""


CASES: dict[str, Case] = {
    "scorpio": Case(SCORPIO, "worst"),
    "scorpio, loss gap": Case(lambda: SCORPIO(weight=0.5), "gap"),
    "scorpio, exact products": Case(lambda: SCORPIO(weight=0.5, product="exact"), "gap"),
    "scorpio, quadratic": Case(lambda: SCORPIO(weight=0.5, value="quadratic"), "gap"),
    "llr, gap": Case(LLR, "gap"),
    "llr, slope": Case(LLR, "slope"),
    "llr differences, gap": Case(lambda: LLR(form="differences"), "gap"),
    "llr differences, slope": Case(lambda: LLR(form="differences"), "slope"),
    "llr in parts, gap": Case(lambda: LLR(parts=2), "gap"),
    "llr in parts, slope": Case(lambda: LLR(parts=2), "slope"),
    "llr in reverse mode, gap": Case(LLR, "gap", "layer"),
    "llr in reverse mode, slope": Case(LLR, "slope", "layer"),
    "gradient-penalty": Case(GradientPenalty, "penalty"),
    "gradient-penalty, central": Case(lambda: GradientPenalty(form="central"), "penalty"),
    "gradient-penalty, exact": Case(lambda: GradientPenalty(form="exact"), "penalty"),
    "cure": Case(CURE, "curvature"),
    "soar": Case(SOAR, "curvature"),
    "grad-align": Case(GradAlign, "misalignment"),
    "elle": Case(ELLE, "linearity"),
    "elle-a": Case(elle_a, "linearity"),
    "fw-at": Case(FWAT, "adversarial"),
    "fw-at-adapt": Case(FWATAdapt, "adversarial"),
    "sora": Case(SORA, "adversarial"),
}


def network(case: Case, batch_norm: str = "train", dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Return convolutions and SiLU in train mode, with batch norm whose averages are not those of the batch.

    Batch norm is in "train" mode, or "frozen" in eval mode, or there is "none".
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        norms: list[nn.Module] = [nn.BatchNorm2d(6) if batch_norm != "none" else nn.Identity() for _ in range(2)]
        if case.norm == "layer":
            norms[1] = nn.LayerNorm([6, 4, 4])
        model = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1, bias=False), norms[0], nn.SiLU(),
            nn.Conv2d(6, 6, 3, padding=1, bias=False), norms[1], nn.SiLU(),
            nn.Flatten(), nn.Linear(96, 3),
        )  # fmt: skip
        with torch.no_grad():
            model.get_parameter("7.weight").mul_(4)
            for weight in norms[0].parameters():
                weight.add_(0.2 * torch.randn(weight.shape))
            for _ in range(20):
                model(torch.rand(16, 2, 4, 4) ** 2)
    for norm in norms:
        norm.train(batch_norm == "train")
    return model.to(dtype)


class Narrow(Noise):
    """The random numbers of float32 in float64, too."""

    def uniform(self, shape: torch.Size | tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        return super().uniform(shape).to(dtype)


class Alone(Method):
    """A method whose inner result is given and whose other terms are left out; the memory stays the method's."""

    def __init__(self, method: Method, term: str, inner: Inner | None = None) -> None:
        self.method, self.term, self.inner = method, term, inner

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        return self.method.perturb(model, batch, threat, noise) if self.inner is None else self.inner

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        return {self.term: self.method.loss(model, batch, inner, threat, noise)[self.term]}

    def after_step(self, batch: Batch, inner: Inner, terms: Terms, threat: Threat) -> None:
        self.method.after_step(batch, inner, terms, threat)


def points(case: Case, attacked: InPrecision, batch: Batch = BATCH) -> Inner:
    """Return the inner result on this network."""
    with under_attack(attacked):
        return case.make().perturb(attacked, batch, THREAT, noise_of(batch))


def noise_of(batch: Batch) -> Noise:
    return Narrow.of(5, batch.ids)


def in_precision(dtype: torch.dtype, batch: Batch, inner: Inner) -> tuple[Batch, Inner]:
    """Return copies of a batch and an inner result in this precision."""
    reuse, log = ({name: t.detach().to(dtype, copy=True) for name, t in d.items()} for d in (inner.reuse, inner.log))
    z = inner.z.detach().to(dtype, copy=True).requires_grad_(inner.z.requires_grad)
    return Batch(batch.x.to(dtype), batch.y, batch.ids), Inner(z, reuse, log)


def trained_gradient(
    method: Method, attacked: InPrecision, batch: Batch = BATCH, fabric: Fabric | None = None
) -> Gradient:
    """Return the weight gradient that an optimisation step leaves, through Fabric; the network stays as it is."""
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    wrapped, optimiser = fabric.setup(attacked, torch.optim.SGD(attacked.parameters(), lr=0.0))
    with buffers_restored(attacked):
        optimisation_step(fabric, attacked, wrapped, optimiser, method, batch, THREAT, noise_of(batch))
    found = {name: w.grad.clone() for name, w in attacked.network.named_parameters() if w.grad is not None}
    attacked.zero_grad()
    return found


def check_agrees(found: Gradient, expected: Gradient, tolerance: float) -> None:
    """Assert that each weight has a gradient, not zero, within this share of the one expected."""
    assert found.keys() == expected.keys(), "each weight has a gradient"
    for name, gradient in found.items():
        size = float(expected[name].norm())
        assert size > 1e-6 and gradient.any(), f"{name}: the gradient is zero"
        away = float((gradient.to(expected[name].dtype) - expected[name]).norm()) / size
        assert away <= tolerance, f"{name}: the gradient is {away:.1e} of its size away"
