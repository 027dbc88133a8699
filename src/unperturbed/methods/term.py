"""Tilted empirical risk minimisation."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from unperturbed.checks import check_fields
from unperturbed.errors import InputError
from unperturbed.losses import cross_entropy
from unperturbed.methods.base import Method, several_processes, sum_over_processes
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Model, Terms


@dataclass(frozen=True)
class TERM(Method):
    """log(mean exp(tilt * CE(f(x), y))) / tilt over the batch: a mean that weights high losses more (Li et al. 2021).

    Tilted empirical risk minimisation, https://arxiv.org/abs/2007.01162, eq. 2. Towards tilt 0 it is the mean, towards
    infinity the maximum; a negative tilt weights low losses more. The batch is that of all processes together.

    Attributes:
        tilt: the tilt; larger values weight high losses more.
    """

    name: ClassVar[str] = "term"
    tilt: float = 2.0

    def __post_init__(self) -> None:
        """Refuse a tilt of 0, which is ordinary training, and one that is not finite."""
        check_fields(self)
        if self.tilt == 0:
            raise InputError(f"tilt is {self.tilt}, but must be finite and not 0 (that is the method erm).")

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Return the inputs as they are."""
        return Inner(batch.x)

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the tilted mean, whose gradient, averaged over the processes, is that of the whole batch."""
        mine = (self.tilt * cross_entropy(model(batch.x), batch.targets)).logsumexp(dim=0)
        if not several_processes():
            return {"tilted": (mine - math.log(len(batch.x))) / self.tilt}
        world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        row = torch.zeros(world, 2, dtype=mine.dtype, device=mine.device)
        row[rank, 0], row[rank, 1] = mine.detach(), len(batch.x)
        sums, counts = sum_over_processes(row).unbind(dim=1)
        total = sums.logsumexp(dim=0)
        share = world * (mine.detach() - total).exp()
        return {"tilted": (total - counts.sum().log() + share * (mine - mine.detach())) / self.tilt}
