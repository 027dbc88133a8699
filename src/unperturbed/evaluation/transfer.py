"""Transfer: every model on the points that an attack found on every other."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unperturbed.attacks.base import Attack, AttackResult
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.checks import COUNT, SEED, checked
from unperturbed.data.split import Split
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import BLOCK, doubts_about, find_suite
from unperturbed.evaluation.block import Block, Networks, Tally, attack_block, untouched, verify
from unperturbed.evaluation.evidence import Doubt, examined
from unperturbed.evaluation.identity import identity, other_threads
from unperturbed.evaluation.randomised import draws_of, draws_random_numbers
from unperturbed.evaluation.store import Part, Store, read_again, table_in_order
from unperturbed.evaluation.subject import Subject, home, look_at, measured_split, physical_batch_size, versions
from unperturbed.findings import Interval, Progress, Transfer, silent
from unperturbed.losses import margin
from unperturbed.maximise.apgd import APGD
from unperturbed.maximise.places import watched
from unperturbed.networks.failures import carefully, failed_on
from unperturbed.networks.logits import Output
from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.networks.rounding import rounding
from unperturbed.noise import Noise
from unperturbed.runs.lock import alone_in
from unperturbed.statistics.intervals import wilson
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, PerExample

FURTHER: GradientAttack = GradientAttack("APGD-margin", margin, APGD(), enough=math.inf)
"""Where the suite stopped at the first wrong answer: what is barely wrong on one model is often right on another."""
CORRECT, WRONG, UNKNOWN = 1, 0, -1
STANDINGS = {CORRECT: "correct", WRONG: "wrong", UNKNOWN: "unknown"}


@dataclass(frozen=True, eq=False)
class _Peer:
    name: str
    subject: Subject
    networks: Networks
    suite: Suite
    random: bool
    """Whether two forwards differ."""


@checked(seed=SEED, batch_size=COUNT)
@alone_in(lambda given: None if given["out"] is None else (Path(given["out"]) / "transfer", ""))
def transfer(
    models: Mapping[str, nn.Module],
    data: Any,
    threat: Threat,
    suite: str | Suite = "pgd",
    *,
    out: Path | str | None = None,
    overwrite: bool = False,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    output: Output | Mapping[str, Output] = None,
    progress: Progress = silent,
) -> Transfer:
    """Attack every model, and return the accuracy of every model on the points found on every other.

    The point of an example is the one of largest verified margin on the model attacked, also where it is not wrong
    there. Where it is (or x itself is), the search goes on to its end for a point that is as wrong as can be
    (`FURTHER`). A model is correct at a point where its margin there is below 0 in a fresh forward inside the threat
    set; what is not finite is unknown, never correct. The diagonal is the robust accuracy that `evaluate` gives.

    With `out`, what is done is kept after each attack on each model: the same call goes on where an interrupted one
    stopped, and gives the matrix that it would have given.

    Args:
        models: by name, at least two, on one device.
        data: as for `evaluate`.
        threat: the threat set, the same for all.
        suite: a name ("pgd", "standard", "plus", "apgd-ce,square") or a `Suite`, for networks without randomness.
        out: folder for `transfer.json` and, in `transfer/`, a table and the points found for each model attacked.
        overwrite: replace another matrix that `out` holds.
        seed: of the attacks' random starts.
        batch_size: examples that a network sees at a time, raised to a power of two.
        progress: told of every model attacked on every block, and about twice a second of how far that is.
        output: which part of what the models return are the logits: a place, a name, a function of it, or one of
            these for each name.

    Raises:
        InputError: on fewer than two models, a suite for random networks, as `evaluate` does, and where `out` holds a
            matrix of other models, data, threat, suite, seed or version.
    """
    began = time.perf_counter()
    if len(models) < 2:
        raise InputError(f"Transfer is between models: give two or more, not {len(models)}.")
    split, device = measured_split(data), _device(models)
    outputs = output if isinstance(output, Mapping) else dict.fromkeys(models, output)
    if unknown := sorted(set(outputs) - set(models)):
        raise InputError(f"output names {unknown[0]!r}, but the models are {', '.join(models)}.")
    seen = {name: look_at(model, split, threat, seed, outputs.get(name)) for name, model in models.items()}
    suites = {name: find_suite(suite).against(threat.norm, each.classes) for name, each in seen.items()}
    first = next(iter(suites.values()))
    if draws_of(first) > 1:
        raise InputError(f"The suite {first.name} takes means over draws, which a matrix does not: use standard.")
    random = {name: _is_random(each) for name, each in seen.items()}
    warnings = [
        f"{name}: {text}" for name, each in seen.items() for text in (*each.warnings, *_randomness(random[name]))
    ]
    places = min(physical_batch_size(batch_size, each, len(split)) for each in seen.values())
    job: dict[str, Any] = {
        "is_of": _identity(models, seen, split, threat, suites, seed),
        "threads": torch.get_num_threads(),
        "rounding": rounding([each.classifier for each in seen.values()], next(iter(seen.values())).some, places),
        "batch_size": places,
        "block": min(BLOCK, len(split)),
    }
    store = Store(None if out is None else Path(out) / "transfer")
    job = store.begin(job, overwrite)
    warnings += other_threads(job, next(iter(seen.values())))
    places = job["batch_size"]
    peers = [
        _Peer(name, each, Networks(each.classifier, each.classifier, None, places), suites[name], random[name])
        for name, each in seen.items()
    ]
    order = split.names().argsort(stable=True)  # then results do not depend on the order of the split
    with ExitStack() as stack:
        stack.enter_context(as_reported(device))
        for each in seen.values():
            stack.enter_context(under_attack(each.classifier))
        blocks = torch.split(order, job["block"])
        finished = all(store.is_finished(number) for number in range(len(blocks) * len(peers)))
        parts, resumed = _parts(peers, split, blocks, threat, seed, store, progress)
    warnings += [text for part in parts for text in part.warnings]
    for peer in peers:
        if peer.networks.places < places:
            fewer = peer.networks.places
            warnings.append(f"{peer.name}: Memory ran out: it saw {fewer} examples at a time in the end.")
    doubts = {peer.name: _doubts(peer, parts[i :: len(peers)], len(split)) for i, peer in enumerate(peers)}
    warnings += [f"{name}: {doubt.text}" for name, found in doubts.items() for doubt in found]
    spent = sum(tally.seconds for part in parts for tally in part.tallies)
    found = _matrix(
        [table_in_order(parts[i :: len(peers)], order) for i in range(len(peers))],
        tuple(models),
        suite=first.name,
        note=f"{first.note}; off the diagonal on points found without the model's help",
        threat=str(threat),
        n=len(split),
        seconds=spent if resumed else time.perf_counter() - began,
        warnings=tuple(dict.fromkeys(warnings)),
        environment=versions()
        | {
            "device": str(device),
            "batch_size": places,
            **job.get("rounding", {}),
            "seed": seed,
            "weights": {name: job["is_of"][f"weights of {name}"] for name in models},
            "network": {name: job["is_of"][f"network of {name}"] for name in models},
            "data": job["is_of"]["data"],
        },
    )
    short = {name: tuple(dict.fromkeys(doubt.short for doubt in each if doubt.short)) for name, each in doubts.items()}
    found = replace(found, doubts={name: each for name, each in short.items() if each})
    store.summarise(found.json())
    if store.folder is not None and finished:
        found = replace(found, warnings=(*found.warnings, read_again(store.folder)))
    return found


def _identity(
    models: Mapping[str, nn.Module],
    seen: Mapping[str, Subject],
    split: Split,
    threat: Threat,
    suites: Mapping[str, Suite],
    seed: int,
) -> dict[str, Any]:
    """Return what the matrix is of: what an evaluation of each model would be, by name what differs between them."""
    whole = {name: replace(suite, attacks=(*suite.attacks, FURTHER)) for name, suite in suites.items()}
    each = {name: identity(model, seen[name], split, threat, whole[name], seed) for name, model in models.items()}
    own = ("weights", "network", "precision", "attacks")
    common = {key: value for key, value in next(iter(each.values())).items() if key not in (*own, "undescribed")}
    doubts = [f"{name}: {text}" for name, subject in seen.items() for text in subject.undescribed]
    common |= {"models": list(models)} | ({"undescribed": doubts} if doubts else {})
    return common | {f"{key} of {name}": each[name][key] for name in models for key in own}


def _is_random(seen: Subject) -> bool:
    with under_attack(seen.classifier):
        return draws_random_numbers(seen.classifier, seen.some, len(seen.some))


def _randomness(random: bool) -> list[str]:
    return ["it draws random numbers, and each of its entries is by a single draw."] if random else []


def _doubts(peer: _Peer, parts: Sequence[Part], n: int) -> list[Doubt]:
    """Return what speaks against a model's accuracy."""
    random = [Doubt("the network draws random numbers", text) for text in _randomness(peer.random)]
    return random + doubts_about(peer.subject, peer.suite, parts, n, peer.networks.places)


def _parts(
    peers: Sequence[_Peer],
    split: Split,
    blocks: Sequence[Tensor],
    threat: Threat,
    seed: int,
    store: Store,
    progress: Progress,
) -> tuple[list[Part], bool]:
    """Attack every model on every block, a part each, and tell whether some of that was done before."""
    parts, resumed, begins = list[Part](), False, 0
    for rows in blocks:
        batches = [peer.subject.batch(split, rows, threat) for peer in peers]
        for i, peer in enumerate(peers):
            number = len(parts)
            if store.is_finished(number):
                parts.append(store.read(number))
                resumed = True
                continue
            begun = store.begun(number, batches[i], Block)
            resumed = resumed or begun is not None

            def told(share: float, text: str, i: int = i, begins: int = begins, n: int = len(rows)) -> None:
                progress(begins + n * (i + share) / len(peers), len(split), text)

            with own_randomness(seed, peer.subject.device):
                block, table = _measured(peers, i, batches, begun, threat, seed, partial(store.keep, number), told)
            parts.append(replace(store.finish(number, table, block), adversarial=None))  # they may be many
            told(1.0, f"attacked {peer.name}")
        begins += len(rows)
    return parts, resumed


def _measured(
    peers: Sequence[_Peer],
    i: int,
    batches: Sequence[Batch],
    begun: Block | None,
    threat: Threat,
    seed: int,
    keep: Callable[[Block], None],
    told: Callable[[float, str], None],
) -> tuple[Block, dict[str, list[Any]]]:
    """Attack model i, and return its block and a table with how every model stands at the points found."""
    source = peers[i]
    block = begun or untouched(source.networks.reported, batches[i], source.networks.places, seed)
    _attack(source, block, threat, seed, keep, told)
    block.warnings = [f"{source.name}: {text}" for text in block.warnings]
    table = block.table(threat, source.suite)
    for target, batch in zip(peers, batches, strict=True):
        codes, failed = (_own(block), list[str]()) if target is source else _at(target, batch, block.z, threat)
        table[_on(target.name)] = [STANDINGS[code] for code in codes.tolist()]
        block.warnings += failed
    return block, table


def _attack(
    source: _Peer,
    block: Block,
    threat: Threat,
    seed: int,
    keep: Callable[[Block], None],
    told: Callable[[float, str], None],
) -> None:
    """Let the rest of the suite run, and find points as wrong as can be where the example no longer stands."""
    networks, suite, batch = source.networks, source.suite, block.batch
    attacks = suite.attacks
    searches = len(attacks) + 1

    def watching(attack: Attack, place: int) -> AbstractContextManager[None]:
        return watched(lambda share, _: told((place + share) / searches, f"{source.name}: {attack.label}"))

    for place in range(len(block.tallies), len(attacks)):
        with watching(attacks[place], place):
            attack_block(networks, block, threat, suite, seed)
        keep(block)

    def climb(rows: Tensor, places: int) -> tuple[AttackResult, PerExample]:
        some = Batch(batch.x[rows], batch.y[rows], batch.ids[rows])
        found = FURTHER(networks.reported, some, threat, Noise.of(seed, some.ids).fold(len(attacks)), places)
        return found, verify(networks.reported, some, found.z, threat, places)

    began, fallen = time.perf_counter(), (~block.standing).nonzero()[:, 0]
    with watching(FURTHER, len(attacks)):
        parts, failures = carefully(climb, fallen, networks) if len(fallen) > 0 else ([], {})
    for rows, (found, verified) in parts:
        better = verified > block.margin[rows]
        block.margin[rows[better]], block.z[rows[better]] = verified[better], found.z[better]
    block.warnings += failed_on(failures, batch.ids, "the climb to its end")
    block.tallies.append(Tally(seconds=time.perf_counter() - began))
    block.evidence = examined(
        networks.reported,
        batch,
        block.z,
        block.standing,
        threat,
        seed,
        networks,
        random=source.random,
        replaced=any(tally.replaced for tally in block.tallies),
    )


def _at(target: _Peer, batch: Batch, z: Inputs, threat: Threat) -> tuple[Tensor, list[str]]:
    """Return how the target stands at points that another model's attack found, and on what it fails."""
    z = threat.boxed(z.to(batch.x))  # the box is another in another precision, by a rounding

    def look(rows: Tensor, places: int) -> PerExample:
        some = Batch(batch.x[rows], batch.y[rows], batch.ids[rows])
        return verify(target.networks.reported, some, z[rows], threat, places)

    margins = torch.full_like(batch.x.flatten(1)[:, 0], -torch.inf)
    parts, failures = carefully(look, torch.arange(len(z), device=z.device), target.networks)
    for rows, verified in parts:
        margins[rows] = verified
    codes = _standing(torch.where(margins == -torch.inf, torch.nan, margins))
    return codes, [
        f"{target.name}: {text}" for text in failed_on(failures, batch.ids, "the forward on another's points")
    ]


def _own(block: Block) -> Tensor:
    """Return how a model stands at its own points."""
    codes = {"survived": CORRECT, "unknown": UNKNOWN}
    return torch.tensor([codes.get(verdict, WRONG) for verdict in block.verdicts()])


def _standing(margins: Tensor) -> Tensor:
    known = torch.where(margins < 0, CORRECT, WRONG)
    return torch.where(margins.isnan(), UNKNOWN, known).cpu()


def _share(codes: Tensor) -> Interval:
    correct = int((codes == CORRECT).sum())
    return wilson(correct, len(codes), correct + int((codes == UNKNOWN).sum()))


def _on(name: str) -> str:
    """Return the table's column that says how a model stands at the points found."""
    return f"on {name}"


def _matrix(tables: Sequence[Mapping[str, list[Any]]], names: tuple[str, ...], **others: Any) -> Transfer:
    """Return the accuracies that the tables, one a model attacked, come to."""
    codes = {standing: code for code, standing in STANDINGS.items()}
    clean = [_standing(torch.tensor(table["clean_margin"])) for table in tables]
    results = torch.tensor([[[codes[each] for each in table[_on(name)]] for name in names] for table in tables])
    worst = torch.where((results == WRONG).any(0), WRONG, results.amin(0))
    return Transfer(
        names=names,
        clean=tuple(map(_share, clean)),
        accuracy=tuple(tuple(map(_share, row)) for row in results),
        worst=tuple(map(_share, worst)),
        **others,
    )


def _device(models: Mapping[str, nn.Module]) -> torch.device:
    devices = {name: home(model)[0] for name, model in models.items()}
    if len(set(devices.values())) > 1:
        places = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise InputError(f"The models lie on different devices ({places}): move them to one.")
    return next(iter(devices.values()))
