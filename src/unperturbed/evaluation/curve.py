"""Robust accuracy against eps: for every example, how far away the nearest misclassified point is at most."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from unperturbed.attacks.autoattack import PLUS, STANDARD
from unperturbed.attacks.base import Attack, Found, padded_logits
from unperturbed.attacks.fab import FAB, Nearest
from unperturbed.attacks.gradient import PGD_SUITE, Suite
from unperturbed.attacks.square import Square
from unperturbed.errors import InputError
from unperturbed.evaluation import store
from unperturbed.evaluation.block import verify
from unperturbed.evaluation.failures import carefully, failed_on
from unperturbed.evaluation.intervals import wilson
from unperturbed.evaluation.randomised import draws_random_numbers
from unperturbed.evaluation.subject import (
    data_hash,
    look_at,
    measured_split,
    physical_batch_size,
    versions,
    weights_hash,
)
from unperturbed.findings import Interval, Progress, Verdict, silent
from unperturbed.losses import margin
from unperturbed.maximise.places import Watch, watched
from unperturbed.modes import own_randomness, under_attack
from unperturbed.noise import Noise
from unperturbed.precision import as_reported
from unperturbed.runs import write_json
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Logits, Model, PerExample, Rows


def _without_square(attacks: tuple[Attack, ...]) -> tuple[Attack, ...]:
    return tuple(attack for attack in attacks if not isinstance(attack, Square))


NEAREST: Suite = replace(
    STANDARD,
    name="nearest",
    attacks=_without_square(STANDARD.attacks),
    l1=_without_square(STANDARD.l1),
    note="AutoAttack without Square, FAB at its minimum norm: distances and accuracies are upper bounds",
)
SUITES = {suite.name: suite for suite in (NEAREST, PGD_SUITE, STANDARD, PLUS)}
STEPS = 10
"""Even steps from 0 to eps, unless radii are given."""
HALVINGS = 10
"""How often the line from an example to a misclassified point is halved: to a thousandth of its length."""
FURTHER = 1.001
"""A claim that a fresh forward refutes is looked at again this much further out: it may have been rounding."""
ANYWHERE = 1e30
"""A radius that no example is looked at beyond."""
HELD = 2**24
"""Numbers in the inputs that are searched around, held in memory and written together, about."""
Number = TypeVar("Number", float, Tensor)
FEWEST = 16
"""Examples that the network sees at a time at least, where so many were asked for: fewer cost as much."""


@dataclass(frozen=True)
class SearchRecord:
    """What one attack did on the way to the distances."""

    name: str
    nearest: int
    """Examples whose nearest misclassified point is its own."""
    seconds: float
    forwards: int
    backwards: int


@dataclass(frozen=True, eq=False)
class Distances:
    """How far away the nearest misclassified point of each example is at most, and the curve that follows.

    A robust accuracy at eps is the share of examples beyond eps: those whose `distance` is larger, and whose `doubt`,
    too. So it never rises with eps, and is an upper bound like the distances: at the `radii` by the whole suite,
    between them a looser one, since only FAB has looked for what lies just within.

    Attributes:
        suite: which attacks looked, by name.
        note: what a reader of the numbers must know.
        threat: the threat set at the largest radius, as text.
        eps: the largest radius. Beyond it FAB alone has looked, and no accuracy is given.
        radii: those at which the attacks that need one have looked, rising.
        n: examples.
        clean_accuracy: share classified correctly without an attack (a tie of the logits is not correct).
        counts: examples by verdict at the largest radius.
        searches: what each attack did.
        seconds: in all.
        warnings: whatever makes the numbers doubtful.
        environment: versions, seed, hashes.
        examples: the per-example table, by column. `distance` is that of a point that a fresh forward has found
            misclassified: 0 where the example itself is, infinite where there is none. `doubt` is where else it cannot
            be called correct: the distance of the nearest tie, or of a claim that the fresh forward refuted; 0 where a
            value was not finite, infinite where nothing is in doubt. Between the two its verdict is unknown.
        nearest: the nearest misclassified points (row k belongs to the k-th row of the table with an `attack`), where
            they were not written to a folder.
    """

    suite: str
    note: str
    threat: str
    eps: float
    radii: tuple[float, ...]
    n: int
    clean_accuracy: Interval
    counts: Mapping[Verdict, int]
    searches: tuple[SearchRecord, ...]
    seconds: float
    warnings: tuple[str, ...]
    environment: Mapping[str, Any]
    examples: Mapping[str, list[Any]]
    nearest: Any = None

    def at(self, eps: float) -> Interval:
        """Return the robust accuracy at a radius: its interval counts the unknown as not robust below, as robust above.

        What lies beyond eps by no more than float32 rounding (see `Threat.contains`) is within it.

        Raises:
            InputError: for a radius that is negative, or larger than the largest one looked at.
        """
        robust, unknown = self._standing(eps)
        return wilson(robust, self.n, robust + unknown)

    def curve(self) -> list[tuple[float, Interval]]:
        """Return the robust accuracy at each of the radii."""
        return [(radius, self.at(radius)) for radius in self.radii]

    def quantile(self, share: float) -> float:
        """Return the smallest radius at which at least this share of all the examples is not robust.

        Those misclassified to begin with count (at 0), and so do those in doubt; infinite where no such radius was
        found. `quantile(0.5)` is the median distance. A result above `eps` comes from FAB alone.
        """
        if not 0 < share <= 1:
            raise InputError(f"The share is {share}, but must lie in (0, 1]: 0.5 for the median.")
        ends = sorted(map(min, self.examples["distance"], self.examples["doubt"]))
        # as quotients: 0.07 * 100 is a rounding above 7
        return float(next(end for count, end in enumerate(ends, 1) if count / self.n >= share))

    def json(self) -> dict[str, Any]:
        """Return the summary as plain values; a distance that was not found is null."""
        quantiles = {f"{share:g}": self.quantile(share) for share in (0.1, 0.25, 0.5, 0.75, 0.9)}
        return {
            "suite": self.suite,
            "note": self.note,
            "threat": self.threat,
            "n": self.n,
            "clean_accuracy": self.clean_accuracy.value,
            "clean_interval": [self.clean_accuracy.low, self.clean_accuracy.high],
            "curve": [
                {"eps": eps, "robust_accuracy": each.value, "interval": [each.low, each.high],
                 "unknown": self._standing(eps)[1]}
                for eps, each in self.curve()
            ],
            "quantiles": {share: value if math.isfinite(value) else None for share, value in quantiles.items()},
            "counts": dict(self.counts),
            "attacks": [asdict(each) for each in self.searches],
            "seconds": self.seconds,
            "warnings": list(self.warnings),
            "environment": dict(self.environment),
        }  # fmt: skip

    def __str__(self) -> str:
        """Return the headline."""
        return (
            f"clean {self.clean_accuracy}; median distance {self.quantile(0.5):.4g}; robust under {self.threat} "
            f"{self.at(self.eps)} ({self.suite}: {self.note})"
        )

    def _standing(self, eps: float) -> tuple[int, int]:
        """Return how many examples are robust at a radius, and for how many that is unknown."""
        if not 0 <= eps <= self.eps:
            raise InputError(f"The radius is {eps:g}, but the attacks looked from 0 to {self.eps:g}: search further.")
        columns = (self.examples[name] for name in ("distance", "doubt", "rounding"))
        rows = [(distance, doubt, _reach(eps, rounding)) for distance, doubt, rounding in zip(*columns, strict=True)]
        robust = sum(min(distance, doubt) > reach for distance, doubt, reach in rows)
        return robust, sum(distance > reach for distance, _, reach in rows) - robust


def minimum_norm(
    model: nn.Module,
    data: Any,
    threat: Threat,
    suite: str | Suite = "nearest",
    *,
    radii: Sequence[float] | None = None,
    out: Path | str | None = None,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    progress: Progress = silent,
) -> Distances:
    """Return for every example an upper bound on the distance to the nearest misclassified point, box respected.

    FAB needs no radius and goes first. The other attacks of the suite then look at one radius after the other, the
    largest first, each time at the examples that have neither broken within it nor withstood a larger one: so each
    example withstands the suite at most once, just below its distance. What withstands a radius counts as robust at
    the smaller ones; there it is not attacked again. Whatever is found is drawn in towards the example, by halving the
    line between them as long as the end stays misclassified. Every distance is measured on a point that a fresh forward
    in float32 (or float64) finds misclassified, strictly.

    Args:
        model: returns logits: a tensor, a tuple's first item, or an object with `.logits`.
        data: a `Data` (its test split), a `Split`, a pair of arrays (inputs, labels), or a map-style dataset.
        threat: norm, box, and the largest radius of interest; distances beyond it are FAB's alone.
        suite: a name ("nearest", "standard", "plus", "pgd") or a `Suite`.
        radii: where the attacks other than FAB look; by default 10 even steps from 0 to eps.
        out: folder for `curve-NORM.json` and, in a folder of its own, the per-example tables and points.
        seed: of the attacks' random starts.
        batch_size: examples that the network sees at a time, raised to a power of two.
        progress: told of every radius done, and about twice a second of how far an attack is.

    Raises:
        InputError: on what `evaluate` refuses, on an eps of 0, and on radii that are not within (0, eps].
    """
    began = time.perf_counter()
    chosen, split, levels = _suite(suite), measured_split(data), _radii(radii, threat.eps)
    subject = look_at(model, split, threat, seed)
    classifier, device, dtype, warnings = subject.classifier, subject.device, subject.dtype, list(subject.warnings)
    attacks, places = chosen.against(threat.norm, subject.classes), physical_batch_size(batch_size, subject, len(split))

    name, tables, points = f"curve-{threat.norm}", list[dict[str, list[Any]]](), list[Inputs]()
    if out is not None:
        store.clear(Path(out) / name)
    few = min(places, _share(len(split), len(levels)))
    at_once, fewer = _AtOnce(places), _AtOnce(few)
    search = _Search(classifier, threat, attacks, levels, seed, at_once, fewer)
    ids = torch.arange(len(split))
    with under_attack(classifier), as_reported(device), own_randomness(seed, device):
        for number, part in enumerate(torch.split(ids, max(256, min(8192, HELD // max(subject.some[0].numel(), 1))))):
            x = split.inputs(part).to(device, dtype)
            x = x.clamp(*threat.limits(x))  # what `check` lets pass may lie outside by a rounding
            batch = Batch(x, split.labels[part].to(device), split.names()[part].to(device))
            first = int(part[0])

            def report(done: float, text: str, first: int = first, count: int = len(part)) -> None:
                progress(first + done * count, len(split), text)

            block = search(batch, report)
            warnings += block.warnings
            if draws_random_numbers(classifier, batch.x, at_once.places):
                warnings.append(
                    "The network draws random numbers: every distance is by single draws, which mean little."
                )
            tables.append(block.table())
            if out is None:
                points.append(block.points().cpu())
            else:
                store.write_part(Path(out) / name, number, tables[-1], block.points())
    if at_once.places < places or fewer.places < few:
        least = min(at_once.places, fewer.places)
        warnings.append(f"Memory ran out: the network saw {least} examples at a time in the end.")
    environment = versions() | {
        "device": str(device),
        "precision": str(dtype).removeprefix("torch."),
        "batch_size": places,
        "seed": seed,
        "weights": weights_hash(model),
        "data": data_hash(split),
    }
    table = {column: [value for part in tables for value in part[column]] for column in tables[0]}
    correct, n = sum(margin < 0 for margin in table["clean_margin"]), len(split)
    not_finite = sum(margin != margin for margin in table["clean_margin"])
    found = Distances(
        suite=attacks.name,
        note=attacks.note,
        threat=str(threat),
        eps=threat.eps,
        radii=levels,
        n=n,
        clean_accuracy=wilson(correct, n, correct + not_finite),
        counts={},
        searches=tuple(tally.record(table["attack"]) for tally in search.tallies),
        seconds=time.perf_counter() - began,
        warnings=(),
        environment=environment,
        examples=table,
        nearest=torch.cat(points) if points else None,
    )
    robust, unknown = found._standing(threat.eps)
    wrong = n - correct - not_finite
    counts: dict[Verdict, int] = {
        "misclassified": wrong,
        "broken": n - robust - unknown - wrong,
        "survived": robust,
        "unknown": unknown,
    }
    doubtful = max(found._standing(radius)[1] for radius in levels)
    if doubtful:
        reasons = "failures, values that are not finite, tied logits, or claims refuted by a fresh forward"
        warnings += [f"{doubtful} examples are in doubt at one of the radii ({reasons}): not counted as robust."]
    found = replace(found, counts=counts, warnings=tuple(dict.fromkeys(warnings)))
    if out is not None:
        write_json(Path(out) / f"{name}.json", found.json())
    return found


@dataclass
class _Tally:
    name: str
    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0

    def record(self, finders: list[str]) -> SearchRecord:
        return SearchRecord(self.name, finders.count(self.name), self.seconds, self.forwards, self.backwards)


@dataclass
class _AtOnce:
    """How many examples the network sees at a time."""

    places: int


class _Search:
    """The search around a block of examples, and what it has cost so far."""

    def __init__(
        self,
        model: Model,
        threat: Threat,
        suite: Suite,
        radii: Sequence[float],
        seed: int,
        at_once: _AtOnce,
        fewer: _AtOnce,
    ) -> None:
        """Look with `at_once` examples at a time for FAB, and with `fewer` at each radius, where fewer are left."""
        self.model, self.threat, self.radii, self.seed, self.at_once, self.fewer = (
            model, threat, radii, seed, at_once, fewer
        )  # fmt: skip
        self.tallies = [_Tally(attack.label) for attack in suite.attacks]
        numbered = list(enumerate(suite.attacks))
        self.without_radius = [(k, attack) for k, attack in numbered if isinstance(attack, FAB)]
        self.with_radius = [(k, attack) for k, attack in numbered if not isinstance(attack, FAB)]

    def __call__(self, batch: Batch, report: Callable[[float, str], None]) -> "_Block":
        """Return what is known of the examples in the end."""
        block = _Block(self.model, batch, self.threat, self.at_once)
        steps = len(self.without_radius) + len(self.radii)
        withstood = torch.zeros_like(block.correct)
        for step, (number, fab) in enumerate(self.without_radius):
            if bool(block.correct.any()):
                with watched(_watch(report, step / steps, 1 / steps, f"nearest points, {fab.label}")):
                    self._nearest(block, number, fab)
            report((step + 1) / steps, "nearest points")
        for step, radius in enumerate(reversed(self.radii), len(self.without_radius)):
            rows = (block.correct & ~withstood & block.unbroken(radius)).nonzero()[:, 0]
            for place, (number, attack) in enumerate(self.with_radius):
                rows = rows[block.unbroken(radius)[rows]]
                if len(rows) > 0:
                    each = 1 / (steps * len(self.with_radius))
                    with watched(_watch(report, step / steps + place * each, each, f"at {radius:g}, {attack.label}")):
                        self._within(block, rows, number, attack, radius, step)
            withstood[rows[block.beyond(radius)[rows]]] = True  # what is in doubt is looked at again, further in
            share = float((block.beyond(radius) & block.finite).float().mean())
            report((step + 1) / steps, f"robust at {radius:g} at most {share:.1%}")
        return block

    def _nearest(self, block: "_Block", number: int, fab: FAB) -> None:
        began, looks = time.perf_counter(), block.looks
        rows = block.correct.nonzero()[:, 0]
        noise = Noise.of(self.seed, block.batch.ids).fold(number)

        def run(some: Rows, places: int) -> Nearest:
            return fab.nearest(self.model, _rows(block.batch, some), self.threat, noise.rows(some), places)

        parts, failures = carefully(run, rows, self.at_once)
        block.fail(failures, fab.label)
        for some, nearest in parts:
            claimed = nearest.distance.isfinite()
            z = torch.where(_wide(claimed, nearest.z), nearest.z, nearest.found.z)
            block.finite[some[~nearest.found.finite]] = False
            block.enter(some, z, claimed, fab.label)
            self._count(number, nearest.found)
        self.tallies[number].forwards += block.looks - looks
        self.tallies[number].seconds += time.perf_counter() - began

    def _within(self, block: "_Block", rows: Rows, number: int, attack: Attack, radius: float, step: int) -> None:
        began, looks = time.perf_counter(), block.looks
        ball, noise = replace(self.threat, eps=radius), Noise.of(self.seed, block.batch.ids).fold(number).fold(step)

        def run(some: Rows, places: int) -> Found:
            return attack(self.model, _rows(block.batch, some), ball, noise.rows(some), places)

        parts, failures = carefully(run, rows, self.fewer)
        block.fail(failures, attack.label)
        for some, found in parts:
            block.finite[some[~found.finite]] = False
            block.enter(some, found.z, found.margin > 0, attack.label)
            self._count(number, found)
        self.tallies[number].forwards += block.looks - looks
        self.tallies[number].seconds += time.perf_counter() - began

    def _count(self, number: int, found: Found) -> None:
        self.tallies[number].forwards += found.passes
        self.tallies[number].backwards += found.passes if found.backwards is None else found.backwards


class _Block:
    """What is known of a block of examples, a row an example."""

    def __init__(self, model: Model, batch: Batch, threat: Threat, at_once: _AtOnce) -> None:
        self.model, self.batch, self.at_once = model, batch, at_once
        self.threat, self.anywhere = threat, replace(threat, eps=ANYWHERE)
        self.warnings = list[str]()
        logits = self._logits()
        self.prediction = logits.argmax(dim=1)
        self.finite = logits.isfinite().all(dim=1)
        self.clean_margin = torch.where(self.finite, margin(logits, batch.y), torch.nan)
        self.correct = self.clean_margin < 0
        self.distance = torch.where(self.finite & ~self.correct, 0.0, torch.full_like(self.clean_margin, torch.inf))
        self.doubt = torch.full_like(self.distance, torch.inf)
        self.rounding = threat.rounding(batch.x)
        self.z, self.margin = batch.x.clone(), self.clean_margin.clone()
        self.attack = [""] * len(batch.y)
        self.looks = 0
        """Fresh forwards so far."""

    def _logits(self) -> Logits:
        """Return the logits at x, NaN where the network fails even alone."""
        rows = torch.arange(len(self.batch.y), device=self.batch.y.device)
        parts, failures = carefully(
            lambda some, places: padded_logits(self.model, self.batch.x[some], places), rows, self.at_once
        )
        if not parts:
            raise next(iter(failures.values()))
        self.warnings += failed_on(failures, self.batch.ids, "the forward")
        logits = torch.full((len(rows), parts[0][1].shape[1]), torch.nan).to(self.batch.x)
        for some, values in parts:
            logits[some] = values
        return logits

    def fail(self, failures: dict[int, Exception], name: str) -> None:
        """Enter that an attack failed on these examples even alone: nothing is known of them."""
        self.finite[list(failures)] = False
        self.warnings += failed_on(failures, self.batch.ids, name)

    def unbroken(self, radius: float) -> Tensor:
        """Tell whether no misclassified point within the radius is known."""
        return self.distance > _reach(radius, self.rounding)

    def beyond(self, radius: float) -> Tensor:
        """Tell whether nothing within the radius is known to be misclassified or in doubt."""
        return torch.minimum(self.distance, self.doubt) > _reach(radius, self.rounding)

    def enter(self, rows: Rows, z: Inputs, claimed: Tensor, name: str) -> None:
        """Look at the points that an attack has found, some of them claimed to be misclassified, and draw them in."""
        if len(rows) == 0:
            return
        z = self.threat.boxed(z)
        seen = self._look(rows, z, name)
        refuted = (claimed & ~(seen > 0)).nonzero()[:, 0]
        if len(refuted) > 0:
            there = rows[refuted]
            self._doubt(there, self.threat.distance(self.batch.x[there], z[refuted]))
            z[refuted] = self._along(there, z[refuted], torch.full_like(seen[refuted], FURTHER))
            seen[refuted] = self._look(there, z[refuted], name)
        self._draw_in(rows, z, seen, name)

    def _draw_in(self, rows: Rows, z: Inputs, seen: PerExample, name: str) -> None:
        """Halve the lines to misclassified points (where the end is a tie, to the nearest tie)."""
        wrong = seen >= 0
        rows, z, tied = rows[wrong], z[wrong], seen[wrong] == 0
        if len(rows) == 0:
            return
        low, high = torch.zeros_like(seen[wrong]), torch.ones_like(seen[wrong])
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            here = self._look(rows, self._along(rows, z, middle), name)
            still = (here > 0) | (tied & (here == 0))
            low, high = torch.where(still, low, middle), torch.where(still, middle, high)

    def _along(self, rows: Rows, z: Inputs, share: PerExample) -> Inputs:
        x = self.batch.x[rows]
        return self.threat.boxed(x + _wide(share, x) * (z - x))

    def _look(self, rows: Rows, z: Inputs, name: str) -> PerExample:
        """Return the margins of a fresh forward, and enter what they say."""

        def look(some: Rows, places: int) -> PerExample:
            return verify(self.model, _rows(self.batch, rows[some]), z[some], self.anywhere, places)

        parts, failures = carefully(look, torch.arange(len(rows), device=rows.device), self.at_once)
        margins = torch.full_like(self.margin[rows], -torch.inf)
        for some, values in parts:
            margins[some] = values
        self.warnings += failed_on(failures, self.batch.ids[rows], "the forward")
        self.looks += len(rows)
        distance = self.threat.distance(self.batch.x[rows], z)
        nearer = (margins > 0) & (distance < self.distance[rows])
        self.z[rows[nearer]] = z[nearer]
        self.distance[rows[nearer]], self.margin[rows[nearer]] = distance[nearer], margins[nearer]
        for row in rows[nearer].tolist():
            self.attack[row] = name
        undecided = (margins == 0) | margins.isneginf()
        self._doubt(rows[undecided], distance[undecided])
        return margins

    def _doubt(self, rows: Rows, distance: PerExample) -> None:
        self.doubt[rows] = torch.minimum(self.doubt[rows], distance.nan_to_num(nan=0.0))

    def table(self) -> dict[str, list[Any]]:
        """Return the per-example table, by column."""
        return {
            "id": self.batch.ids.tolist(),
            "label": self.batch.y.tolist(),
            "prediction": self.prediction.tolist(),
            "attack": list(self.attack),
            "clean_margin": self.clean_margin.tolist(),
            "margin": self.margin.tolist(),
            "distance": self.distance.tolist(),
            "doubt": torch.where(self.finite, self.doubt, 0.0).tolist(),
            "rounding": self.rounding.tolist(),
        }

    def points(self) -> Inputs:
        """Return the nearest misclassified points of the examples that were correct and have one."""
        return self.z[[row for row, name in enumerate(self.attack) if name]]


def _watch(report: Callable[[float, str], None], before: float, part: float, text: str) -> Watch:
    return lambda share, _: report(before + share * part, text)


def _reach(radius: float, rounding: Number) -> Number:
    """Return up to which distance a point counts as within the radius, as in `Threat.contains`."""
    return radius * (1 + 1e-6) + rounding


def _rows(batch: Batch, rows: Rows) -> Batch:
    return Batch(batch.x[rows], batch.y[rows], batch.ids[rows])


def _wide(values: Tensor, like: Inputs) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))


def _share(n: int, levels: int) -> int:
    """Return a power of two near what a radius has to do where the examples spread evenly over them."""
    return max(FEWEST, 1 << (math.ceil(n / levels) - 1).bit_length())


def _radii(radii: Sequence[float] | None, eps: float) -> tuple[float, ...]:
    """Return the radii in order, each once, eps among them."""
    if eps == 0:
        raise InputError("eps is 0, but is the largest radius of the curve: give one above 0.")
    if radii is None:
        return tuple(eps * k / STEPS for k in range(1, STEPS)) + (eps,)
    wrong = [radius for radius in radii if not 0 < radius <= eps]
    if wrong:
        raise InputError(f"The radius {wrong[0]:g} does not lie in (0, {eps:g}]: eps is the largest of the curve.")
    return tuple(sorted({*map(float, radii), eps}))


def _suite(suite: str | Suite) -> Suite:
    if isinstance(suite, Suite):
        return suite
    if suite not in SUITES:
        raise InputError(f"There is no suite {suite!r} for distances; there is: {', '.join(SUITES)}.")
    return SUITES[suite]
