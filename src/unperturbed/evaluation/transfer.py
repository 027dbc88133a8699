"""Transfer: every model on the points that an attack found on every other."""

import math
import platform
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import BLOCK, find_suite
from unperturbed.evaluation.block import Block, Networks, attack_block, untouched, verify
from unperturbed.evaluation.intervals import wilson
from unperturbed.evaluation.randomised import draws_of, draws_random_numbers
from unperturbed.evaluation.subject import home, look_at, measured_split, physical_batch_size, version, weights_hash
from unperturbed.findings import Interval, Progress, Transfer, silent
from unperturbed.losses import margin
from unperturbed.maximise.apgd import APGD
from unperturbed.modes import own_randomness, under_attack
from unperturbed.noise import Noise
from unperturbed.precision import as_reported
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs

FURTHER: GradientAttack = GradientAttack("APGD-margin", margin, APGD(), enough=math.inf)
"""Where the suite stopped at the first wrong answer: what is barely wrong on one model is often right on another."""
CORRECT, WRONG, UNKNOWN = 1, 0, -1


@dataclass(frozen=True, eq=False)
class _Subject:
    name: str
    model: nn.Module
    suite: Suite
    dtype: torch.dtype


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
        progress: told of every model attacked on every block.

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
        subjects.append(_Subject(name, seen.classifier, attacks, seen.dtype))
    places, number, ids = physical_batch_size(batch_size, split), len(models), split.names()
    results = torch.full((number, number, len(split)), UNKNOWN)
    clean = torch.full((number, len(split)), UNKNOWN)
    with ExitStack() as stack:
        stack.enter_context(as_reported(device))
        for subject in subjects:
            stack.enter_context(under_attack(subject.model))
        for rows in torch.split(torch.arange(len(split)), BLOCK):
            plain = split.inputs(rows).to(device), split.labels[rows].to(device), ids[rows].to(device)
            for i, source in enumerate(subjects):
                with own_randomness(seed, device):
                    block = _attacked(source, _batch(source, plain, threat), threat, seed, places)
                    clean[i, rows] = _standing(block.clean_margin)
                    for j, target in enumerate(subjects):
                        results[i, j, rows] = (
                            _own(block)
                            if i == j
                            else _at(target, _batch(target, plain, threat), block.z, threat, places)
                        )
                done = int(rows[0]) + len(rows) * (i + 1) / number
                progress(done, len(split), f"attacked {source.name}")
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
        environment={
            "unperturbed": version(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "device": str(device),
            "batch_size": places,
            "seed": seed,
            "weights": {name: weights_hash(model) for name, model in models.items()},
        },
    )


def _attacked(source: _Subject, batch: Batch, threat: Threat, seed: int, places: int) -> Block:
    """Return the block after the suite, with points as wrong as can be where the example no longer stands."""
    attacks = source.suite.attacks
    block = untouched(source.model, batch, places, seed)
    for _ in attacks:
        attack_block(Networks(source.model, source.model, None, places), block, threat, source.suite, seed)
    rows = (~block.standing).nonzero()[:, 0]
    if len(rows) > 0:
        some = Batch(batch.x[rows], batch.y[rows], batch.ids[rows])
        found = FURTHER(source.model, some, threat, Noise.of(seed, some.ids).fold(len(attacks)), places)
        verified = verify(source.model, some, found.z, threat, places)
        better = verified > block.margin[rows]
        block.margin[rows[better]], block.z[rows[better]] = verified[better], found.z[better]
    return block


def _at(target: _Subject, batch: Batch, z: Inputs, threat: Threat, places: int) -> Tensor:
    """Return how the target stands at points that another model's attack found."""
    z = threat.boxed(z.to(batch.x))  # the box is another in another precision, by a rounding
    margins = verify(target.model, batch, z, threat, places)
    return _standing(torch.where(margins == -torch.inf, torch.nan, margins))


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
