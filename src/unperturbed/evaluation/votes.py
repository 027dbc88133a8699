"""One block of examples under Gaussian noise: the votes of a network for the classes."""

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unperturbed.attacks.base import padded_logits
from unperturbed.evaluation.evidence import Evidence
from unperturbed.evaluation.measurement import Task
from unperturbed.evaluation.nearest import AtOnce
from unperturbed.evaluation.parts import Tally
from unperturbed.networks.failures import carefully, failed_on, failed_on_all
from unperturbed.noise import Noise
from unperturbed.types import Batch, Labels, Logits, Model

TIMES = 10
"""Approximate number of times that an unfinished block is stored."""
TOGETHER = 8
"""Approximate number of forwards between two reports."""
FAILED = "a forward on noisy inputs"
"""The failed operation in the warning."""
NONE, UNKNOWN = -1, -2
"""Values for draws without a vote: equal largest logits; and no logits, or logits that are not finite."""


@dataclass(frozen=True)
class Draws:
    """The random inputs of each example: x + sigma N(0, I), not clipped to the box.

    The certificate is for the network on unclipped noisy inputs; training by `smoothing` does not clip either.

    Attributes:
        sigma: standard deviation of each feature, in input units.
        selection: draws that choose the class.
        votes: further draws, which are counted for it.
        seed: of the noise.
    """

    sigma: float
    selection: int
    votes: int
    seed: int


@dataclass(eq=False)
class Votes:
    """The state of a block of examples, one row per example."""

    batch: Batch
    logits: Logits
    """The margin without noise; NaN if the network fails."""
    selection: Tensor
    """(n, classes): votes of the draws that choose the class."""
    votes: Labels
    """Votes for the chosen class."""
    unknown: Labels
    """Draws of the vote without finite logits."""
    done: Tensor
    """The number of finished draws, a scalar."""
    tallies: list[Tally] = field(default_factory=list)
    """A single tally: seconds and forwards of all draws."""
    warnings: list[str] = field(default_factory=list)
    evidence: Evidence = field(default_factory=Evidence)
    """None: no gradient is taken."""

    @property
    def chosen(self) -> Labels:
        """The class of most votes in the selection; the first of several."""
        return self.selection.argmax(dim=1)


def count_votes(model: Model, task: Task[Votes], draws: Draws, at_once: AtOnce) -> Votes:
    """Return the votes of a block: SAMPLEUNDERNOISE twice, as in CERTIFY of Cohen et al. 2019, section 3.2.2."""
    batch, total, began = task.batch, draws.selection + draws.votes, time.perf_counter()
    counts = task.begun if task.begun is not None else _begin(model, batch, at_once)
    share = max(1, TOGETHER * at_once.batch_size // len(batch.y))
    while (finished := int(counts.done)) < total:
        end = min(finished + share, draws.selection if finished < draws.selection else total)
        answers = _answers(model, batch, draws, range(finished, end), at_once, counts.warnings)
        if finished < draws.selection:
            for answer in answers:
                counts.selection[answer >= 0] += _one_hot(answer[answer >= 0], counts.selection)
        else:
            counts.votes += (answers == counts.chosen).sum(dim=0)
            counts.unknown += (answers == UNKNOWN).sum(dim=0)
        counts.done += end - finished
        time_after = time.perf_counter()
        counts.tallies[0].seconds += time_after - began
        counts.tallies[0].forwards += (end - finished) * len(batch.y)
        began = time_after
        if end < total and end * TIMES // total > finished * TIMES // total:
            task.keep(counts)
        task.report(end / total, f"draw {end} of {total}")
    return counts


def _begin(model: Model, batch: Batch, at_once: AtOnce) -> Votes:
    """Return the state after the forward without noise."""
    rows = torch.arange(len(batch.y), device=batch.y.device)
    parts, failures = carefully(lambda part, batch_size: padded_logits(model, batch.x[part], batch_size), rows, at_once)
    if not parts:
        raise failed_on_all(failures)
    logits = torch.full((len(rows), parts[0][1].shape[1]), torch.nan).to(batch.x)
    for part, values in parts:
        logits[part] = values
    zeros = torch.zeros_like(batch.y)
    return Votes(
        batch=batch,
        logits=logits,
        selection=torch.zeros_like(logits, dtype=torch.int64),
        votes=zeros,
        unknown=zeros.clone(),
        done=torch.tensor(0),
        tallies=[Tally()],
        warnings=failed_on(failures, batch.ids, "the forward"),
    )


def _answers(model: Model, batch: Batch, draws: Draws, numbers: range, at_once: AtOnce, warnings: list[str]) -> Tensor:
    """Return the class that each draw votes for, (draws, n): draw k of an example depends on its id, k and the seed.

    Noise is drawn in float64, whose tail reaches eight standard deviations; float32's ends at five.
    """
    n, device, noise = len(batch.y), batch.y.device, Noise.of(draws.seed, batch.ids)
    answers = torch.full((len(numbers) * n,), UNKNOWN, device=device)
    wide = torch.float32 if device.type == "mps" else torch.float64

    def vote(pairs: Tensor, batch_size: int) -> Labels:
        rows = pairs % n
        normal = noise.rows(rows).fold(numbers.start + pairs // n).normal(batch.x.shape[1:], wide)
        z = torch.add(batch.x[rows].to(wide), normal, alpha=draws.sigma).to(batch.x.dtype)
        return answer(padded_logits(model, z, batch_size))

    for pairs in torch.split(torch.arange(len(answers), device=device), at_once.batch_size):
        parts, failures = carefully(vote, pairs, at_once)
        for part, votes in parts:
            answers[part] = votes
        if failures and not any(FAILED in text for text in warnings):
            warnings += failed_on(failures, batch.ids.repeat(len(numbers)), FAILED)
    return answers.view(len(numbers), n)


def answer(logits: Logits) -> Labels:
    """Return the class of the largest logit: NONE where two are equal, UNKNOWN where one is not finite."""
    best = logits.topk(2, dim=1)
    tied, finite = best.values[:, 0] == best.values[:, 1], logits.isfinite().all(dim=1)
    return torch.where(finite, torch.where(tied, NONE, best.indices[:, 0]), UNKNOWN)


def _one_hot(classes: Labels, like: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(classes, like.shape[1])
