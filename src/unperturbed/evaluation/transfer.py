"""Transfer: every model on the points that an attack found on every other."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unperturbed.attacks.base import Attack, Found
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import BLOCK, find_suite
from unperturbed.evaluation.block import Block, Networks, attack_block, untouched, verify
from unperturbed.evaluation.failures import carefully, failed_on
from unperturbed.evaluation.intervals import wilson
from unperturbed.evaluation.randomised import draws_of, draws_random_numbers
from unperturbed.evaluation.subject import (
    data_hash,
    home,
    look_at,
    measured_split,
    physical_batch_size,
    versions,
    weights_hash,
)
from unperturbed.findings import Interval, Progress, Transfer, silent
from unperturbed.losses import margin
from unperturbed.maximise.apgd import APGD
from unperturbed.maximise.places import watched
from unperturbed.modes import own_randomness, under_attack
from unperturbed.noise import Noise
from unperturbed.precision import as_reported
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, PerExample

FURTHER: GradientAttack = GradientAttack("APGD-margin", margin, APGD(), enough=math.inf)
"""Where the suite stopped at the first wrong answer: what is barely wrong on one model is often right on another."""
CORRECT, WRONG, UNKNOWN = 1, 0, -1


@dataclass(frozen=True, eq=False)
class _Subject:
    name: str
    networks: Networks
    suite: Suite
    dtype: torch.dtype

    @property
    def classifier(self) -> nn.Module:
        assert isinstance(self.networks.reported, nn.Module)
        return self.networks.reported


def transfer(
    models: Mapping[str, nn.Module],
    data: Any,
    threat: Threat,
    suite: str | Suite = "pgd",
    *,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    progress: Progress = silent,
) -> Transfer:
    """Attack every model, and return the accuracy of every model on the points found on every other.

    The point of an example is the one of largest verified margin on the model attacked, also where it is not wrong
    there. Where it is (or x itself is), the search goes on to its end for a point that is as wrong as can be
    (`FURTHER`). A model is correct at a point where its margin there is below 0 in a fresh forward inside the threat
    set; what is not finite is unknown, never correct. The diagonal is the robust accuracy that `evaluate` gives.

    Args:
        models: by name, at least two, on one device.
        data: as for `evaluate`.
        threat: the threat set, the same for all.
        suite: a name ("pgd", "standard", "plus") or a `Suite`, for networks that draw no random numbers.
        seed: of the attacks' random starts.
        batch_size: examples that a network sees at a time, raised to a power of two.
        progress: told of every model attacked on every block, and about twice a second of how far that is.

    Raises:
        InputError: on fewer than two models, a suite for random networks, and as `evaluate` does.
    """
    began = time.perf_counter()
    if len(models) < 2:
        raise InputError(f"Transfer is between models: give two or more, not {len(models)}.")
    split = measured_split(data)
    device, warnings = _device(models), list[str]()
    subjects = []
    for name, model in models.items():
        seen = look_at(model, split, threat, seed)
        attacks = find_suite(suite).against(threat.norm, seen.classes)
        if draws_of(attacks) > 1:
            raise InputError(f"The suite {attacks.name} takes means over draws, which a matrix does not: use standard.")
        told = list(seen.warnings)
        with under_attack(seen.classifier):
            if draws_random_numbers(seen.classifier, seen.some, len(seen.some)):
                told.append("it draws random numbers, and each of its entries is by a single draw.")
        warnings += [f"{name}: {text}" for text in told]
        size = physical_batch_size(batch_size, seen, len(split))
        subjects.append(_Subject(name, Networks(seen.classifier, seen.classifier, None, size), attacks, seen.dtype))
    places = min(subject.networks.places for subject in subjects)
    for subject in subjects:
        subject.networks.places = places
    number, ids = len(models), split.names()
    results = torch.full((number, number, len(split)), UNKNOWN)
    clean = torch.full((number, len(split)), UNKNOWN)
    with ExitStack() as stack:
        stack.enter_context(as_reported(device))
        for subject in subjects:
            stack.enter_context(under_attack(subject.classifier))
        for rows in torch.split(torch.arange(len(split)), BLOCK):
            plain = split.inputs(rows).to(device), split.labels[rows].to(device), ids[rows].to(device)
            for i, source in enumerate(subjects):

                def far(
                    share: float, text: str, before: int = i, first: int = int(rows[0]), n: int = len(rows)
                ) -> None:
                    progress(first + n * (before + share) / number, len(split), text)

                with own_randomness(seed, device):
                    block = _attacked(source, _batch(source, plain, threat), threat, seed, far)
                    warnings += [f"{source.name}: {text}" for text in block.warnings]
                    clean[i, rows] = _standing(block.clean_margin)
                    for j, target in enumerate(subjects):
                        there = _batch(target, plain, threat)
                        codes, failed = (_own(block), list[str]()) if i == j else _at(target, there, block.z, threat)
                        results[i, j, rows] = codes
                        warnings += failed
                far(1.0, f"attacked {source.name}")
    for subject in subjects:
        if subject.networks.places < places:
            fewer = subject.networks.places
            warnings.append(f"{subject.name}: Memory ran out: it saw {fewer} examples at a time in the end.")
    worst = torch.where((results == WRONG).any(0), WRONG, results.amin(0))
    return Transfer(
        names=tuple(models),
        suite=subjects[0].suite.name,
        note=f"{subjects[0].suite.note}; off the diagonal on points found without the model's help",
        threat=str(threat),
        n=len(split),
        clean=tuple(map(_share, clean)),
        accuracy=tuple(tuple(map(_share, row)) for row in results),
        worst=tuple(map(_share, worst)),
        seconds=time.perf_counter() - began,
        warnings=tuple(dict.fromkeys(warnings)),
        environment=versions()
        | {
            "device": str(device),
            "batch_size": places,
            "seed": seed,
            "weights": {name: weights_hash(model) for name, model in models.items()},
            "data": data_hash(split),
        },
    )


def _attacked(source: _Subject, batch: Batch, threat: Threat, seed: int, told: Callable[[float, str], None]) -> Block:
    """Return the block after the suite, with points as wrong as can be where the example no longer stands."""
    networks, attacks = source.networks, source.suite.attacks
    searches = len(attacks) + 1
    block = untouched(networks.reported, batch, networks.places, seed)

    def watching(attack: Attack, place: int) -> AbstractContextManager[None]:
        return watched(lambda share, _: told((place + share) / searches, f"{source.name}: {attack.label}"))

    for place, attack in enumerate(attacks):
        with watching(attack, place):
            attack_block(networks, block, threat, source.suite, seed)

    def climb(rows: Tensor, places: int) -> tuple[Found, PerExample]:
        some = Batch(batch.x[rows], batch.y[rows], batch.ids[rows])
        found = FURTHER(networks.reported, some, threat, Noise.of(seed, some.ids).fold(len(attacks)), places)
        return found, verify(networks.reported, some, found.z, threat, places)

    fallen = (~block.standing).nonzero()[:, 0]
    with watching(FURTHER, len(attacks)):
        parts, failures = carefully(climb, fallen, networks) if len(fallen) > 0 else ([], {})
    for rows, (found, verified) in parts:
        better = verified > block.margin[rows]
        block.margin[rows[better]], block.z[rows[better]] = verified[better], found.z[better]
    block.warnings += failed_on(failures, batch.ids, "the climb to its end")
    return block


def _at(target: _Subject, batch: Batch, z: Inputs, threat: Threat) -> tuple[Tensor, list[str]]:
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


def _batch(subject: _Subject, plain: tuple[Tensor, Tensor, Tensor], threat: Threat) -> Batch:
    x, y, ids = plain
    return Batch(threat.boxed(x.to(subject.dtype)), y, ids)


def _device(models: Mapping[str, nn.Module]) -> torch.device:
    devices = {name: home(model)[0] for name, model in models.items()}
    if len(set(devices.values())) > 1:
        places = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise InputError(f"The models lie on different devices ({places}): move them to one.")
    return next(iter(devices.values()))
