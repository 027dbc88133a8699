"""DALE: training on perturbations that are sampled, next to the nominal loss."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch

from unperturbed.checks import NOT_NEGATIVE, check_fields
from unperturbed.errors import InputError
from unperturbed.losses import boosted_cross_entropy, cross_entropy, kl, log_wrong
from unperturbed.maximise.ascent import Maximiser
from unperturbed.maximise.langevin import Langevin
from unperturbed.maximise.restarts import Restarts
from unperturbed.methods.base import Method
from unperturbed.methods.constrained import Constrained
from unperturbed.methods.trades import near
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Inputs, Logits, Model, PerExample, Rows, Terms

LossOnBatch = Literal["cross-entropy", "boosted"]
Robust = Literal["cross-entropy", "boosted", "kl"]
Sampler = Literal["log-wrong", "cross-entropy", "kl"]


@dataclass(frozen=True)
class _Sampled(Method):
    """The base of the presets below: R(z) + weight * N(x), z from a chain that climbs the sampler's potential.

    The form with a fixed weight in the released code of dual adversarial learning (Robey et al. 2021,
    https://arxiv.org/abs/2110.15767). The chain (of `Restarts`, the first) starts at x + 0.001 N(0, 1), and ignores its
    `random_start`. With the weight learned from a limit on N, as in the paper's algorithm 1, it is `Constrained` around
    a preset of weight 0, built by `dual`.

    Attributes:
        weight: of the nominal loss; 0 leaves it out, for a limit on it (`constrained`).
        robust: the loss at z, "kl" from the prediction at x.
        sampler: the potential of the chain.
        nominal: the loss at x.
        maximiser: the chain; it begins at x + 0.001 N(0, 1), whatever its `random_start`.
    """

    ramp: ClassVar[float] = 0.25
    weight: float = 0.1
    robust: Robust = "cross-entropy"
    sampler: Sampler = "log-wrong"
    nominal: LossOnBatch = "cross-entropy"
    maximiser: Maximiser = field(default_factory=lambda: Langevin(steps=10))

    def __post_init__(self) -> None:
        """Refuse a negative weight, and losses that are not choices."""
        check_fields(self, weight=NOT_NEGATIVE)

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Run the chain."""
        return Inner(self._chain(model, batch, threat, noise, noise))

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the robust loss at the end of the chain and, unless its weight is 0, the weighted nominal loss."""
        sampled, clean = model(inner.z), None
        if self.weight > 0 or self.robust == "kl":
            clean = model(batch.x)
        if self.robust == "kl":
            assert clean is not None
            terms = {"sampled": kl(sampled, clean).mean()}
        else:
            terms = {"sampled": _of_batch(self.robust, sampled, batch).mean()}
        if self.weight > 0 and clean is not None:
            terms["nominal"] = self.weight * _of_batch(self.nominal, clean, batch).mean()
        return terms

    def check(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> list[str]:
        """Warn if the chain, restarted or not, has no noise."""
        chain = self.maximiser
        while isinstance(chain, Restarts):
            chain = chain.maximiser
        if not isinstance(chain, Langevin):
            return [f"{self.name} maximises here: its chain is {type(chain).__name__}, not Langevin dynamics."]
        if chain.steps == 0:
            return [f"{self.name} runs no chain here: with 0 steps it ends where it begins."]
        if chain.temperature > 0:
            return []
        climb = "gradient ascent" if chain.move == "plain" else "PGD"
        return [f"{self.name} maximises here: without noise (temperature 0) its chain is {climb}."]

    def examine(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> dict[str, PerExample]:
        """Return `spread`, how far two chains from one start end apart: |z - z'|_2 over the longest possible, 0 to 1.

        Near 0, the noise does not matter, and the method is a maximisation.
        """
        first, second = (self._chain(model, batch, threat, noise, noise.fold(k)) for k in (1, 2))
        return {"spread": threat.distortion(first, second) / 2}

    @classmethod
    def dual(cls, nominal_loss: float | None = None, **settings: Any) -> Constrained:
        """Return the method with a learned weight: minimise R alone under a limit on the mean nominal cross-entropy.

        `settings` are those of `Constrained`, and the method's robust, sampler and maximiser, by name.

        Raises:
            InputError: for a nominal loss or a weight: the cross-entropy and the dual variable replace them.
        """
        for name in ("nominal", "weight"):
            if name in settings:
                raise InputError(
                    f"{name} is {settings[name]!r}, but does not apply here: the limit is on the cross-entropy, and "
                    "its "
                    "weight is learned. Leave it out, or train with a fixed weight: "
                    f"{cls.__name__}({name}={settings[name]!r})."
                )
        arguments = {name: settings.pop(name) for name in ("robust", "sampler", "maximiser") if name in settings}
        return Constrained(cls(weight=0.0, **arguments), nominal_loss, **settings)

    def _chain(self, model: Model, batch: Batch, threat: Threat, of_start: Noise, of_chain: Noise) -> Inputs:
        clean: Logits | None = None
        if self.sampler == "kl":
            with torch.no_grad():
                clean = model(batch.x)

        def potential(z: Inputs, rows: Rows) -> PerExample:
            if clean is not None:
                return kl(model(z), clean[rows])
            loss = log_wrong if self.sampler == "log-wrong" else cross_entropy
            return loss(model(z), batch.y[rows])

        start = near(batch.x, threat, of_start)
        return self.maximiser(potential, batch.x, threat, of_chain, start)


@dataclass(frozen=True)
class DALE(_Sampled):
    """CE(f(z), y) + weight * CE(f(x), y), z sampled by signed steps and Gaussian noise (Robey et al. 2021).

    https://arxiv.org/abs/2110.15767. The released noise is nearly none (on CIFAR-10 none at all), which makes this
    PGD; here the temperature is such that it matters. The sampler's potential is log(1 - p_y), whose gradient is that
    of the cross-entropy times p_y / (1 - p_y).
    """

    name: ClassVar[str] = "dale"


@dataclass(frozen=True)
class DALELaplacian(_Sampled):
    """DALE with Laplacian noise inside the sign: z <- P(z + h eps sign(gradient + noise)) (Robey et al. 2021).

    https://arxiv.org/abs/2110.15767. The released noise, next to mean gradients of 64 examples, is about the
    temperature of 1e-4 on MNIST and CIFAR-10 alike.
    """

    name: ClassVar[str] = "dale-laplacian"
    maximiser: Maximiser = field(
        default_factory=lambda: Langevin(steps=10, temperature=1e-4, law="laplacian", move="noisy-sign")
    )


@dataclass(frozen=True)
class DALEKL(_Sampled):
    """KL(f(x) || f(z)) + weight * CE(f(x), y), z sampled by signed steps on the divergence (Robey et al. 2021).

    https://arxiv.org/abs/2110.15767: TRADES, divided by beta, with a sampler instead of its search. Weights get
    gradient through both branches.
    """

    name: ClassVar[str] = "dale-kl"
    robust: Robust = "kl"
    sampler: Sampler = "kl"


def _of_batch(loss: str, logits: Logits, batch: Batch) -> PerExample:
    if loss == "boosted":
        return boosted_cross_entropy(logits, batch.y, batch.targets)
    return cross_entropy(logits, batch.targets)
