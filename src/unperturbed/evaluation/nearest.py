"""The search around one block of examples for the nearest misclassified points: FAB, then the rest radius by radius."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from unperturbed.attacks.base import Attack, AttackResult, MinimumNorm, Nearest, padded_logits
from unperturbed.attacks.gradient import Suite
from unperturbed.engines.base import Report
from unperturbed.evaluation.evidence import Evidence, examined
from unperturbed.evaluation.parts import Tally
from unperturbed.evaluation.randomised import RANDOM, draws_random_numbers
from unperturbed.evaluation.search import verify
from unperturbed.losses import margin
from unperturbed.maximise.climb_queue import Watch, watched
from unperturbed.maximise.slopes import noticing
from unperturbed.networks.failures import carefully, failed_on, failed_on_all
from unperturbed.networks.modes import own_randomness
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Labels, Logits, Model, PerExample, Rows

HALVINGS = 10
"""How often the line from an example to a misclassified point is halved: to a thousandth of its length."""
FURTHER = 1.001
"""A claim that a fresh forward refutes is looked at again this much further out: it may have been rounding."""
ANYWHERE = 1e30
"""A radius that no example is looked at beyond."""
Number = TypeVar("Number", float, Tensor)


@dataclass
class AtOnce:
    """How many examples the network sees at a time; halved where memory runs out."""

    batch_size: int


@dataclass(eq=False)
class Surroundings:
    """What is known of a block of examples, a row an example; the search fills it in."""

    batch: Batch
    prediction: Labels
    clean_margin: PerExample
    """NaN where the network fails even alone, or the logits are not finite."""
    z: Inputs
    """The nearest misclassified point that is known; x where there is none."""
    margin: PerExample
    """There."""
    found_by: Labels
    """The number of the attack that found z; -1 where that is x."""
    distance: PerExample
    """Of z: 0 where x itself is misclassified, infinite where no point is known."""
    doubt: PerExample
    """The distance of the nearest point other than z that cannot be called correct."""
    rounding: PerExample
    """By how much float32 may make a point of the threat set's edge look further away."""
    finite: Tensor
    """Bool: whether everything computed so far was finite."""
    withstood: Tensor
    """Bool: whether the suite's attacks have looked at one radius without a break."""
    steps: Tensor
    """How many steps of the search are done, a single number."""
    tallies: list[Tally] = field(default_factory=list)
    """One for each attack."""
    warnings: list[str] = field(default_factory=list)
    evidence: Evidence = field(default_factory=Evidence)
    """How gradients behaved, once the attacks are done."""

    @property
    def correct(self) -> Tensor:
        """Whether the example is classified correctly to begin with; a tie of the logits is not."""
        return self.clean_margin < 0

    def unbroken(self, radius: float) -> Tensor:
        """Tell whether no misclassified point within the radius is known."""
        return self.distance > reach(radius, self.rounding)

    def beyond(self, radius: float) -> Tensor:
        """Tell whether nothing within the radius is known to be misclassified or in doubt."""
        return torch.minimum(self.distance, self.doubt) > reach(radius, self.rounding)

    def doubted(self, rows: Rows, distance: PerExample) -> None:
        """Enter that something at this distance cannot be called correct."""
        self.doubt[rows] = torch.minimum(self.doubt[rows], distance.nan_to_num(nan=0.0))

    def table(self, suite: Suite) -> dict[str, list[Any]]:
        """Return the per-example table, by column."""
        labels = [attack.label for attack in suite.attacks] + [""]  # -1 is the last
        return {
            "id": self.batch.ids.tolist(),
            "label": self.batch.y.tolist(),
            "prediction": self.prediction.tolist(),
            "attack": [labels[number] for number in self.found_by.tolist()],
            "clean_margin": self.clean_margin.tolist(),
            "margin": self.margin.tolist(),
            "distance": self.distance.tolist(),
            "doubt": torch.where(self.finite, self.doubt, 0.0).tolist(),
            "rounding": self.rounding.tolist(),
        }

    def adversarial(self) -> Inputs:
        """Return the nearest misclassified points of the examples that were correct and have one, on the CPU."""
        return self.z[self.found_by >= 0].contiguous().cpu()


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
        """Look with `at_once` examples at a time for FAB, and with `fewer` at each radius, where fewer are left."""
        self.model, self.suite, self.radii, self.seed = model, suite, radii, seed
        self.threat, self.anywhere = threat, replace(threat, eps=ANYWHERE)
        self.at_once, self.fewer = at_once, fewer
        numbered = list(enumerate(suite.attacks))
        self.without_radius = [(k, cast(MinimumNorm, attack)) for k, attack in numbered if not attack.needs_radius]
        self.with_radius = [(k, attack) for k, attack in numbered if attack.needs_radius]
        self.looks = 0
        """Fresh forwards so far."""

    def __call__(
        self,
        batch: Batch,
        begun: Surroundings | None,
        keep: Callable[[Surroundings], None],
        report: Report,
    ) -> Surroundings:
        """Return what is known of the examples in the end, stored after each step; resume from `begun`."""
        block = begun if begun is not None else self._begin(batch)
        first, falling = len(self.without_radius), sorted(self.radii, reverse=True)
        steps = first + len(falling)
        for step in range(int(block.steps), steps):

            def within(share: float, text: str, step: int = step) -> None:
                report((step + share) / steps, text)

            with self._draws_of(batch, step):
                if step < first:
                    self._nearest(block, *self.without_radius[step], within)
                    text = "nearest points"
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
        """Return what the clean forward tells."""
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
        """Return the logits at x, NaN where the network fails even alone."""
        rows = torch.arange(len(batch.y), device=batch.y.device)
        parts, failures = carefully(
            lambda some, batch_size: padded_logits(self.model, batch.x[some], batch_size), rows, self.at_once
        )
        if not parts:
            raise failed_on_all(failures)
        warnings += failed_on(failures, batch.ids, "the forward")
        logits = torch.full((len(rows), parts[0][1].shape[1]), torch.nan).to(batch.x)
        for some, values in parts:
            logits[some] = values
        return logits

    def _draws_of(self, batch: Batch, step: int) -> AbstractContextManager[None]:
        """Give a network that draws random numbers the same ones each time this step looks at this block."""
        return own_randomness(int(Noise.of(self.seed, batch.ids[:1]).fold(step).keys), batch.x.device)

    def _nearest(self, block: Surroundings, number: int, attack: MinimumNorm, within: Report) -> None:
        """Let a minimum-norm attack look for the nearest points, at any distance."""
        began, looks, tally = time.perf_counter(), self.looks, block.tallies[number]
        rows = block.correct.nonzero()[:, 0]
        noise = Noise.of(self.seed, block.batch.ids).fold(number)

        def run(some: Rows, batch_size: int) -> Nearest:
            return attack.nearest(self.model, _rows(block.batch, some), self.threat, noise.rows(some), batch_size)

        with watched(_watch(within, 0.0, 1.0, f"nearest points, {attack.label}")), noticing() as replaced:
            parts, failures = carefully(run, rows, self.at_once) if len(rows) else ([], {})
        tally.replaced = tally.replaced or replaced.any
        self._fail(block, failures, attack.label)
        for some, nearest in parts:
            claimed = nearest.distance.isfinite()
            z = torch.where(_wide(claimed, nearest.z), nearest.z, nearest.found.z)
            block.finite[some[~nearest.found.finite]] = False
            self._enter(block, some, z, claimed, number)
            _count(tally, nearest.found)
        tally.forwards += self.looks - looks
        tally.seconds += time.perf_counter() - began

    def _at(self, block: Surroundings, radius: float, step: int, within: Report) -> None:
        """Let the other attacks look within a radius, where nothing has broken and no larger one was withstood."""
        rows = (block.correct & ~block.withstood & block.unbroken(radius)).nonzero()[:, 0]
        for place, (number, attack) in enumerate(self.with_radius):
            rows = rows[block.unbroken(radius)[rows]]
            if len(rows) > 0:
                each = 1 / len(self.with_radius)
                with watched(_watch(within, place * each, each, f"at {radius:g}, {attack.label}")):
                    self._within(block, rows, number, attack, radius, step)
        block.withstood[rows[block.beyond(radius)[rows]]] = True  # what is in doubt is looked at again, further in

    def _within(self, block: Surroundings, rows: Rows, number: int, attack: Attack, radius: float, step: int) -> None:
        began, looks, tally = time.perf_counter(), self.looks, block.tallies[number]
        ball, noise = replace(self.threat, eps=radius), Noise.of(self.seed, block.batch.ids).fold(number).fold(step)

        def run(some: Rows, batch_size: int) -> AttackResult:
            return attack(self.model, _rows(block.batch, some), ball, noise.rows(some), batch_size)

        with noticing() as replaced:
            parts, failures = carefully(run, rows, self.fewer)
        tally.replaced = tally.replaced or replaced.any
        self._fail(block, failures, attack.label)
        for some, found in parts:
            block.finite[some[~found.finite]] = False
            self._enter(block, some, found.z, found.margin > 0, number)
            _count(tally, found)
        tally.forwards += self.looks - looks
        tally.seconds += time.perf_counter() - began

    def _fail(self, block: Surroundings, failures: dict[int, BaseException], name: str) -> None:
        """Enter that an attack failed on these examples even alone: nothing is known of them."""
        block.finite[list(failures)] = False
        block.warnings += failed_on(failures, block.batch.ids, name)

    def _enter(self, block: Surroundings, rows: Rows, z: Inputs, claimed: Tensor, number: int) -> None:
        """Look at the points that an attack has found, some of them claimed to be misclassified, and draw them in."""
        if len(rows) == 0:
            return
        z = self.threat.boxed(z)
        seen = self._look(block, rows, z, number)
        refuted = (claimed & ~(seen > 0)).nonzero()[:, 0]
        if len(refuted) > 0:
            there = rows[refuted]
            block.doubted(there, self.threat.distance(block.batch.x[there], z[refuted]))
            z[refuted] = self._along(block, there, z[refuted], torch.full_like(seen[refuted], FURTHER))
            seen[refuted] = self._look(block, there, z[refuted], number)
        self._draw_in(block, rows, z, seen, number)

    def _draw_in(self, block: Surroundings, rows: Rows, z: Inputs, seen: PerExample, number: int) -> None:
        """Halve the lines to misclassified points (where the end is a tie, to the nearest tie)."""
        wrong = seen >= 0
        rows, z, tied = rows[wrong], z[wrong], seen[wrong] == 0
        if len(rows) == 0:
            return
        low, high = torch.zeros_like(seen[wrong]), torch.ones_like(seen[wrong])
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            here = self._look(block, rows, self._along(block, rows, z, middle), number)
            still = (here > 0) | (tied & (here == 0))
            low, high = torch.where(still, low, middle), torch.where(still, middle, high)

    def _along(self, block: Surroundings, rows: Rows, z: Inputs, share: PerExample) -> Inputs:
        x = block.batch.x[rows]
        return self.threat.boxed(x + _wide(share, x) * (z - x))

    def _look(self, block: Surroundings, rows: Rows, z: Inputs, number: int) -> PerExample:
        """Return the margins of a fresh forward, and enter what they say."""

        def look(some: Rows, batch_size: int) -> PerExample:
            return verify(self.model, _rows(block.batch, rows[some]), z[some], self.anywhere, batch_size)

        parts, failures = carefully(look, torch.arange(len(rows), device=rows.device), self.at_once)
        margins = torch.full_like(block.margin[rows], -torch.inf)
        for some, values in parts:
            margins[some] = values
        block.warnings += failed_on(failures, block.batch.ids[rows], "the forward")
        self.looks += len(rows)
        distance = self.threat.distance(block.batch.x[rows], z)
        nearer = (margins > 0) & (distance < block.distance[rows])
        found = rows[nearer]
        block.z[found], block.distance[found], block.margin[found] = z[nearer], distance[nearer], margins[nearer]
        block.found_by[found] = number
        undecided = (margins == 0) | margins.isneginf()
        block.doubted(rows[undecided], distance[undecided])
        return margins


def reach(radius: float, rounding: Number) -> Number:
    """Return up to which distance a point counts as within the radius, as in `Threat.contains`."""
    return radius * (1 + 1e-6) + rounding


def _count(tally: Tally, found: AttackResult) -> None:
    tally.forwards += found.passes
    tally.backwards += found.passes if found.backwards is None else found.backwards


def _watch(within: Report, before: float, part: float, text: str) -> Watch:
    return lambda share, _: within(before + share * part, text)


def _rows(batch: Batch, rows: Rows) -> Batch:
    return Batch(batch.x[rows], batch.y[rows], batch.ids[rows])


def _wide(values: Tensor, like: Inputs) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))
