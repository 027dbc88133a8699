"""FAB: the nearest misclassified point, by projections onto the linearised boundary."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from unperturbed.attacks.base import Attack, AttackResult, Nearest, likely_targets
from unperturbed.checks import AT_LEAST_ONE, NONE_OR_MORE, check_fields
from unperturbed.losses import margin
from unperturbed.maximise.climb_queue import ClimbQueue, at_least_two
from unperturbed.maximise.slopes import tells_nothing, usable
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Model, PerExample, Rows


@dataclass(frozen=True)
class FAB(Attack):
    """z <- (1 - a) (z + 1.05 d) + a (x + 1.05 d'), cut to the box, a = min(‖d‖ / (‖d‖ + ‖d'‖), 0.1).

    d and d' are the shortest moves, box included, from z and from x to the plane where f_l = f_y in the network
    linearised at z; l is the class whose plane is nearest within the box, or the target. From a misclassified point
    the search goes back to x + 0.9 (z - x). (Croce & Hein 2020, https://arxiv.org/abs/1907.02044, algorithm 1,
    without its final search, as in AutoAttack.)

    Called as an attack, it leaves an example as soon as a misclassified point lies inside the threat set; `nearest`
    continues to the shortest distance.

    Attributes:
        label: name of the attack in tables.
        targets: number of target classes, one after the other, from the largest logit at x; 0: the nearest class in
            every move.
        restarts: climbs an example (and target); all but the first begin at a random point, half a radius away.
        steps: moves, each two forwards and an input gradient (for each other class, without targets).
        most: upper bound of a.
        overshoot: factor by which a move goes beyond the plane.
        back: share of z - x that remains after a step back.
    """

    needs_gradient: ClassVar[bool | None] = True
    needs_radius: ClassVar[bool] = False
    label: str = "FAB"
    targets: int = 0
    restarts: int = 1
    steps: int = 100
    most: float = 0.1
    overshoot: float = 1.05
    back: float = 0.9

    def __post_init__(self) -> None:
        """Refuse numbers that leave nothing to do."""
        check_fields(self, steps=AT_LEAST_ONE, restarts=AT_LEAST_ONE, targets=NONE_OR_MORE)

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        """Look for a misclassified point inside the threat set."""
        return self._run(model, batch, threat, noise, batch_size, leave=True).found

    def nearest(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> Nearest:
        """Look for the nearest misclassified point; the radius matters for random starts only."""
        return self._run(model, batch, threat, noise, batch_size, leave=False)

    def _run(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int, leave: bool) -> Nearest:
        x, n = batch.x, len(batch.x)
        targets = likely_targets(model, batch, self.targets or None, batch_size)
        climbs = targets.shape[1] if self.targets else 1
        queue = ClimbQueue(n, batch_size, climbs * self.restarts, x.device, self.steps)
        k = torch.zeros_like(queue.row)
        origin = x[queue.row] if n else x.new_zeros((len(k), *x.shape[1:]))
        z, wide = origin.clone(), (-1, *[1] * (x.dim() - 1))
        best = _Record(x, threat, 0.0 if leave else torch.inf)
        informative = torch.zeros(n, dtype=torch.bool, device=x.device)  # examples with an informative gradient
        forwards, backwards = n, 0

        def fill_free_places() -> None:
            seats, rows = queue.fill()
            if len(seats) == 0:
                return
            pair = at_least_two(rows)
            climb = at_least_two(queue.number[seats])
            far = replace(threat, eps=threat.eps / 2).scatter(x[pair], noise.rows(pair).fold(climb))
            start = torch.where((climb >= climbs).view(wide), far, x[pair])
            k[seats], origin[seats], z[seats] = 0, x[rows], start[: len(rows)]

        def give_up_places() -> None:
            nonlocal k, origin, z
            remaining = queue.shrink()
            if remaining is not None:
                k, origin, z = k[remaining], origin[remaining], z[remaining]

        fill_free_places()
        while queue.busy():
            busy, y = int(queue.active.sum()), batch.y[queue.row]
            towards = targets[queue.row, queue.number % climbs][:, None] if self.targets else targets[queue.row]
            lead, slope, current_margin = _nearest_plane(model, z, y, towards, threat)
            sound, broken = best.look(queue, z, current_margin)
            sound &= lead.isfinite()
            informative[queue.row[queue.active & ~tells_nothing(slope)]] = True
            slope = usable(slope)
            z = self._move(origin, z, lead, slope, threat)
            with torch.no_grad():
                next_margin = margin(model(z), y)
            sound_next, broken_next = best.look(queue, z, next_margin)
            sound, broken = sound & sound_next, (broken | broken_next) & leave
            forwards, backwards = forwards + 2 * busy, backwards + towards.shape[1] * busy
            best.finite[queue.row[queue.active & ~sound]] = False

            k += 1
            finished = queue.active & (broken | ~sound | (k >= self.steps))
            queue.leave(finished, broken | ~sound)
            z = torch.where((next_margin > 0).view(wide), origin + self.back * (z - origin), z)
            if bool(finished.any()):
                fill_free_places()
                give_up_places()
        rounds = (queue.needed + climbs - 1) // climbs
        result = AttackResult(
            best.inside, best.margin, best.finite & informative, rounds, forwards, backwards, 1 + 2 * queue.moved
        )
        return Nearest(best.nearest, best.distance, result)

    def _move(self, x: Inputs, z: Inputs, lead: PerExample, slope: Inputs, threat: Threat) -> Inputs:
        """Return the next point; `lead` is f_l - f_y at z and `slope` its gradient."""
        wide = (-1, *[1] * (x.dim() - 1))
        near = threat.to_plane(z, slope, -lead)
        far = threat.to_plane(x, slope, -(lead + (slope * (x - z)).flatten(1).sum(1)))
        length, length_back = (threat.distance(d, torch.zeros_like(d)).clamp(min=1e-8) for d in (near, far))
        a = (length / (length + length_back)).clamp(max=self.most).view(wide)
        moved = (1 - a) * (z + self.overshoot * near) + a * (x + self.overshoot * far)
        return threat.fixed(x, threat.boxed(moved))  # a mean of equal numbers may differ from them by rounding


class _Record:
    """The nearest break and the largest margin inside the threat set so far, of every example."""

    def __init__(self, x: Inputs, threat: Threat, enough: float) -> None:
        self.x, self.threat, self.enough = x, threat, enough
        self.nearest, self.inside = x.clone(), x.clone()
        self.distance, self.margin = x.new_full((len(x),), torch.inf), x.new_full((len(x),), -torch.inf)
        self.nearest_by, self.inside_by = torch.zeros(
            2, len(x), dtype=torch.int64, device=x.device
        )  # the climb that reached it
        self.finite = torch.ones(len(x), dtype=torch.bool, device=x.device)

    def look(self, queue: ClimbQueue, z: Inputs, margins: PerExample) -> tuple[Tensor, Tensor]:
        """Record the points in the slots; tell which margins are finite, and which points are new breaks inside."""
        if self.enough == torch.inf:
            distance = self.threat.distance(self.x[queue.row], z)
            breaks = (margins > 0) & margins.isfinite()
            nearer = queue.best(torch.where(breaks, -distance, -torch.inf), -self.distance, self.nearest_by, torch.inf)
            self.nearest[queue.row[nearer]], self.distance[queue.row[nearer]] = z[nearer], distance[nearer]
            self.nearest_by[queue.row[nearer]] = queue.number[nearer]

        high = (margins >= self.margin[queue.row]) | (margins > self.enough)
        higher = (high & margins.isfinite()).nonzero()[:, 0]  # infinity would hide a break
        inside = higher[self.threat.contains(self.x[queue.row[higher]], z[higher])]
        allowed = torch.full_like(margins, -torch.inf).index_put((inside,), margins[inside])
        better = queue.best(allowed, self.margin, self.inside_by, self.enough)
        self.inside[queue.row[better]], self.margin[queue.row[better]] = z[better], margins[better]
        self.inside_by[queue.row[better]] = queue.number[better]
        broken = torch.zeros_like(queue.active).index_put((better,), margins[better] > 0)
        return margins.isfinite(), broken


def _nearest_plane(
    model: Model, z: Inputs, y: Rows, classes: Tensor, threat: Threat
) -> tuple[PerExample, Inputs, PerExample]:
    """Return f_l - f_y and its gradient for the l of the classes (n, c) whose plane is nearest, and the margin at z."""
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(z)
        leads = logits.gather(1, classes) - logits.gather(1, y[:, None])
    best = [leads[:, 0], torch.zeros_like(z), torch.full_like(leads[:, 0], torch.inf)]
    for column in range(classes.shape[1]):
        lead = leads[:, column]
        (slope,) = torch.autograd.grad(lead.sum(), z, retain_graph=column + 1 < classes.shape[1])
        only = classes.shape[1] == 1
        away = torch.zeros_like(lead) if only else _away(z.detach(), lead.detach(), usable(slope), threat)
        closer = ~(away >= best[2]) & ~best[2].isnan()  # NaN is chosen and stays, so that it is noticed
        best = [
            torch.where(closer.view(-1, *[1] * (new.dim() - 1)), new, old)
            for new, old in zip((lead.detach(), slope, away), best, strict=True)
        ]
    return best[0].detach(), best[1], margin(logits.detach(), y)


def _away(z: Inputs, lead: PerExample, slope: Inputs, threat: Threat) -> PerExample:
    """Return the distance of z from the plane within the box; almost infinite where the box does not reach the plane.

    (The paper divides by the dual norm, which ignores the box and so may take the wrong class near its bounds.)
    """
    move = threat.to_plane(z, slope, -lead)
    short = (lead + (slope * move).flatten(1).sum(1)).abs() > 1e-3 * lead.abs()
    far = torch.finfo(lead.dtype).max
    return (
        threat.distance(move, torch.zeros_like(move)).masked_fill(short, far).masked_fill(~lead.isfinite(), torch.nan)
    )
