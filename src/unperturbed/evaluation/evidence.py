"""Evidence against a robust accuracy: the behaviour of gradients on a block of examples, and the resulting doubts."""

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
"""The share of all examples above which breaks without gradients raise a doubt (AutoAttack's threshold)."""
FALLEN_BEFORE_CHECK = 0.01
"""That share for a suite with a gate. Its climbs are short, so that a random search breaks some survivors of them on
sound networks too (0.45% of 2,000 examples of MNIST), and the gate attacks a sample again."""
_WRONG, _OFF = 0.1, 0.25
"""Thresholds, as shares of the checked examples. Ten kinds of sound networks had at most 1 of 32 wrong, 2 off."""


@dataclass(frozen=True)
class Doubt:
    """A reason to doubt a robust accuracy."""

    short: str
    """A short reason, for the line of the accuracy; empty if the accuracy stays credible."""
    text: str


@dataclass(frozen=True)
class Evidence(GradientCheck):
    """The behaviour of gradients on a block of examples; the sum of two is that of both blocks.

    Attributes:
        standing: unbroken examples.
        flat: unbroken examples where the gradient is exactly 0.
        not_finite: examples where the gradient is not finite.
        nan: of these, examples where a coordinate is NaN, and so its slope unknown.
        replaced: blocks in which an attack met such a gradient, at the example or elsewhere.
        random: blocks on which two forwards differ.
        place: the part of the network where the gradient stops being finite.
        failure: the reason why gradients could not be checked.
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
    """Return the evidence of all blocks: sums, and the first texts."""

    def joined(name: str) -> Any:
        values = [getattr(block, name) for block in blocks]
        return next((value for value in values if value), "") if name in ("place", "failure") else sum(values)

    return Evidence(**{field.name: joined(field.name) for field in fields(Evidence)})


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
    """Return the behaviour of gradients at the examples and at their adversarial points.

    The gradient of every example is computed once; some dozens, mostly unbroken, are checked closely.

    Args:
        model: in eval mode, with frozen weights, in the precision of results.
        batch: the block.
        z: the points of the attacks; x if there is none.
        standing: bool, the unbroken examples.
        threat: the threat set.
        seed: of the random directions and positions.
        seeing: holds the batch size.
        random: whether two forwards differ.
        replaced: whether an attack met a gradient that is not finite.
    """
    evidence = Evidence(standing=int(standing.sum()), random=int(random), replaced=int(replaced))
    try:
        flat, spoiled, nan = _gradients(model, batch, seed, seeing)
        flat = flat & standing
        evidence = replace(evidence, flat=int(flat.sum()), not_finite=int(spoiled.sum()), nan=int(nan.sum()))
        if bool(spoiled.any()):
            evidence = replace(evidence, place=_place(model, batch, int(spoiled.nonzero()[0])))
        parts, failures = carefully(
            lambda rows, batch_size: _checked(model, batch, z, rows, threat, seed, random, batch_size),
            _chosen(standing),
            seeing,
        )
        checks = sum((check for _, check in parts), GradientCheck())
    except Exception as error:  # any error of the network: the attacks are done, and their results are valid
        return replace(evidence, failure=f"{type(error).__name__}: {error}"[:200])
    failure = next((repr(error)[:200] for error in failures.values()), "") if not parts else ""
    return replace(evidence, failure=failure, **asdict(checks))


def _chosen(standing: Tensor) -> Tensor:
    """Return the rows for close checks, evenly spread: three in four are unbroken, if possible."""
    up, down = standing.nonzero()[:, 0], (~standing).nonzero()[:, 0]
    count = min(len(down), max(MOST // 4, MOST - len(up)))
    rows = [_spread(up, MOST - count), _spread(down, count)]
    return torch.cat(rows).sort().values


def _spread(rows: Tensor, limit: int) -> Tensor:
    count = min(len(rows), limit)
    return rows[(torch.arange(count, device=rows.device) * len(rows)) // max(count, 1)]


def _checked(
    model: nn.Module, batch: Batch, z: Inputs, rows: Tensor, threat: Threat, seed: int, random: bool, batch_size: int
) -> GradientCheck:
    checks = [
        check_gradient(model, Batch(batch.x[part], batch.y[part], batch.ids[part]), z[part], threat, seed, random)
        for part in torch.split(rows, batch_size)
    ]
    return sum(checks, GradientCheck())


def _gradients(model: nn.Module, batch: Batch, seed: int, seeing: Seeing) -> Tensor:
    """Tell per example whether its gradient is exactly 0, whether not finite, and whether partly NaN."""
    flags = torch.zeros(3, len(batch.y), dtype=torch.bool, device=batch.y.device)

    def look(rows: Tensor) -> list[Tensor]:
        def run(batch_size: int) -> list[Tensor]:
            slopes = []
            for part in torch.split(rows, batch_size):
                with torch.no_grad():
                    logits = model(batch.x[part])
                slopes.append(slope_of(model, batch.x[part], batch.y[part], rivals(logits, batch.y[part])).flatten(1))
            return slopes

        slopes, seeing.batch_size = within_memory(run, seeing.batch_size)
        return slopes

    with own_randomness(seed, batch.x.device):
        parts, _ = isolate(look, torch.arange(len(batch.y), device=batch.y.device))
    for rows, slopes in parts:
        gradients = torch.cat(slopes)
        flags[:, rows] = torch.stack([(gradients == 0).all(1), ~gradients.isfinite().all(1), gradients.isnan().any(1)])
    return flags


def _place(model: nn.Module, batch: Batch, row: int) -> str:
    x, y = batch.x[row : row + 1], batch.y[row : row + 1]

    def value(logits: Tensor) -> Tensor:
        return lead(logits, y, rivals(logits.detach(), y))

    return where_not_finite(model, x, value) or ""


def doubts_of(evidence: Evidence, n: int, flat_told: bool) -> list[Doubt]:
    """Return the doubts about the accuracy on n examples; without flat gradients if a warning already names them."""
    doubts, flat = [], flat_told or evidence.flat > FALLEN * n
    if evidence.wrong > _WRONG * evidence.slopes and not flat:  # a warning with the same content
        text = (
            f"The gradient is wrong: on {evidence.wrong} of {evidence.slopes} checked examples it is not the slope "
            "that small differences of the logits show (a detached path, a straight-through or a changed "
            "backward, a hook). Attacks that follow it are misled: give the network its true gradient, or attack "
            "without gradients (--suite square; docs/defences.md)."
        )
        doubts.append(Doubt("the gradient is wrong", text))
    if evidence.off > _OFF * evidence.segments and not flat:
        text = (
            f"The gradient does not predict the change within eps: on {evidence.off} of {evidence.segments} checked "
            "examples the slopes along a segment do not add up to the change of the logits along it (rounding, steps, "
            "ripples). Attack past the obstacle (docs/defences.md), or without gradients (--suite square)."
        )
        doubts.append(Doubt("the gradient does not predict the change within eps", text))
    if evidence.lost > _WRONG * evidence.slopes:
        text = (
            f"The gradient is lost to rounding on {evidence.lost} of {evidence.slopes} checked examples: in float64 it "
            "differs (saturated units). Evaluate model.double()."
        )
        doubts.append(Doubt("the gradient is lost to rounding", text))
    if flat and not flat_told:
        text = (
            f"The gradient at the inputs is exactly 0 for {evidence.flat} of the {evidence.standing} examples still "
            "standing: attacks by gradient fail there, and their survivors prove nothing. Attack a surrogate with a "
            "gradient (docs/defences.md), and without gradients (--suite square)."
        )
        doubts.append(Doubt("the gradient is 0", text))
    if evidence.not_finite or evidence.replaced:
        doubts.append(_not_finite(evidence, n))
    if evidence.failure:
        doubts.append(
            Doubt(
                "the gradient could not be checked",
                f"The gradient could not be checked ({evidence.failure}).",
            )
        )
    return doubts


def _not_finite(evidence: Evidence, n: int) -> Doubt:
    where = f" It stops being finite in {evidence.place}." if evidence.place else ""
    how_many = f"for {evidence.not_finite} of {n} examples" if evidence.not_finite else "at points that attacks met"
    text = (
        f"The gradient at the inputs is not finite {how_many} (a root, a logarithm or a norm at 0, say).{where} The "
        f"attacks used {REPLACED}. A small number added there makes the slope finite."
    )
    return Doubt("the gradient is NaN" if evidence.nan > FALLEN * n else "", text)


def fallen_without_gradients(
    attacks: Sequence[Attack], broken: Sequence[int], n: int, share: float = FALLEN
) -> list[Doubt]:
    """Return a doubt if a black-box or minimum-norm attack broke survivors of attacks that climb a loss.

    Args:
        attacks: the attacks, in order.
        broken: the breaks of each attack.
        n: the number of all examples.
        share: the share of them above which breaks raise a doubt.
    """
    climbed, doubts = False, []
    for attack, count in zip(attacks, broken, strict=True):
        climbs = attack.needs_gradient and attack.needs_radius
        if climbed and (attack.needs_gradient is False or not attack.needs_radius) and count > share * n:
            text = (
                f"{attack.label} broke {count} of {n} examples that attacks by gradient had left standing: gradients "
                "may be masked, and more may break. See docs/defences.md."
            )
            doubts.append(Doubt(f"{attack.label} broke {count} that gradients left", text))
        climbed = climbed or bool(climbs)
    return doubts
