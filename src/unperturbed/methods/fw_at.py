"""Adversarial training with Frank-Wolfe, of a fixed number of steps or of one that follows the distortion."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from unperturbed.checks import COUNT, checked
from unperturbed.errors import InputError
from unperturbed.losses import cross_entropy
from unperturbed.maximise.ascent import Maximiser
from unperturbed.maximise.frank_wolfe import FrankWolfe
from unperturbed.methods.at import cross_entropy_score
from unperturbed.methods.base import Method, sum_over_processes
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Inputs, Model, PerExample, Terms


@dataclass(frozen=True)
class FWAT(Method):
    """CE at the end of Frank-Wolfe on the loss (Tsiligkaridis & Roberts 2022, https://arxiv.org/abs/2012.12368).

    The end is a mean of corners of S(x), and lies at a corner itself where the loss is linear. The log has
    its distortion. The released code leaves the box out of the search.

    Attributes:
        maximiser: the inner maximisation of the cross-entropy.
    """

    name: ClassVar[str] = "fw-at"
    ramp: ClassVar[float] = 0.25
    maximiser: Maximiser = field(default_factory=lambda: FrankWolfe(steps=7))

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Maximise the cross-entropy."""
        z = self.maximiser(cross_entropy_score(model, batch), batch.x, threat, noise)
        return Inner(z, log={"distortion": distortion(threat, batch.x, z)})

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the mean cross-entropy at the perturbed inputs."""
        return {"adversarial": cross_entropy(model(inner.z), batch.targets).mean()}


class FWATAdapt(nn.Module, Method):
    """FW-AT with fewer steps where two of them end near a corner, and more where not (Tsiligkaridis & Roberts 2022).

    https://arxiv.org/abs/2012.12368. A cycle of `cycle` examples begins with `monitored` ones on two
    steps. Their mean distortion D decides about the rest of the cycle: half of the last cycle's steps where D >= r,
    rounded down but at least 1, and otherwise two more than these, at most 15. Before the first cycle that number is 1.

    A method sees no epochs, so examples are counted, over all processes. The paper's cycle is an epoch: set `cycle` to
    the number of training examples to have that. On a smaller data set the default spans several epochs, and the
    decision of the first cycle may last to the end of a short run. While eps still changes, every step begins a new
    cycle, so that a ramp uses two steps: the distortion in a small ball says little about a larger one. So the first
    step at an eps never decides alone, whatever its number of examples. The released code leaves the box out, and its
    script's default r, 2, is never reached.

    Attributes:
        cycle: examples from one decision to the next, the monitored ones included.
        monitored: examples on two steps that begin a cycle.
        r: the distortion from which the steps decrease, between 0 and 1.
    """

    name: ClassVar[str] = "fw-at-adapt"
    ramp: ClassVar[float] = 0.25
    steps: Tensor
    last: Tensor
    seen: Tensor
    total: Tensor
    eps: Tensor

    @checked(cycle=COUNT, monitored=COUNT)
    def __init__(self, cycle: int = 50_000, monitored: int = 1_000, r: float = 0.9) -> None:
        super().__init__()
        if not 0 < r < 1:
            raise InputError(
                f"r is {r}, but must lie between 0 and 1, as distortions do: steps would only grow, or fall."
            )
        if not 1 <= monitored < cycle:
            raise InputError(f"monitored is {monitored}, but must be at least 1 and less than cycle, which is {cycle}.")
        self.cycle, self.monitored, self.r = cycle, monitored, r
        self.register_buffer("steps", torch.tensor(2))
        self.register_buffer("last", torch.tensor(1))
        self.register_buffer("seen", torch.tensor(0))
        self.register_buffer("total", torch.tensor(0.0))  # distortion of the monitored examples
        self.register_buffer("eps", torch.tensor(-1.0))  # of the last step; none yet

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Maximise the cross-entropy with the current number of steps."""
        search = FrankWolfe(int(self.steps))
        z = search(cross_entropy_score(model, batch), batch.x, threat, noise)
        reached = distortion(threat, batch.x, z)
        return Inner(z, log={"distortion": reached, "steps": torch.full_like(reached, search.steps)})

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the mean cross-entropy at the perturbed inputs."""
        return {"adversarial": cross_entropy(model(inner.z), batch.targets).mean()}

    def after_step(self, batch: Batch, inner: Inner, terms: Terms, threat: Threat) -> None:
        """Count the batch, and decide once the monitored examples are complete."""
        reached, was_monitored = inner.log["distortion"], bool(self.seen < self.monitored)
        eps = torch.tensor(threat.eps).to(self.eps)
        changed = not torch.equal(eps, self.eps)
        if changed:
            self._begin_cycle()
            self.eps = eps
            if not was_monitored:
                return
        examples = torch.full_like(reached[0], len(reached))
        examples, total = sum_over_processes(torch.stack([examples, reached.sum()]))
        self.seen = self.seen + examples.to(self.seen)
        if was_monitored:
            self.total = self.total + total.to(self.total)
            if self.seen >= self.monitored and changed:  # by a single step: the next eps may differ again
                self._begin_cycle()
            elif self.seen >= self.monitored:
                self._decide()
        if self.seen >= self.cycle:
            self._begin_cycle()

    def _decide(self) -> None:
        flat = self.total / self.seen >= self.r
        self.last = torch.where(flat, (self.last // 2).clamp(min=1), (self.last + 2).clamp(max=15))
        self.steps = self.last

    def _begin_cycle(self) -> None:
        self.steps = torch.full_like(self.steps, 2)
        self.seen, self.total = torch.zeros_like(self.seen), torch.zeros_like(self.total)


def distortion(threat: Threat, x: Inputs, z: Inputs) -> PerExample:
    """Return |z - x|_2 over its value at the corner of S(x) in that direction: 1 at corners, 0 where z is x.

    Away from the box this is the paper's |z - x|_2 / (eps sqrt(d)) for Linf. Where the box cuts the ball, that would
    stay below 1 at every corner: below 0.8 on images of which most is black. (For L1 cut by the box, the corner in the
    direction of a corner may differ from it, and the value there is a little below 1.)
    """
    farthest = threat.distortion(x, threat.maximise_linear(x, z - x))
    return threat.distortion(x, z) / torch.where(farthest > 0, farthest, 1.0)
