"""The search around a block of examples for the nearest misclassified points: without a radius, by radius, refined."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from unperturbed.attacks.base import Attack, AttackResult, MinimumNorm, Nearest, Refining, padded_logits
from unperturbed.attacks.gradient import Suite
from unperturbed.engines.base import Report
from unperturbed.evaluation.evidence import examined
from unperturbed.evaluation.parts import Tally
from unperturbed.evaluation.randomised import RANDOM, draws_random_numbers
from unperturbed.evaluation.search import verify
from unperturbed.evaluation.surroundings import Surroundings
from unperturbed.losses import margin
from unperturbed.maximise.climb_queue import Watch, watched
from unperturbed.maximise.slopes import noticing
from unperturbed.networks.failures import carefully, failed_on, failed_on_all
from unperturbed.networks.modes import own_randomness
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Logits, Model, PerExample, Rows

HALVINGS = 10
"""Number of bisections of the line from an example to a misclassified point: to a thousandth of its length."""
FURTHER = 1.001
"""The factor for a second look at a refuted claim, further out, since rounding may be the cause."""
ANYWHERE = 1e30
"""A radius larger than any distance."""


@dataclass
class AtOnce:
    """The batch size; halved if memory runs out."""

    batch_size: int


class Search:
    """The search of a suite around blocks of examples."""

    def __init__(
        self,
        model: Model,
        threat: Threat,
        suite: Suite,
        radii: Sequence[float],
        seed: int,
        at_once: AtOnce,
        fewer: AtOnce,
    ) -> None:
        """Use the batch size `at_once` for FAB, and `fewer` at the radii, where fewer examples remain."""
        self.model, self.suite, self.radii, self.seed = model, suite, radii, seed
        self.threat, self.anywhere = threat, replace(threat, eps=ANYWHERE)
        self.at_once, self.fewer = at_once, fewer
        numbered = list(enumerate(suite.attacks))
        self.without_radius = [(k, cast(MinimumNorm, attack)) for k, attack in numbered if not attack.needs_radius]
        self.with_radius = [(k, attack) for k, attack in numbered if attack.needs_radius]
        refining = [(k, attack) for k, attack in numbered if isinstance(attack, Refining)]
        self.last = refining[-1:]
        """The attack that refines the nearest points at the end, if there is one."""
        self.looks = 0
        """Number of fresh forwards so far."""

    def __call__(
        self,
        batch: Batch,
        begun: Surroundings | None,
        keep: Callable[[Surroundings], None],
        report: Report,
    ) -> Surroundings:
        """Return the final state of the examples, stored after each step; resume from `begun`."""
        block = begun if begun is not None else self._begin(batch)
        first, falling = len(self.without_radius), sorted(self.radii, reverse=True)
        steps = first + len(falling) + len(self.last)
        for step in range(int(block.steps), steps):

            def within(share: float, text: str, step: int = step) -> None:
                report((step + share) / steps, text)

            with self._draws_of(batch, step):
                if step < first:
                    self._nearest(block, *self.without_radius[step], within)
                    text = "nearest points"
                elif step == first + len(falling):
                    self._refine(block, *self.last[0], within)
                    text = "nearest points, refined"
                else:
                    radius = falling[step - first]
                    self._at(block, radius, step, within)
                    share = float((block.beyond(radius) & block.finite).float().mean())
                    text = f"robust at {radius:g} at most {share:.1%}"
            block.steps += 1
            keep(block)
            within(1.0, text)
        block.evidence = examined(
            self.model, batch, block.z, block.beyond(self.threat.eps), self.threat, self.seed, self.at_once,
            random=(random := draws_random_numbers(self.model, batch.x, self.at_once.batch_size)),
            replaced=any(tally.replaced for tally in block.tallies),
        )  # fmt: skip
        if random:
            block.warnings.append(f"{RANDOM}: every distance is by single draws, which mean little.")
        return block

    def _begin(self, batch: Batch) -> Surroundings:
        """Return the state after the clean forward."""
        warnings = list[str]()
        with self._draws_of(batch, -1):
            logits = self._logits(batch, warnings)
        finite = logits.isfinite().all(dim=1)
        clean = torch.where(finite, margin(logits, batch.y), torch.nan)
        nowhere = torch.full_like(clean, torch.inf)
        return Surroundings(
            batch=batch,
            prediction=logits.argmax(dim=1),
            clean_margin=clean,
            z=batch.x.clone(),
            margin=clean.clone(),
            found_by=torch.full_like(batch.y, -1),
            distance=torch.where(clean >= 0, 0.0, nowhere),
            doubt=nowhere.clone(),
            rounding=self.threat.rounding(batch.x),
            finite=finite,
            withstood=torch.zeros_like(finite),
            steps=torch.tensor(0),
            tallies=[Tally() for _ in self.suite.attacks],
            warnings=warnings,
        )

    def _logits(self, batch: Batch, warnings: list[str]) -> Logits:
        """Return the logits at x, NaN if the network fails even alone."""
        rows = torch.arange(len(batch.y), device=batch.y.device)
        parts, failures = carefully(
            lambda part, batch_size: padded_logits(self.model, batch.x[part], batch_size), rows, self.at_once
        )
        if not parts:
            raise failed_on_all(failures)
        warnings += failed_on(failures, batch.ids, "the forward")
        logits = torch.full((len(rows), parts[0][1].shape[1]), torch.nan).to(batch.x)
        for part, values in parts:
            logits[part] = values
        return logits

    def _draws_of(self, batch: Batch, step: int) -> AbstractContextManager[None]:
        """Fix the random numbers of the network's draws for this step on this block."""
        return own_randomness(int(Noise.of(self.seed, batch.ids[:1]).fold(step).keys), batch.x.device)

    def _nearest(self, block: Surroundings, number: int, attack: MinimumNorm, within: Report) -> None:
        """Run a minimum-norm attack, which searches for the nearest points at any distance."""
        noise = Noise.of(self.seed, block.batch.ids).fold(number)

        def run(part: Rows, batch_size: int) -> Nearest:
            return attack.nearest(self.model, _rows(block.batch, part), self.threat, noise.rows(part), batch_size)

        self._search(block, block.correct.nonzero()[:, 0], number, attack, run, within)

    def _refine(self, block: Surroundings, number: int, attack: Refining, within: Report) -> None:
        """Look for nearer points around the nearest ones, wherever one is known."""

        def run(part: Rows, batch_size: int) -> Nearest:
            return attack.refine(self.model, _rows(block.batch, part), block.z[part], self.threat, batch_size)

        self._search(block, (block.found_by >= 0).nonzero()[:, 0], number, attack, run, within)

    def _search(
        self,
        block: Surroundings,
        rows: Rows,
        number: int,
        attack: MinimumNorm | Refining,
        run: Callable[[Rows, int], Nearest],
        within: Report,
    ) -> None:
        """Run a search without a radius on these examples, and enter its points."""
        began, looks, tally = time.perf_counter(), self.looks, block.tallies[number]
        with watched(_watch(within, 0.0, 1.0, f"nearest points, {attack.label}")), noticing() as replaced:
            parts, failures = carefully(run, rows, self.at_once) if len(rows) else ([], {})
        tally.replaced = tally.replaced or replaced.any
        self._fail(block, failures, attack.label)
        for part, nearest in parts:
            claimed = nearest.distance.isfinite()
            z = torch.where(_wide(claimed, nearest.z), nearest.z, nearest.found.z)
            block.finite[part[~nearest.found.finite]] = False
            self._enter(block, part, z, claimed, number)
            _count(tally, nearest.found)
        tally.forwards += self.looks - looks
        tally.seconds += time.perf_counter() - began

    def _at(self, block: Surroundings, radius: float, step: int, within: Report) -> None:
        """Run the other attacks within a radius on examples that are unbroken there and survived no larger one."""
        rows = (block.correct & ~block.withstood & block.unbroken(radius)).nonzero()[:, 0]
        for index, (number, attack) in enumerate(self.with_radius):
            rows = rows[block.unbroken(radius)[rows]]
            if len(rows) > 0:
                share = 1 / len(self.with_radius)
                with watched(_watch(within, index * share, share, f"at {radius:g}, {attack.label}")):
                    self._within(block, rows, number, attack, radius, step)
        # doubtful examples are attacked again at smaller radii
        block.withstood[rows[block.beyond(radius)[rows]]] = True

    def _within(self, block: Surroundings, rows: Rows, number: int, attack: Attack, radius: float, step: int) -> None:
        began, looks, tally = time.perf_counter(), self.looks, block.tallies[number]
        ball, noise = replace(self.threat, eps=radius), Noise.of(self.seed, block.batch.ids).fold(number).fold(step)

        def run(part: Rows, batch_size: int) -> AttackResult:
            return attack(self.model, _rows(block.batch, part), ball, noise.rows(part), batch_size)

        with noticing() as replaced:
            parts, failures = carefully(run, rows, self.fewer)
        tally.replaced = tally.replaced or replaced.any
        self._fail(block, failures, attack.label)
        for part, result in parts:
            block.finite[part[~result.finite]] = False
            self._enter(block, part, result.z, result.margin > 0, number)
            _count(tally, result)
        tally.forwards += self.looks - looks
        tally.seconds += time.perf_counter() - began

    def _fail(self, block: Surroundings, failures: dict[int, BaseException], name: str) -> None:
        """Record that an attack failed on these examples even alone, so that their verdict is unknown."""
        block.finite[list(failures)] = False
        block.warnings += failed_on(failures, block.batch.ids, name)

    def _enter(self, block: Surroundings, rows: Rows, z: Inputs, claimed: Tensor, number: int) -> None:
        """Verify the points of an attack and its claims, and bisect towards the examples."""
        if len(rows) == 0:
            return
        z = self.threat.boxed(z)
        margins = self._look(block, rows, z, number)
        refuted = (claimed & ~(margins > 0)).nonzero()[:, 0]
        if len(refuted) > 0:
            remaining = rows[refuted]
            block.doubted(remaining, self.threat.distance(block.batch.x[remaining], z[refuted]))
            z[refuted] = self._along(block, remaining, z[refuted], torch.full_like(margins[refuted], FURTHER))
            margins[refuted] = self._look(block, remaining, z[refuted], number)
        self._draw_in(block, rows, z, margins, number)

    def _draw_in(self, block: Surroundings, rows: Rows, z: Inputs, margins: PerExample, number: int) -> None:
        """Bisect the lines to misclassified points (if the end is a tie, to the nearest tie)."""
        wrong = margins >= 0
        if self.threat.norm in ("L0", "Patch"):  # all points of the line differ from x in the same features
            return
        rows, z, tied = rows[wrong], z[wrong], margins[wrong] == 0
        if len(rows) == 0:
            return
        low, high = torch.zeros_like(margins[wrong]), torch.ones_like(margins[wrong])
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            middle_margin = self._look(block, rows, self._along(block, rows, z, middle), number)
            still = (middle_margin > 0) | (tied & (middle_margin == 0))
            low, high = torch.where(still, low, middle), torch.where(still, middle, high)

    def _along(self, block: Surroundings, rows: Rows, z: Inputs, share: PerExample) -> Inputs:
        x = block.batch.x[rows]
        return self.threat.boxed(x + _wide(share, x) * (z - x))

    def _look(self, block: Surroundings, rows: Rows, z: Inputs, number: int) -> PerExample:
        """Return the margins of a fresh forward, and update the state by them."""

        def look(part: Rows, batch_size: int) -> PerExample:
            return verify(self.model, _rows(block.batch, rows[part]), z[part], self.anywhere, batch_size)

        parts, failures = carefully(look, torch.arange(len(rows), device=rows.device), self.at_once)
        margins = torch.full_like(block.margin[rows], -torch.inf)
        for part, values in parts:
            margins[part] = values
        block.warnings += failed_on(failures, block.batch.ids[rows], "the forward")
        self.looks += len(rows)
        distance = self.threat.distance(block.batch.x[rows], z)
        nearer = (margins > 0) & (distance < block.distance[rows])
        closer = rows[nearer]
        block.z[closer], block.distance[closer], block.margin[closer] = z[nearer], distance[nearer], margins[nearer]
        block.found_by[closer] = number
        undecided = (margins == 0) | margins.isneginf()
        block.doubted(rows[undecided], distance[undecided])
        return margins


def _count(tally: Tally, result: AttackResult) -> None:
    tally.forwards += result.passes
    tally.backwards += result.passes if result.backwards is None else result.backwards


def _watch(within: Report, before: float, part: float, text: str) -> Watch:
    return lambda share, _: within(before + share * part, text)


def _rows(batch: Batch, rows: Rows) -> Batch:
    return Batch(batch.x[rows], batch.y[rows], batch.ids[rows])


def _wide(values: Tensor, like: Inputs) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))
