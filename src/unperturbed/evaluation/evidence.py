"""What speaks against a robust accuracy: how gradients behave on a block of examples, and what follows in words."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from unperturbed.attacks.base import Attack
from unperturbed.evaluation.gradient_check import MOST, GradientCheck, check_gradient, lead, rivals, slope_of
from unperturbed.maximise.slopes import REPLACED
from unperturbed.networks.failures import Seeing, carefully, isolate, within_memory
from unperturbed.networks.modes import own_randomness
from unperturbed.networks.not_finite import where_not_finite
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs

FALLEN = 0.002
"""The share of all examples from which it matters that gradients were no guide (AutoAttack's own threshold)."""
_WRONG, _OFF = 0.1, 0.25
"""Shares of the examples looked at. On honest networks of ten kinds: at most 1 of 32 wrong, and 2 of 32 off."""


@dataclass(frozen=True)
class Doubt:
    """A reason to doubt a robust accuracy, as a sentence for the warnings."""

    short: str
    """In a few words, for the line of the accuracy; empty where the accuracy can be believed all the same."""
    text: str


@dataclass(frozen=True)
class Evidence(GradientCheck):
    """How gradients behaved on a block of examples; the sum of two is that of both blocks.

    Attributes:
        standing: examples that nothing has broken.
        flat: of these, those where the gradient is exactly 0.
        not_finite: examples where the gradient is not finite.
        nan: of these, those where a coordinate of it is NaN, so that nothing is known of it.
        replaced: blocks in which an attack met such a gradient, there or elsewhere.
        random: blocks on which two forwards differ.
        place: which part of the network the gradient stops being finite in.
        failure: why gradients could not be looked at.
    """

    standing: int = 0
    flat: int = 0
    not_finite: int = 0
    nan: int = 0
    replaced: int = 0
    random: int = 0
    place: str = ""
    failure: str = ""


def total(blocks: Sequence[Evidence]) -> Evidence:
    """Return the evidence of all the blocks: sums, and the first text."""

    def joined(name: str) -> Any:
        values = [getattr(block, name) for block in blocks]
        return next((value for value in values if value), "") if name in ("place", "failure") else sum(values)

    return Evidence(**{each.name: joined(each.name) for each in fields(Evidence)})


def examined(
    model: nn.Module,
    batch: Batch,
    z: Inputs,
    standing: Tensor,
    threat: Threat,
    seed: int,
    seeing: Seeing,
    *,
    random: bool,
    replaced: bool,
) -> Evidence:
    """Return how gradients behave at the examples and at the points found for them.

    At every example once; some dozens are checked closely, most of them among those still standing.

    Args:
        model: in eval mode, its weights frozen, as results are computed with it.
        batch: the block.
        z: the points that the attacks have found; x where there is none.
        standing: bool, which examples nothing has broken.
        threat: the threat set.
        seed: of the directions and places looked at.
        seeing: how many examples the network sees at a time.
        random: whether two forwards differ.
        replaced: whether an attack met a gradient that is not finite.
    """
    known = Evidence(standing=int(standing.sum()), random=int(random), replaced=int(replaced))
    try:
        flat, spoiled, nan = _gradients(model, batch, seed, seeing)
        flat = flat & standing
        known = replace(known, flat=int(flat.sum()), not_finite=int(spoiled.sum()), nan=int(nan.sum()))
        if bool(spoiled.any()):
            known = replace(known, place=_place(model, batch, int(spoiled.nonzero()[0])))
        parts, failures = carefully(
            lambda rows, batch_size: _checked(model, batch, z, rows, threat, seed, random, batch_size),
            _chosen(standing),
            seeing,
        )
        checks = sum((check for _, check in parts), GradientCheck())
    except Exception as error:  # any error of the network: the attacks are done, and their results are valid
        return replace(known, failure=f"{type(error).__name__}: {error}"[:200])
    failure = next((repr(error)[:200] for error in failures.values()), "") if not parts else ""
    return replace(known, failure=failure, **asdict(checks))


def _chosen(standing: Tensor) -> Tensor:
    """Return the rows looked at closely, evenly spread: three in four of those standing, if there are so many."""
    up, down = standing.nonzero()[:, 0], (~standing).nonzero()[:, 0]
    few = min(len(down), max(MOST // 4, MOST - len(up)))
    rows = [_spread(up, MOST - few), _spread(down, few)]
    return torch.cat(rows).sort().values


def _spread(rows: Tensor, most: int) -> Tensor:
    count = min(len(rows), most)
    return rows[(torch.arange(count, device=rows.device) * len(rows)) // max(count, 1)]


def _checked(
    model: nn.Module, batch: Batch, z: Inputs, rows: Tensor, threat: Threat, seed: int, random: bool, batch_size: int
) -> GradientCheck:
    checks = [
        check_gradient(model, Batch(batch.x[some], batch.y[some], batch.ids[some]), z[some], threat, seed, random)
        for some in torch.split(rows, batch_size)
    ]
    return sum(checks, GradientCheck())


def _gradients(model: nn.Module, batch: Batch, seed: int, seeing: Seeing) -> Tensor:
    """Tell of every example whether the gradient there is exactly 0, whether not finite, and whether partly NaN."""
    flags = torch.zeros(3, len(batch.y), dtype=torch.bool, device=batch.y.device)

    def look(rows: Tensor) -> list[Tensor]:
        def run(batch_size: int) -> list[Tensor]:
            slopes = []
            for some in torch.split(rows, batch_size):
                with torch.no_grad():
                    logits = model(batch.x[some])
                slopes.append(slope_of(model, batch.x[some], batch.y[some], rivals(logits, batch.y[some])).flatten(1))
            return slopes

        slopes, seeing.batch_size = within_memory(run, seeing.batch_size)
        return slopes

    with own_randomness(seed, batch.x.device):
        parts, _ = isolate(look, torch.arange(len(batch.y), device=batch.y.device))
    for rows, slopes in parts:
        whole = torch.cat(slopes)
        flags[:, rows] = torch.stack([(whole == 0).all(1), ~whole.isfinite().all(1), whole.isnan().any(1)])
    return flags


def _place(model: nn.Module, batch: Batch, row: int) -> str:
    x, y = batch.x[row : row + 1], batch.y[row : row + 1]

    def value(logits: Tensor) -> Tensor:
        return lead(logits, y, rivals(logits.detach(), y))

    return where_not_finite(model, x, value) or ""


def doubts_of(evidence: Evidence, n: int, flat_told: bool) -> list[Doubt]:
    """Return the doubts about the accuracy on n examples; none about flat gradients if a warning already names them."""
    doubts, flat = [], flat_told or evidence.flat > FALLEN * n
    if evidence.wrong > _WRONG * evidence.slopes and not flat:  # which says it already
        text = (
            f"The gradient is wrong: on {evidence.wrong} of {evidence.slopes} examples looked at closely it is not the "
            "slope that small differences of the logits show (a detached path, a straight-through or a changed "
            "backward, a hook). Attacks that follow it are misled: give the network its true gradient, or see what "
            "attacks without one find (--suite square; docs/defences.md)."
        )
        doubts.append(Doubt("the gradient is wrong", text))
    if evidence.off > _OFF * evidence.segments and not flat:
        text = (
            f"The gradient says nothing of what happens within eps: on {evidence.off} of {evidence.segments} examples "
            "looked at closely the slopes along a segment do not add up to how the logits change along it (rounding, "
            "steps, ripples). Attack past what hides it (docs/defences.md), or without gradients (--suite square)."
        )
        doubts.append(Doubt("the gradient does not predict the change within eps", text))
    if evidence.lost > _WRONG * evidence.slopes:
        text = (
            f"The gradient is lost to rounding on {evidence.lost} of {evidence.slopes} examples looked at closely: in "
            "float64 it is another (saturated units). Evaluate model.double()."
        )
        doubts.append(Doubt("the gradient is lost to rounding", text))
    if flat and not flat_told:
        text = (
            f"The gradient at the inputs is exactly 0 for {evidence.flat} of the {evidence.standing} examples still "
            "standing: searches by gradient find no way there, and what they leave standing says nothing. Attack "
            "through a stand-in with a gradient (docs/defences.md), and see what attacks without gradients find "
            "(--suite square)."
        )
        doubts.append(Doubt("the gradient is 0", text))
    if evidence.not_finite or evidence.replaced:
        doubts.append(_not_finite(evidence, n))
    if evidence.failure:
        doubts.append(
            Doubt(
                "the gradient could not be checked",
                f"Whether the gradient is right could not be looked at ({evidence.failure}).",
            )
        )
    return doubts


def _not_finite(evidence: Evidence, n: int) -> Doubt:
    where = f" It stops being finite in {evidence.place}." if evidence.place else ""
    how_many = f"for {evidence.not_finite} of {n} examples" if evidence.not_finite else "at points that attacks met"
    text = (
        f"The gradient at the inputs is not finite {how_many} (a root, a logarithm or a norm at 0, say).{where} The "
        f"attacks went on with {REPLACED}. A small number added there makes the slope finite."
    )
    return Doubt("the gradient is NaN" if evidence.nan > FALLEN * n else "", text)


def fallen_without_gradients(attacks: Sequence[Attack], broken: Sequence[int], n: int) -> list[Doubt]:
    """Return a doubt where a black-box or minimum-norm attack broke what attacks that climb a loss had left.

    More than 0.2 points of all examples, AutoAttack's own flag; `broken` has the breaks of each attack, in order.
    """
    climbed, doubts = False, []
    for attack, count in zip(attacks, broken, strict=True):
        climbs = attack.needs_gradient and attack.needs_radius
        if climbed and (attack.needs_gradient is False or not attack.needs_radius) and count > FALLEN * n:
            text = (
                f"{attack.label} broke {count} of {n} examples that attacks by gradient had left standing: gradients "
                "may be masked, and more may break. See docs/defences.md."
            )
            doubts.append(Doubt(f"{attack.label} broke {count} that gradients left", text))
        climbed = climbed or bool(climbs)
    return doubts
