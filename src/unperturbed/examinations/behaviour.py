"""Tests whether a network is a function of one example: no random numbers, no state, no dependence on the batch."""

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
CALLS = 7
"""In a row, which are compared with the first: some states turn up in every second call only."""
ALIKE = 1e-3
"""Relative difference up to which logits count as equal: rounding, also in reduced precision."""


@dataclass(frozen=True)
class Behaviour:
    """The dependence of a network's logits on anything but the example.

    Attributes:
        n: examples whose company changes.
        drawn: examples of which two draws were compared.
        spread: mean over examples of the logits' standard deviation across classes.
        random: largest change of a logit between two draws, in units of `spread`.
        state: largest change of a logit or of an input gradient between calls in a row, in units of its spread.
        company: as `random`, between batches with different other examples.
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
        """Whether the logits depend on the other examples in a batch."""
        return max(self.company, self.size) > ALIKE


@contextmanager
def drawn(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the generators of torch, NumPy and Python in this block, and restore them afterwards."""
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
            values: Logits = model(z).detach().double()
            return values

    with under_attack(model):
        with state_restored(model):
            base = logits(first)
        with state_restored(model):
            repeated = logits(first)
        with state_restored(model):
            second_draw = logits(first, 1)
        steady = torch.equal(base.nan_to_num(), repeated.nan_to_num())
        random_change = max(_difference(base, repeated), _difference(base, second_draw))
        for part in torch.split(examples, batch_size):
            with state_restored(model):
                here = logits(part)
            with state_restored(model):
                random_change = max(random_change, _difference(here, logits(part, 1)))
        company, size = _batch_changes(model, logits, first, second, base, steady and random_change == 0)
    spread = float(base.std(dim=1).nan_to_num(nan=0.0).mean())
    unit = max(spread, torch.finfo(torch.float64).tiny)
    state = _state_changes(model, logits, first, second, seed) if steady else 0.0
    return Behaviour(len(first), len(examples), spread, random_change / unit, state, company / unit, size / unit)


def _state_changes(
    model: nn.Module, logits: Callable[[Inputs], Logits], first: Inputs, second: Inputs, seed: int
) -> float:
    """Return the largest change of logits or of an input gradient over calls in a row, each in units of its spread.

    Gradients count as well: a network may answer from memory, or keep its gradient to itself from some call on.
    """
    first = torch.lerp(first, first.flip(0), 1e-3)  # which the network has not seen in earlier calls
    with under_attack(model), state_restored(model):
        looks = [_look(model, first, seed)]
        for number in range(CALLS):
            if number % 3 == 1:
                logits(second[: len(first)])
            looks.append(_look(model, first, seed))
    start, *others = looks
    return max(
        _difference(before, now) / max(float(before.nan_to_num().std()), torch.finfo(torch.float64).tiny)
        for other in others
        for before, now in zip(start, other, strict=True)
    )


def _look(model: nn.Module, x: Inputs, seed: int) -> tuple[Tensor, Tensor]:
    """Return logits and the gradient of a mixture of them; 0 where none reaches the inputs."""
    leaf = x.clone().requires_grad_()
    with torch.enable_grad(), drawn(seed, x.device):
        values: Logits = model(leaf * 1)  # it may work in place
        slope: Tensor | None = None
        if values.requires_grad:
            weights = torch.arange(1, values.shape[1] + 1).to(values).cos()
            (slope,) = torch.autograd.grad((values * weights).sum(), leaf, allow_unused=True)
    return values.detach().double(), (torch.zeros_like(x) if slope is None else slope).double()


def _batch_changes(
    model: nn.Module,
    logits: Callable[[Inputs], Logits],
    first: Inputs,
    second: Inputs,
    base: Logits,
    deterministic: bool,
) -> tuple[float, float]:
    """Return the largest change of a first row's logits next to other examples, and alone."""
    lead = first[:1]
    changes = []
    for companions in (second[: len(first) - 1].flip(0), 1 - first[1:], lead.expand(len(first) - 1, *lead.shape[1:])):
        with state_restored(model):
            together = logits(torch.cat([lead, companions]))
        if len(together) == len(base):  # a batch of the same shape draws the same numbers
            changes.append(_difference(base[:1], together[:1]))
    alone = 0.0
    if deterministic:
        rows = []
        for row in range(min(4, len(first))):
            with state_restored(model):
                rows.append(logits(first[row : row + 1]))
        alone = _difference(base[: len(rows)], torch.cat(rows))
        for size in SIZES:
            rows = []
            for part in torch.split(first, size):
                with state_restored(model):
                    rows.append(logits(part))
            alone = max(alone, _difference(base, torch.cat(rows)))
    return max(changes, default=0.0), alone


def _difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().nan_to_num(nan=0.0, posinf=0.0).max()) if a.shape == b.shape and a.numel() else 0.0
