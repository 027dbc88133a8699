"""Certified accuracy: the share of examples whose prediction provably does not change within a radius."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from unperturbed.anatomy.chain import Chain, chain
from unperturbed.anatomy.lower_bounds import log_lower_bound, stretch
from unperturbed.checks import AT_LEAST_ONE, COUNT, POSITIVE, SEED, Rule, checked
from unperturbed.engines.base import Engine
from unperturbed.errors import InputError
from unperturbed.evaluation.bars import stored_bars
from unperturbed.evaluation.batch_size import physical_batch_size
from unperturbed.evaluation.certificates import Certificates
from unperturbed.evaluation.checked_model import OPTIMISING, CheckedModel, check_model, measured_split
from unperturbed.evaluation.devices import shared_by_devices
from unperturbed.evaluation.identity import identity
from unperturbed.evaluation.measurement import Measured, Measurement, Question, Task, measurement, memory_warnings
from unperturbed.evaluation.nearest import AtOnce
from unperturbed.evaluation.outputs import COUPLED, FLAT, PROBABILITIES
from unperturbed.evaluation.parts import Part
from unperturbed.evaluation.randomised import draws_random_numbers
from unperturbed.evaluation.votes import Draws, Votes, count_votes
from unperturbed.findings import Progress, silent
from unperturbed.losses import margin
from unperturbed.networks.logits import Output
from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.networks.rounding import rounding
from unperturbed.statistics.intervals import wilson
from unperturbed.statistics.smoothing import certified_radius, largest_radius
from unperturbed.storage.opened import published, results_and_weights
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Norm

NOTE = "lower bounds of the smoothed classifier, the vote under noise; it is another classifier than the network"
STEPS = 10
"""Number of even steps from 0 to eps, unless radii are given."""
ABSTAINED = -1
"""The prediction of a vote that is too close."""
LEVEL = Rule("must lie in (0, 1)", lambda value: 0 < value < 1)


@checked(
    sigma=POSITIVE,
    draws=AT_LEAST_ONE,
    selection_draws=AT_LEAST_ONE,
    alpha=LEVEL,
    seed=SEED,
    batch_size=COUNT,
    devices=COUNT,
)
@published(results_and_weights)
@shared_by_devices
def certify(
    model: nn.Module,
    data: Any,
    threat: Threat,
    sigma: float,
    *,
    radii: Sequence[float] | None = None,
    draws: int = 10_000,
    selection_draws: int = 100,
    alpha: float = 0.001,
    out: Path | str | None = None,
    overwrite: bool = False,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    output: Output = None,
    devices: int = 1,
    engine: str | Engine | None = None,
    progress: Progress = silent,
) -> Certificates:
    """Return certified radii of every example, by randomised smoothing and, for chains of layers, by their norms.

    CERTIFY of Cohen, Rosenfeld & Kolter 2019 (https://arxiv.org/abs/1902.02918, section 3.2.2): `selection_draws`
    noisy inputs choose a class, `draws` further ones are counted for it, and with pA the Clopper-Pearson bound at
    1 - alpha the smoothed classifier keeps its answer within sigma Phi^-1(pA) in L2, or abstains where pA is at most
    1/2. A radius R in L2 is one of R in L1, and of R / sqrt(d) in Linf. A draw with equal largest logits, or without
    finite ones, counts against the class. The certificate is of exact arithmetic: what float32 rounds in x + noise is
    not part of it.

    Draw k of an example depends on its id, k and the seed, not on batch size or other examples. With `out`, votes are
    stored every tenth of the draws: the same call resumes an interrupted one. Bounds on the network itself are compared
    with the evaluations and curves of the same network, examples and norm in `out` and in the folders next to it.

    Args:
        model: as for `evaluate`; no gradient is taken.
        data: a `Data` (its test split), a `Split`, a pair of arrays (inputs, labels), or a map-style dataset.
        threat: the norm, the box that the examples lie in, and the largest radius of the table.
        sigma: standard deviation of the noise in each feature, in input units: that of training, where noise was added.
        radii: those of the table, 0 included; by default 10 even steps from 0 to eps.
        draws: votes of each example: so many forwards.
        selection_draws: draws that choose the class.
        alpha: chance that the certificate of an example is false.
        out: folder for `certify-NORM-SIGMA.json` and, in a folder of that name, the per-example tables.
        overwrite: replace other certificates that `out` holds.
        seed: of the noise.
        batch_size: noisy inputs that the network sees at a time, raised to a power of two.
        devices: processes that share the examples: each on a GPU, where the model is on one, or with a part of the
            processor's threads. Model and data are sent to them, so that they must be picklable.
        engine: executes the blocks of examples: a name, an import path or an `Engine`; None: this process, or its
            `torch.distributed` group.
        progress: called after every few forwards.
        output: which part of what the model returns are the logits: a place, a name, or a function of it.

    Raises:
        InputError: on what `evaluate` refuses, a sigma that is not positive, an alpha outside (0, 1), radii that are
            negative, and where `out` holds certificates of other weights, data, draws, alpha, seed or version.
        RunError: if a stored attack has found a misclassified point within a proven bound, which is a bug.
    """
    began = time.perf_counter()
    levels = _levels(radii, threat.eps)
    threat.refuse_sparse("A certificate by noise or layer norms")
    threat.refuse_shares("A certificate by noise or layer norms")
    split = measured_split(data)
    ball = replace(threat, eps=0.0)  # votes depend on the box alone
    checked_model = check_model(model, split, ball, seed, output)
    physical_size = physical_batch_size(batch_size, checked_model, len(split) * draws)
    settings = {"sigma": sigma, "draws": draws, "selection_draws": selection_draws, "alpha": alpha}
    question = Question(
        noun="certificate",
        checked_models=[checked_model],
        split=split,
        threat=ball,
        identity=identity(model, checked_model, split, ball, seed) | settings,
        rounding=rounding([checked_model.classifier], checked_model.examples, physical_size),
        seed=seed,
        batch_size=physical_size,
        asked="auto" if batch_size == "auto" else min(batch_size, len(split)),
        began=began,
    )
    name = f"certify-{threat.norm}-{sigma!r}"
    noisy = Draws(sigma, selection_draws, draws, seed)
    with measurement(question, None if out is None else Path(out) / name, overwrite, engine) as job:
        at_once = AtOnce(job.batch_size)
        of = _chain(checked_model, job, seed)

        def measure(task: Task[Votes]) -> Part:
            votes = count_votes(checked_model.classifier, task, noisy, at_once)
            warnings = [*votes.warnings, *memory_warnings(at_once, job.batch_size)]
            return Part(_table(votes, of, noisy, alpha, threat.norm), votes.tallies, warnings)

        measured = job.run(Votes, measure, progress)
        certificates = _certificates(settings, levels, threat, of, measured, job)
        return job.finish(
            certificates if out is None else replace(certificates, bars=stored_bars(certificates, Path(out))), measured
        )


def _chain(checked_model: CheckedModel, job: Measurement, seed: int) -> Chain | str:
    """Return the chain of layers that bounds the network; warn if it draws random numbers."""
    with (
        under_attack(checked_model.classifier),
        own_randomness(seed, checked_model.device),
        as_reported(checked_model.device),
    ):
        if draws_random_numbers(checked_model.classifier, checked_model.examples, job.batch_size):
            job.warnings.append("The network draws random numbers: the certificate is of the mean over these, too.")
            return "it draws random numbers"
        return chain(checked_model.classifier, checked_model.examples[:1])


def _table(votes: Votes, of: Chain | str, draws: Draws, alpha: float, norm: Norm) -> dict[str, list[Any]]:
    """Return the per-example table of a block, by column."""
    batch, clean = votes.batch, margin(votes.logits, votes.batch.y)
    counts = votes.votes.cpu().numpy()
    radius = certified_radius(counts, draws.votes, alpha, draws.sigma)
    chosen = np.where(radius > 0, votes.chosen.cpu().numpy(), ABSTAINED)
    finite = votes.logits.isfinite().all(dim=1)
    return {
        "id": batch.ids.tolist(),
        "label": batch.y.tolist(),
        "clean_margin": torch.where(finite, clean, torch.nan).tolist(),
        "prediction": chosen.tolist(),
        "votes": votes.votes.tolist(),
        "unknown": votes.unknown.tolist(),
        "radius": (radius / stretch("L2", norm, batch.x)).tolist(),
        "proven": _proven(votes, of, norm, batch.x),
        "rounding": Threat(norm, 0.0).rounding(batch.x).tolist(),
    }


def _proven(votes: Votes, of: Chain | str, norm: Norm, x: Inputs) -> list[float]:
    """Return the bound of the network, 0 if it is wrong or has no proof."""
    if isinstance(of, str):
        return [0.0] * len(x)
    bound = log_lower_bound(of, votes.logits, votes.batch.y, norm, x).exp()
    return (
        torch.where(margin(votes.logits, votes.batch.y) < 0, bound, 0.0).nan_to_num(nan=0.0, posinf=torch.inf).tolist()
    )


def _certificates(
    settings: Mapping[str, Any],
    levels: tuple[float, ...],
    threat: Threat,
    of: Chain | str,
    measured: Measured,
    job: Measurement,
) -> Certificates:
    """Return the certificates of all parts."""
    table, checked_model = measured.table(), job.question.checked_models[0]
    n, doubts = len(table["id"]), [doubt for doubt in checked_model.doubts(job.batch_size) if doubt.text == COUPLED]
    correct = sum(margin < 0 for margin in table["clean_margin"])
    not_finite = sum(margin != margin for margin in table["clean_margin"])
    right = sum(label == answer for label, answer in zip(table["label"], table["prediction"], strict=True))
    abstained = table["prediction"].count(ABSTAINED)
    of_attacks = (PROBABILITIES, OPTIMISING)
    warnings = [text for text in checked_model.warnings if text not in of_attacks and not text.startswith(FLAT)]
    largest = largest_radius(settings["draws"], settings["alpha"], settings["sigma"])
    largest /= stretch("L2", threat.norm, checked_model.examples[:1])
    if levels[-1] >= largest:
        warnings.append(
            f"{settings['draws']} draws certify no radius above {largest:.4g}: for larger ones take more draws, or a "
            "larger sigma for a network trained with it."
        )
    if lost := sum(table["unknown"]):
        warnings.append(f"{lost} of {n * settings['draws']} draws have no finite logits: they count against the class.")
    return Certificates(
        note=NOTE,
        threat=str(threat),
        n=n,
        **settings,
        radii=levels,
        clean_accuracy=wilson(correct, n, correct + not_finite),
        counts={"correct": right, "wrong": n - right - abstained, "abstained": abstained},
        unproven=of if isinstance(of, str) else "",
        doubts=tuple(doubt.short for doubt in doubts),
        seconds=measured.seconds,
        warnings=tuple(dict.fromkeys([*warnings, *job.warnings, *measured.warnings()])),
        environment=job.environment,
        examples=table,
    )


def _levels(radii: Sequence[float] | None, eps: float) -> tuple[float, ...]:
    """Return the radii of the table in order, without duplicates."""
    if radii is None:
        return tuple(sorted({*(eps * k / STEPS for k in range(STEPS)), eps}))
    if not len(radii) or not all(0 <= radius < float("inf") for radius in radii):
        raise InputError(f"radii are {list(radii)}: give one or more, each 0 or above, in input units.")
    return tuple(sorted({*map(float, radii)}))
