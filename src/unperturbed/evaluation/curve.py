"""Robust accuracy against eps: for every example, how far away the nearest misclassified point is at most."""

import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from unperturbed.attacks.base import Attack
from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import PGD_SUITE, Suite
from unperturbed.attacks.square import Square
from unperturbed.checks import COUNT, SEED, checked
from unperturbed.errors import InputError
from unperturbed.evaluation.chance import chance_warnings
from unperturbed.evaluation.evidence import Doubt, doubts_of, fallen_without_gradients, total
from unperturbed.evaluation.identity import identity, other_threads
from unperturbed.evaluation.nearest import AtOnce, Search, Surroundings, reach
from unperturbed.evaluation.randomised import RANDOM
from unperturbed.evaluation.store import OUTDATED, Part, Store, inputs_in_order, read_again, table_in_order
from unperturbed.evaluation.subject import (
    FLAT,
    Subject,
    look_at,
    measured_split,
    physical_batch_size,
)
from unperturbed.findings import Interval, Progress, Verdict, doubted, silent
from unperturbed.networks.logits import Output
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.networks.rounding import rounding
from unperturbed.runs.lock import alone_in
from unperturbed.statistics.intervals import wilson
from unperturbed.suites.autoattack import PLUS, STANDARD
from unperturbed.threat import Threat


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
HELD = 2**24
"""Numbers in the inputs that are searched around, held in memory and written together, about."""
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
        doubts: why the robust accuracies are not to be believed, each in a few words; the warnings say more.
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
    doubts: tuple[str, ...] = ()

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
            "doubts": list(self.doubts),
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
            f"{self.at(self.eps)}{doubted(self.doubts)} ({self.suite}: {self.note})"
        )

    def _standing(self, eps: float) -> tuple[int, int]:
        """Return how many examples are robust at a radius, and for how many that is unknown."""
        if not 0 <= eps <= self.eps:
            raise InputError(f"The radius is {eps:g}, but the attacks looked from 0 to {self.eps:g}: search further.")
        columns = (self.examples[name] for name in ("distance", "doubt", "rounding"))
        rows = [(distance, doubt, reach(eps, rounding)) for distance, doubt, rounding in zip(*columns, strict=True)]
        robust = sum(min(distance, doubt) > within for distance, doubt, within in rows)
        return robust, sum(distance > within for distance, _, within in rows) - robust


def _place(given: Mapping[str, Any]) -> tuple[Path, str] | None:
    """Return the folder that distances are written into."""
    return None if given["out"] is None else (Path(given["out"]) / f"curve-{given['threat'].norm}", "")


@checked(seed=SEED, batch_size=COUNT)
@alone_in(_place)
def minimum_norm(
    model: nn.Module,
    data: Any,
    threat: Threat,
    suite: str | Suite = "nearest",
    *,
    radii: Sequence[float] | None = None,
    out: Path | str | None = None,
    overwrite: bool = False,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    output: Output = None,
    progress: Progress = silent,
) -> Distances:
    """Return for every example an upper bound on the distance to the nearest misclassified point, box respected.

    FAB needs no radius and goes first. The other attacks of the suite then look at one radius after the other, the
    largest first, each time at the examples that have neither broken within it nor withstood a larger one: so each
    example withstands the suite at most once, just below its distance. What withstands a radius counts as robust at
    the smaller ones; there it is not attacked again. Whatever is found is drawn in towards the example, by halving the
    line between them as long as the end stays misclassified. Every distance is measured on a point that a fresh forward
    in float32 (or float64) finds misclassified, strictly.

    With `out`, what is done is kept after FAB and after each radius: the same call goes on where an interrupted one
    stopped, and gives the table that it would have given.

    Args:
        model: returns logits: a tensor, a tuple's first item, or an object with `.logits`.
        data: a `Data` (its test split), a `Split`, a pair of arrays (inputs, labels), or a map-style dataset.
        threat: norm, box, and the largest radius of interest; distances beyond it are FAB's alone.
        suite: a name ("nearest", "standard", "plus", "pgd") or a `Suite`.
        radii: where the attacks other than FAB look; by default 10 even steps from 0 to eps.
        out: folder for `curve-NORM.json` and, in a folder of its own, the per-example tables and points.
        overwrite: replace other distances that `out` holds.
        seed: of the attacks' random starts.
        batch_size: examples that the network sees at a time, raised to a power of two.
        progress: told of every radius done, and about twice a second of how far an attack is.
        output: which part of what the model returns are the logits: a place, a name, or a function of it.

    Raises:
        InputError: on what `evaluate` refuses, on an eps of 0, on radii that are not within (0, eps], and where `out`
            holds distances of other weights, data, threat, radii, suite, seed or version.
    """
    began = time.perf_counter()
    chosen, split, levels = _suite(suite), measured_split(data), _radii(radii, threat.eps)
    subject = look_at(model, split, threat, seed, output)
    warnings, n = list(subject.warnings), len(split)
    attacks, places = chosen.against(threat.norm, subject.classes), physical_batch_size(batch_size, subject, n)
    job: dict[str, Any] = {
        "is_of": identity(model, subject, split, threat, attacks, seed) | {"radii": list(levels)},
        "threads": torch.get_num_threads(),
        "rounding": rounding([subject.classifier], subject.some, places),
        "batch_size": places,
        "block": max(256, min(8192, HELD // max(subject.some[0].numel(), 1))),
    }
    store = Store(None if out is None else Path(out) / f"curve-{threat.norm}")
    warnings += [OUTDATED] if store.is_outdated(job) else []
    job = store.begin(job, overwrite)
    warnings += other_threads(job, subject)
    places, few = job["batch_size"], min(job["batch_size"], _share(n, len(levels)))
    at_once, fewer = AtOnce(places), AtOnce(few)
    search = Search(subject.classifier, threat, attacks, levels, seed, at_once, fewer)
    order = split.names().argsort(stable=True)  # then results do not depend on the order of the split
    parts, resumed, read = list[Part](), False, 0
    with under_attack(subject.classifier), as_reported(subject.device):
        for number, ids in enumerate(torch.split(order, job["block"])):
            if store.is_finished(number):
                parts.append(store.read(number))
                resumed, read = True, read + 1
                continue
            batch = subject.batch(split, ids, threat)
            begun = store.begun(number, batch, Surroundings)
            resumed = resumed or begun is not None

            def report(done: float, text: str, first: int = number * job["block"], count: int = len(ids)) -> None:
                progress(first + done * count, n, text)

            block = search(batch, begun, partial(store.keep, number), report)
            parts.append(store.finish(number, block.table(attacks), block))
    warnings += [text for part in parts for text in part.warnings]
    if at_once.places < places or fewer.places < few:
        least = min(at_once.places, fewer.places)
        warnings.append(f"Memory ran out: the network saw {least} examples at a time in the end.")
    environment = job["is_of"] | job.get("rounding", {}) | {"python": platform.python_version(), "batch_size": places}
    table = table_in_order(parts, order)
    correct = sum(margin < 0 for margin in table["clean_margin"])
    not_finite = sum(margin != margin for margin in table["clean_margin"])
    spent = [sum(part.tallies[number].seconds for part in parts) for number in range(len(attacks.attacks))]
    found = Distances(
        suite=attacks.name,
        note=attacks.note,
        threat=str(threat),
        eps=threat.eps,
        radii=levels,
        n=n,
        clean_accuracy=wilson(correct, n, correct + not_finite),
        counts={},
        searches=tuple(
            SearchRecord(
                attack.label,
                table["attack"].count(attack.label),
                spent[number],
                *(sum(getattr(part.tallies[number], name) for part in parts) for name in ("forwards", "backwards")),
            )
            for number, attack in enumerate(attacks.attacks)
        ),
        seconds=sum(spent) if resumed else time.perf_counter() - began,
        warnings=tuple(warnings),
        environment=environment,
        examples=table,
        nearest=inputs_in_order(parts, order),
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
    doubts = _doubts(subject, attacks, parts, found, places)
    warnings += [doubt.text for doubt in doubts]
    warnings += chance_warnings(subject, split, threat, found.clean_accuracy, seed)
    found = replace(found, doubts=tuple(dict.fromkeys(doubt.short for doubt in doubts if doubt.short)))
    found = replace(found, counts=counts, warnings=tuple(dict.fromkeys(warnings)))
    store.summarise(found.json())
    if store.folder is not None and read == len(parts):
        found = replace(found, warnings=(*found.warnings, read_again(store.folder)))
    return found


def _doubts(subject: Subject, suite: Suite, parts: Sequence[Part], found: Distances, places: int) -> list[Doubt]:
    """Return what speaks against the curve: of the network, its gradients, and what Square found nearer than they."""
    evidence = total([part.evidence for part in parts])
    random = [text for text in found.warnings if text.startswith(RANDOM)]
    square = [
        0 if isinstance(attack, FAB) else each.nearest
        for attack, each in zip(suite.attacks, found.searches, strict=True)
    ]
    return [
        *subject.doubts(places),
        *(Doubt("the network draws random numbers", text) for text in random),
        *doubts_of(evidence, found.n, flat_told=any(text.startswith(FLAT) for text in subject.warnings)),
        *fallen_without_gradients(suite.attacks, square, found.n),
    ]


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
