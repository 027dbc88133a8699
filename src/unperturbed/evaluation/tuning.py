"""The choice of memory layout, compilation and batch size of an evaluation's searches, by measured time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch

from unperturbed.attacks.gradient import Suite
from unperturbed.evaluation.checked_model import CheckedModel
from unperturbed.evaluation.search import Networks, as_searched
from unperturbed.losses import margin
from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.networks.precision import Precision, as_reported
from unperturbed.networks.settings import UNTUNED, Tuning
from unperturbed.networks.tuning import Candidate, Clock, Tuned, compiled_ways, other_ways, tune
from unperturbed.suites.passes import OF_A_PASS, suite_passes
from unperturbed.types import Inputs, Model

STANDING = 0.4
"""The share of all passes of a suite that an evaluation takes at least, since examples that break early take few."""
SMALLEST, LARGEST = 16, 1024
"""Limits of measured batch sizes."""


@dataclass(frozen=True)
class Way:
    """A way to run the searches of an evaluation."""

    precision: Precision
    batch_size: int

    def __str__(self) -> str:
        """Return the words for records."""
        return f"{self.precision}, batches of {self.batch_size}"


def tuning_of(
    checked_model: CheckedModel,
    ruled: Precision,
    batch_size: int,
    asked: int | Literal["auto"],
    n: int,
    suite: Suite,
    tuning: Tuning,
) -> Callable[[int], Mapping[str, Any]] | None:
    """Return a function that measures when a job begins, and returns its settings; None if there is no choice.

    Args:
        checked_model: the network.
        ruled: the precision and layout by the rule, or by hand.
        batch_size: examples in a batch by the rule, or by hand.
        asked: the batch size from the caller.
        n: number of examples.
        suite: the attacks.
        tuning: the request.
    """
    if tuning == UNTUNED:
        return None

    def settings(processes: int) -> Mapping[str, Any]:
        default = Way(ruled, batch_size)
        if processes > 1 or checked_model.dtype != torch.float32:
            tuned = Tuned(default, ())
        else:
            tuned = _measured(checked_model, default, asked, n, suite, tuning)
        way = tuned.way
        run_as = {
            "channels_last": way.precision.memory_format == torch.channels_last,
            "compiled": way.precision.compiled,
            "tuning": tuned.record(),
        }
        if way == default and not way.precision.compiled:
            return {"run_as": run_as}
        networks = as_searched(checked_model, way.precision, way.batch_size)
        rounding = networks.rounding(checked_model.examples)
        return {"run_as": run_as, "batch_size": way.batch_size, "rounding": rounding}

    return settings


def precision_of_job(settings: Mapping[str, Any], rule: Precision) -> Precision:
    """Return the layout and compilation that a job began with, or those by the rule, in the precision by the rule."""
    run_as = settings.get("run_as")
    if run_as is None:
        return rule
    layout = torch.channels_last if run_as["channels_last"] else torch.contiguous_format
    return replace(rule, memory_format=layout, compiled=run_as["compiled"])


def _measured(
    checked_model: CheckedModel, default: Way, asked: int | Literal["auto"], n: int, suite: Suite, tuning: Tuning
) -> Tuned[Way]:
    """Return the fastest way for a gradient of the margin and a forward, both in the searches' precisions.

    The choice between bfloat16 and float32 stays with the rule, since its cost depends on the number of searches that
    are repeated.
    """
    device = checked_model.device
    # as for training, but with the precision of the rule
    layouts = other_ways(checked_model.classifier, "32", tuning.layout)

    def sizes(best: Way) -> Sequence[Way]:
        if asked != "auto":
            return []
        most = min(LARGEST, 1 << (n - 1).bit_length())
        others = [size for size in (best.batch_size // 2, 2 * best.batch_size) if SMALLEST <= size <= most]
        return [replace(best, batch_size=size) for size in others]

    stages: list[Callable[[Way], Sequence[Way]]] = [
        lambda best: [replace(best, precision=way) for way in layouts(best.precision)],
        sizes,
        lambda best: [replace(best, precision=way) for way in compiled_ways(best.precision, device)],
    ]
    rough = default.precision.autocast is not None
    of_a_step = 1.0 + OF_A_PASS + rough
    examples = STANDING * n * suite_passes(suite, checked_model.classes) / of_a_step
    candidate = partial(_candidate, checked_model)
    with as_reported(device), under_attack(checked_model.classifier), own_randomness(0, device):
        return tune(default, stages, candidate, examples, tuning.tune, Clock.of(device))


def _candidate(checked_model: CheckedModel, way: Way) -> Candidate:
    networks = list[Networks]()
    rows = torch.arange(way.batch_size, device=checked_model.device) % len(checked_model.examples)
    x = checked_model.examples[rows]

    def prepare() -> None:
        if not networks:
            networks.append(as_searched(checked_model, way.precision, way.batch_size))

    return Candidate(str(way), lambda: _step(networks[0], x), prepare, way.batch_size, bool(way.precision.compiled))


def _step(networks: Networks, x: Inputs) -> None:
    """Take the gradient of the margin in every precision of the searches, and a forward."""
    for network in (networks.searched, networks.rough):
        if network is not None:
            _gradient(network, x)
    with torch.no_grad():
        networks.searched(x)


def _gradient(network: Model, x: Inputs) -> None:
    leaf = x.clone().requires_grad_()
    with torch.enable_grad():
        logits = network(leaf)
        torch.autograd.grad(margin(logits, logits.detach().argmax(dim=1)).sum(), leaf)
