"""Whether a network is a function of one example: random numbers, state between calls, dependence on the batch."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from unperturbed.examinations.remedies.deployed import state_restored
from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.types import Inputs, Logits

FIRST = 64
"""Examples whose forwards are repeated, reordered and regrouped; random numbers are looked for on all batches."""
SIZES = (2, 5)
"""Sizes of batches that are compared with the whole, in addition to single examples."""
ALIKE = 1e-3
"""Relative difference of logits up to which they count as the same: rounding, also in reduced precision."""


@dataclass(frozen=True)
class Behaviour:
    """What a network's logits depend on besides the example.

    Attributes:
        n: examples whose company changes.
        drawn: examples of which two draws were compared.
        spread: mean over examples of the logits' standard deviation across classes.
        random: largest change of a logit between two draws, in units of `spread`.
        state: the same between a call and the same call after others.
        company: the same with other examples in the batch.
        size: the same alone and in batches of several sizes.
    """

    n: int
    drawn: int
    spread: float
    random: float
    state: float
    company: float
    size: float

    @property
    def is_random(self) -> bool:
        """Whether two draws give different logits."""
        return self.random > 0

    @property
    def stateful(self) -> bool:
        """Whether a call changes a later one."""
        return self.state > ALIKE

    @property
    def coupled(self) -> bool:
        """Whether the other examples in a batch matter."""
        return max(self.company, self.size) > ALIKE


@contextmanager
def drawn(seed: int, device: torch.device) -> Iterator[None]:
    """Have the generators of torch, NumPy and Python start from a seed inside, and be as before afterwards."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        np.random.seed(seed)
        random.seed(seed)
        with own_randomness(seed, device):
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def behaviour_of(model: nn.Module, examples: Inputs, seed: int, batch_size: int) -> Behaviour:
    """Compare the logits of repeated, reordered, regrouped and single forwards, and two draws of every batch."""
    x = examples[:FIRST]
    half = max(len(x) // 2, 1)
    first, second = x[:half], x[half : 2 * half] if len(x) > 1 else x

    def logits(z: Inputs, draw: int = 0) -> Logits:
        with torch.no_grad(), drawn(seed + draw, z.device):
            found: Logits = model(z).detach().double()
            return found

    with under_attack(model):
        with state_restored(model):
            once = logits(first)
        with state_restored(model):
            again = logits(first)
        with state_restored(model):
            other = logits(first, 1)
        with state_restored(model):
            logits(second[: len(first)])
            logits(second[: len(first)])
            later = logits(first)
        steady = torch.equal(once.nan_to_num(), again.nan_to_num())
        random_change = max(_apart(once, again), _apart(once, other))
        for part in torch.split(examples, batch_size):
            with state_restored(model):
                here = logits(part)
            with state_restored(model):
                random_change = max(random_change, _apart(here, logits(part, 1)))
        company, size = _batch_changes(model, logits, first, second, once, steady and random_change == 0)
    spread = float(once.std(dim=1).nan_to_num(nan=0.0).mean())
    unit = max(spread, torch.finfo(torch.float64).tiny)
    state = _apart(once, later) if steady else 0.0
    return Behaviour(len(first), len(examples), spread, random_change / unit, state / unit, company / unit, size / unit)


def _batch_changes(
    model: nn.Module, logits: Callable[[Inputs], Logits], first: Inputs, second: Inputs, once: Logits, same: bool
) -> tuple[float, float]:
    """Return the largest change of a first row's logits in other company, and alone."""
    lead = first[:1]
    changes = []
    for others in (second[: len(first) - 1].flip(0), 1 - first[1:], lead.expand(len(first) - 1, *lead.shape[1:])):
        with state_restored(model):
            together = logits(torch.cat([lead, others]))
        if len(together) == len(once):  # the same shape draws the same numbers
            changes.append(_apart(once[:1], together[:1]))
    alone = 0.0
    if same:
        rows = []
        for row in range(min(4, len(first))):
            with state_restored(model):
                rows.append(logits(first[row : row + 1]))
        alone = _apart(once[: len(rows)], torch.cat(rows))
        for size in SIZES:
            rows = []
            for part in torch.split(first, size):
                with state_restored(model):
                    rows.append(logits(part))
            alone = max(alone, _apart(once, torch.cat(rows)))
    return max(changes, default=0.0), alone


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().nan_to_num(nan=0.0, posinf=0.0).max()) if a.shape == b.shape and a.numel() else 0.0
