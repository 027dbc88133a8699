"""Misclassified points from one threat set that lie in another, where the example is then broken, too."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unperturbed.data.split import Split
from unperturbed.evaluation.quantize import adversarial_points
from unperturbed.evaluation.search import TIE
from unperturbed.evaluation.store import CARRIED, Store, carried_of
from unperturbed.evaluation.union import check_same
from unperturbed.findings import AttackRecord, Outcome, Verdict
from unperturbed.runs.lock import alone_in
from unperturbed.runs.tensors import DamagedError, read_tensors, write_tensors
from unperturbed.statistics.intervals import wilson, wilson_over_draws
from unperturbed.threat import Threat
from unperturbed.types import Inputs

OPEN: tuple[Verdict, ...] = ("survived", "unknown")
"""Verdicts that a misclassified point from another threat set changes to broken."""


@dataclass(frozen=True, eq=False)
class Carried:
    """Points from other threat sets, verified there, one per example."""

    z: Inputs
    rows: list[dict[str, Any]]
    """For each point: `id`, `margin`, `distance`, `attack` (its attack and threat) and `threat`."""


def points_between(
    outcomes: Sequence[Outcome], threats: Sequence[Threat], split: Split, folders: Sequence[Path] | None
) -> list[Carried]:
    """Return, for each outcome, points of the others that lie in its threat set, for examples unbroken there.

    A point that a fresh forward misclassifies is misclassified in any threat set that contains it (`Threat.contains`).
    Points of smaller radii come first.

    Args:
        outcomes: of `evaluate`, of one network on the same examples.
        threats: of the outcomes, in this order.
        split: the examples.
        folders: the `out` of each; None if the outcomes hold their points.

    Raises:
        InputError: if network or data of the outcomes differ.
    """
    for later in outcomes[1:]:
        check_same(outcomes[0], later)
    sources = [None] * len(outcomes) if folders is None else list(folders)
    order = sorted(range(len(outcomes)), key=lambda number: threats[number].eps)
    return [
        points_of(((outcomes[k], sources[k]) for k in order if k != number), outcome, threats[number], split)
        for number, outcome in enumerate(outcomes)
    ]


@alone_in(lambda given: (given["folder"] / given["outcome"].suite, ""))
def keep(outcome: Outcome, points: Carried, folder: Path) -> None:
    """Write points into the folder of an outcome under its lock: see `write_points`."""
    write_points(outcome, points, folder)


def write_points(outcome: Outcome, points: Carried, folder: Path) -> None:
    """Write points next to the parts of an outcome, for a later `evaluate`, and correct its summary."""
    if points.rows:
        store_points(outcome, points, folder)
        Store(folder / outcome.suite).summarise(with_points(outcome, points).json())


def store_points(outcome: Outcome, points: Carried, folder: Path) -> None:
    """Write points next to the parts of an outcome, for a later `evaluate`."""
    path, z, rows = folder / outcome.suite / CARRIED, [points.z], list(points.rows)
    try:
        tensors, about = read_tensors(path) if path.exists() else ({}, None)
    except DamagedError:
        tensors, about = {}, None
    if about is not None and about["of"] == carried_of(outcome):
        z, rows = [tensors["adversarial"].to(points.z), points.z], [*about["rows"], *points.rows]
    write_tensors(path, {"adversarial": torch.cat(z).contiguous().cpu()}, {"of": carried_of(outcome), "rows": rows})


def points_of(
    sources: Iterable[tuple[Outcome, Path | None]], outcome: Outcome, threat: Threat, split: Split
) -> Carried:
    """Return points of the sources that lie in the threat set of an outcome, for examples unbroken there.

    A source is an outcome with its `out`, or None if it holds its points. The first source with a point counts.
    """
    position = {name: row for row, name in enumerate(split.names().tolist())}
    table = zip(outcome.examples["id"], outcome.examples["verdict"], strict=True)
    standing = {name for name, verdict in table if verdict in OPEN}
    points_kept, rows = list[Inputs](), list[dict[str, Any]]()
    for source, folder in sources:
        row_of = {name: row for row, name in enumerate(source.examples["id"])}
        for ids, z in adversarial_points(source, folder) if standing else ():
            chosen = torch.tensor([row for row, name in enumerate(ids.tolist()) if name in standing]).long()
            if len(chosen) == 0:
                continue
            points = z[chosen]
            x = threat.boxed(split.inputs(torch.tensor([position[name] for name in ids[chosen].tolist()])).to(points))
            inside, distance = threat.contains(x, points), threat.distance(x, points)
            for row in inside.nonzero()[:, 0].tolist():
                name = int(ids[chosen[row]])
                found_by = source.examples["attack"][row_of[name]]
                rows.append(
                    {
                        "id": name,
                        "margin": source.examples["margin"][row_of[name]],
                        "distance": float(distance[row]),
                        "attack": found_by if " under " in found_by else f"{found_by} under {source.threat}",
                        "threat": source.threat,
                    }
                )
                points_kept.append(points[row])
                standing.discard(name)
    return Carried(torch.stack(points_kept) if points_kept else torch.zeros(0, *split.shape), rows)


def with_points(outcome: Outcome, points: Carried) -> Outcome:
    """Return the outcome with these examples broken, unless they were already, and a record for each threat set."""
    rows = _open_rows(outcome, points)
    if not rows:
        return outcome
    attacks, warnings = list(outcome.attacks), list(outcome.warnings)
    standing = outcome.counts["survived"] + outcome.counts["unknown"]
    for source in dict.fromkeys(points.rows[k]["threat"] for k in rows):
        broken = sum(points.rows[k]["threat"] == source for k in rows)
        standing -= broken
        attacks.append(AttackRecord(f"points of {source}", broken, standing / outcome.n, 0.0, 0, 0))
        warnings.append(
            f"{broken} examples broke under {source} at points that lie in {outcome.threat}, too, where the attacks "
            "missed them: they count as broken."
        )
    return replace(broken_at(outcome, points), attacks=tuple(attacks), warnings=tuple(warnings))


def broken_at(outcome: Outcome, points: Carried) -> Outcome:
    """Return the outcome with these examples broken, where they stood."""
    rows = _open_rows(outcome, points)
    if not rows:
        return outcome
    position = {name: row for row, name in enumerate(outcome.examples["id"])}
    table = {name: list(values) for name, values in outcome.examples.items()}
    adversarial = _by_id(outcome)
    for k in rows:
        row = points.rows[k]
        for column in ("margin", "distance", "attack"):
            table[column][position[row["id"]]] = row[column]
        table["verdict"][position[row["id"]]] = "broken"
        adversarial[row["id"]] = points.z[k]
    counts: dict[Verdict, int] = {verdict: table["verdict"].count(verdict) for verdict in outcome.counts}
    points_in_order = [adversarial[name] for name in table["id"] if name in adversarial]
    return replace(
        outcome,
        robust_accuracy=wilson(counts["survived"], outcome.n, counts["survived"] + counts["unknown"]),
        counts=counts,
        ties=sum(abs(margin) <= TIE for margin in table["margin"]),
        examples=table,
        adversarial=None if outcome.adversarial is None else torch.stack(points_in_order),
    )


def _open_rows(outcome: Outcome, points: Carried) -> list[int]:
    """Return which of the points belong to an example that no attack has broken."""
    verdicts = dict(zip(outcome.examples["id"], outcome.examples["verdict"], strict=True))
    return [k for k, row in enumerate(points.rows) if verdicts.get(row["id"]) in OPEN]


def with_carried(outcome: Outcome, store: Store) -> Outcome:
    """Return the outcome with the points that an earlier `carry` stored next to its parts."""
    path = None if store.folder is None else store.folder / CARRIED
    if path is None or not path.exists():
        return outcome
    try:
        tensors, about = read_tensors(path)
    except DamagedError as error:
        text = f"{path} is damaged ({error}): points found at other radii are lost. Evaluate at all the radii again."
        return replace(outcome, warnings=(*outcome.warnings, text))
    if about is None or about["of"] != carried_of(outcome):
        return outcome
    return with_points(outcome, Carried(tensors["adversarial"], about["rows"]))


def _by_id(outcome: Outcome) -> dict[int, Inputs]:
    """Return the perturbed inputs of the broken examples, if an outcome holds them in memory."""
    if outcome.adversarial is None:
        return {}
    table = zip(outcome.examples["id"], outcome.examples["verdict"], strict=True)
    return dict(zip((name for name, verdict in table if verdict == "broken"), outcome.adversarial, strict=True))


def over_smaller_radii(threat: Threat, outcomes: Sequence[Outcome], threats: Sequence[Threat]) -> Outcome:
    """Return the outcome under a threat, with the draws of smaller radii for examples with fewer right draws there.

    For suites that take means over draws of a random network: the draws at a point of the smaller ball are valid in the
    larger one.
    """
    within = [
        outcome
        for outcome, source_row in sorted(zip(outcomes, threats, strict=True), key=lambda pair: -pair[1].eps)
        if (source_row.norm, source_row.shares) == (threat.norm, threat.shares) and source_row.eps <= threat.eps
    ]
    first, ids = within[0], within[0].examples["id"]
    table = {name: list(values) for name, values in first.examples.items()}
    for source in within[1:]:
        row_of = {name: row for row, name in enumerate(source.examples["id"])}
        for row, name in enumerate(ids):
            source_row = row_of[name]
            if source.examples["draws"][source_row].count(1) < table["draws"][row].count(1):
                broken = source.examples["verdict"][source_row] == "broken" and table["verdict"][row] in OPEN
                for column in ("draws", "margin", "distance", *(("verdict", "attack") if broken else ())):
                    table[column][row] = source.examples[column][source_row]
    draws = np.array(table["draws"])
    robust = wilson_over_draws(draws == 1, draws == -1)
    counts: dict[Verdict, int] = {verdict: table["verdict"].count(verdict) for verdict in first.counts}
    return replace(first, robust_accuracy=robust, counts=counts, examples=table)
