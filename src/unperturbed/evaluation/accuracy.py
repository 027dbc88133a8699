"""Robust accuracy: a verdict per example, verified, and a headline with its interval."""

import hashlib
import platform
import time
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unperturbed.attacks.autoattack import PLUS, RAND, STANDARD
from unperturbed.attacks.base import padded_logits
from unperturbed.attacks.gradient import PGD_SUITE, Suite
from unperturbed.data.check import check
from unperturbed.data.convert import as_split
from unperturbed.data.split import Data, Split
from unperturbed.errors import InputError
from unperturbed.evaluation import store
from unperturbed.evaluation.block import TIE, Tally, evaluate_block
from unperturbed.evaluation.intervals import wilson
from unperturbed.evaluation.randomised import (
    draws_of,
    draws_random_numbers,
    over_draws,
    random_block,
    randomness_warnings,
)
from unperturbed.findings import AttackRecord, Outcome, Progress, Verdict, silent
from unperturbed.models.load import as_classifier
from unperturbed.modes import own_randomness, under_attack
from unperturbed.precision import as_reported
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs

SUITES = {suite.name: suite for suite in (PGD_SUITE, STANDARD, PLUS, RAND)}
BLOCK = 1024
"""Examples that are evaluated, held in memory and written together."""


def evaluate(
    model: nn.Module,
    data: Any,
    threat: Threat,
    suite: str | Suite = "pgd",
    *,
    out: Path | str | None = None,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    progress: Progress = silent,
) -> Outcome:
    """Return how many examples the model classifies correctly, and on how many of those the suite cannot change that.

    Runs in eval mode and in the weights' own precision (float32 or float64) and leaves the model as it was. Every
    success is verified by a fresh forward, strictly (a tie is no success) and inside the threat set.

    Args:
        model: returns logits: a tensor, a tuple's first item, or an object with `.logits`.
        data: a `Data` (its test split), a `Split`, a pair of arrays (inputs, labels), or a map-style dataset.
        threat: the threat set; inputs must lie within its bounds.
        suite: a name ("pgd", "standard", "plus", "rand") or a `Suite`.
        out: folder for `SUITE.json` and, in a folder of its own, the per-example tables and adversarial inputs.
        seed: of the attacks' random starts.
        batch_size: examples that the network sees at a time, raised to a power of two.
        progress: told of every finished block.

    Raises:
        InputError: on data outside the bounds or with NaN, labels that do not fit the outputs, an unknown suite.
    """
    began = time.perf_counter()
    attacks, split = _suite(suite), _test_split(data)
    if torch.is_inference_mode_enabled():
        raise InputError(
            "evaluate was called under torch.inference_mode(), where no gradient exists: leave that block."
        )
    device, dtype = _home(model)
    some = split.inputs(torch.arange(min(len(split), 64))).to(device, dtype)
    classifier = as_classifier(model, some[:1])
    places = physical_batch_size(batch_size, split)
    with own_randomness(seed, device):
        classes, warnings = check_outputs(classifier, some)
    attacks = attacks.against(threat.norm, classes)
    check(split, threat.bounds, classes)
    warnings += box_warnings(threat, some[0])
    if batch_size != "auto" and batch_size > len(split):
        warnings.append(f"The batch size {batch_size} is larger than the data ({len(split)}); it was lowered.")

    if out is not None:
        store.clear(Path(out), attacks.name)
    tables: list[dict[str, list[Any]]] = []
    adversarial: list[Inputs] = []
    evaluated, random = random_block if draws_of(attacks) > 1 else evaluate_block, False
    tallies, names = [Tally(attack.label) for attack in attacks.attacks], split.names()
    with under_attack(classifier), as_reported(device), own_randomness(seed, device):
        for number, ids in enumerate(torch.split(torch.arange(len(split)), BLOCK)):
            x = split.inputs(ids).to(device, dtype)
            x = x.clamp(*threat.limits(x))  # what `check` lets pass may lie outside by a rounding
            batch = Batch(x, split.labels[ids].to(device), names[ids].to(device))
            random = random or draws_random_numbers(classifier, x, places)
            block = evaluated(classifier, batch, threat, attacks, seed, places, tallies)
            tables.append(block.table(threat))
            if out is None:
                adversarial.append(block.adversarial().cpu())
            else:
                store.write_part(Path(out) / attacks.name, number, tables[-1], block.adversarial())
            _report(progress, tables, len(split))
    environment = {
        "unperturbed": _version(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": str(device),
        "precision": str(dtype).removeprefix("torch."),
        "batch_size": places,
        "seed": seed,
        "weights": weights_hash(model),
    }
    warnings += randomness_warnings(attacks, random)
    table = {column: [value for part in tables for value in part[column]] for column in tables[0]}
    outcome = _outcome(
        attacks, threat, table, tallies, warnings, environment, torch.cat(adversarial) if adversarial else None,
        time.perf_counter() - began,
    )  # fmt: skip
    if draws_of(attacks) > 1:
        outcome = over_draws(outcome)
    if out is not None:
        store.write_summary(Path(out), outcome)
    return outcome


def physical_batch_size(asked: int | Literal["auto"], split: Split) -> int:
    """Return how many examples the network sees at a time: a power of two, no more than the data needs."""
    if asked == "auto":
        numel = torch.Size(split.shape).numel()
        asked = 256 if numel <= 1024 else 128 if numel <= 3 * 64 * 64 else 32
    if asked < 1:
        raise InputError(f"batch_size is {asked}, but must be at least 1, or 'auto'.")
    return int(1 << (min(asked, len(split)) - 1).bit_length())


def check_outputs(model: nn.Module, some: Inputs) -> tuple[int, list[str]]:
    """Return the number of classes that the model tells apart, and a warning if its outputs look like probabilities.

    Raises:
        InputError: if the outputs are not logits of shape (n, classes >= 2).
    """
    with under_attack(model):
        logits = padded_logits(model, some, len(some))
        with torch.enable_grad():
            reached = model(some[:1].clone().requires_grad_()).requires_grad
    if not reached:
        raise InputError("No gradient reaches the model's inputs (no_grad or detach inside it): attacks need one.")
    if logits.dim() != 2 or logits.shape[1] < 2:
        shape = tuple(logits.shape)
        raise InputError(f"The model returns a tensor of shape {shape}, but logits have the shape (n, classes >= 2).")
    if bool((logits >= 0).all()) and bool(((logits.sum(dim=1) - 1).abs() < 1e-3).all()):
        text = "The outputs look like probabilities (they sum to 1), but attacks work on logits: leave the softmax out."
        return logits.shape[1], [text]
    return logits.shape[1], []


def box_warnings(threat: Threat, example: Tensor) -> list[str]:
    """Return a warning if eps spans the whole box, so that every input may become any other."""
    low, high = threat.limits(example[None])
    width = float((high - low).max())
    if threat.norm == "Linf" and threat.eps >= width:
        return [f"eps is {threat.eps:g} and the box only {width:g} wide: every input may become any other."]
    return []


def weights_hash(model: nn.Module) -> str:
    """Return a SHA-256 over the names, shapes and values of the weights and buffers."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _suite(suite: str | Suite) -> Suite:
    if isinstance(suite, Suite):
        return suite
    if suite not in SUITES:
        raise InputError(f"The suite {suite!r} does not exist; there is: {', '.join(SUITES)}.")
    return SUITES[suite]


def _test_split(data: Any) -> Split:
    if isinstance(data, Data):
        if data.test is None:
            raise InputError(f"The data {data.name!r} has no test split: pass one of its splits instead.")
        data = data.test
    split = as_split(data)
    if len(split) == 0:
        raise InputError("There is not a single example to evaluate.")
    return split


def _home(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Return the device and precision of the weights."""
    weight = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(0))
    if weight.dtype not in (torch.float32, torch.float64):
        raise InputError(f"The weights are {weight.dtype}, but results are computed in float32: call model.float().")
    return weight.device, weight.dtype


def _version() -> str:
    from importlib.metadata import version

    return version("unperturbed")


def _report(progress: Progress, tables: list[dict[str, list[Any]]], total: int) -> None:
    done = sum(len(table["id"]) for table in tables)
    standing = sum(table["verdict"].count("survived") for table in tables)
    progress(done, total, f"robust at most {standing / done:.1%}")


def _outcome(
    suite: Suite,
    threat: Threat,
    table: dict[str, list[Any]],
    tallies: list[Tally],
    warnings: list[str],
    environment: dict[str, Any],
    adversarial: Inputs | None,
    seconds: float,
) -> Outcome:
    n = len(table["verdict"])
    counts: dict[Verdict, int] = {
        "misclassified": table["verdict"].count("misclassified"),
        "broken": table["verdict"].count("broken"),
        "survived": table["verdict"].count("survived"),
        "unknown": table["verdict"].count("unknown"),
    }
    correct = sum(margin < 0 for margin in table["clean_margin"])
    not_finite = sum(margin != margin for margin in table["clean_margin"])
    standing, attacks = correct, []
    for tally in tallies:
        standing -= tally.broken
        attacks.append(
            AttackRecord(tally.name, tally.broken, standing / n, tally.seconds, tally.forwards, tally.backwards)
        )
        if tally.broken_last:
            text = (
                f"{tally.broken_last} examples broke only in the last restart of {tally.name}: more would break more."
            )
            warnings = [*warnings, text]
    ties = sum(abs(margin) <= TIE for margin in table["margin"])
    unverified = sum(tally.unverified for tally in tallies)
    if unverified:
        warnings = [*warnings, f"{unverified} successes claimed by an attack were refuted by a fresh forward."]
    if counts["unknown"]:
        reasons = "values that are not finite, tied logits, or claims refuted by a fresh forward"
        warnings = [*warnings, f"{counts['unknown']} examples could not be decided ({reasons}): not counted as robust."]
    return Outcome(
        suite=suite.name,
        note=suite.note,
        threat=str(threat),
        n=n,
        clean_accuracy=wilson(correct, n, correct + not_finite),
        robust_accuracy=wilson(counts["survived"], n, counts["survived"] + counts["unknown"]),
        counts=counts,
        attacks=tuple(attacks),
        ties=ties,
        unverified=unverified,
        seconds=seconds,
        warnings=tuple(warnings),
        environment=environment,
        examples=table,
        adversarial=adversarial,
    )
