"""The choice of precision, memory layout and compilation of a run, by the measured time of a step."""

import logging
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from unperturbed import runs
from unperturbed.networks.modes import buffers_restored, under_attack
from unperturbed.networks.precision import InPrecision, Precision
from unperturbed.networks.tuning import Candidate, Clock, Trial, Tuned, compiled_ways, other_ways, tune
from unperturbed.noise import Noise
from unperturbed.runs.record import RunRecord
from unperturbed.training.engine import Engine

log = logging.getLogger("unperturbed")


def kept_choice(folder: Path) -> Tuned[Precision] | None:
    """Return the measured choice in a run folder, with its times; None if there is none."""
    if not (folder / runs.CONFIG).is_file():
        return None
    choices: Any = RunRecord.read(folder).chosen or {}
    if not choices.get("tuning"):
        return None
    name: Literal["32-true", "bf16-mixed", "64-true"] = choices["precision"]
    layout = torch.channels_last if choices["channels_last"] else torch.contiguous_format
    dtype = torch.float64 if name == "64-true" else torch.float32
    times = choices["tuning"].items()
    trials = [Trial(name, None, value) if isinstance(value, str) else Trial(name, value / 1e6) for name, value in times]
    return Tuned(Precision(name, layout, dtype, choices["compiled"]), tuple(trials))


def tune_training(engine: Engine) -> Tuned[Precision]:
    """Return the fastest precision, layout and compilation for a step of the run, on its first batch.

    The step is the method's search and the gradient of its loss, without the update: network, method and random state
    are as before. Float64 stays, and so do choices by hand. Several processes would measure each other's load, so they
    keep the rule.
    """
    recipe, default = engine.recipe, engine.precision
    if engine.fabric.world_size > 1:
        log.info("With several processes nothing is tuned: precision, layout and compilation are by the rule.")
        return Tuned(default, ())
    method = deepcopy(engine.method, {id(engine.model): engine.model})
    ids, x, y = engine.batches.load(0)
    noise = Noise.of(recipe.seed, ids).fold(-4)
    networks: dict[Precision, InPrecision] = {}

    def step(way: Precision) -> None:
        network = networks[way]
        batch = engine.batch(ids.to(engine.fabric.device), x, y, noise)
        weights = [weight for weight in engine.classifier.parameters() if weight.requires_grad]
        with under_attack(network):
            inner = method.perturb(network, batch, engine.threat, noise)
        terms = method.loss(network, batch, inner, engine.threat, noise)
        torch.autograd.grad(torch.stack(list(terms.values())).sum(), weights, allow_unused=True)

    def candidate(way: Precision) -> Candidate:
        return Candidate(str(way), partial(step, way), partial(prepare, way), len(ids), bool(way.compiled))

    def prepare(way: Precision) -> None:
        if way not in networks:
            networks[way] = engine.running(way)
        engine.precision = way  # of the batch
        engine.classifier.to(memory_format=way.memory_format)  # type: ignore[call-overload]
        networks[way].train()

    device = engine.fabric.device
    stages: list[Callable[[Precision], list[Precision]]] = []
    if default.dtype == torch.float32:
        layouts = other_ways(engine.classifier, recipe.precision, recipe.layout)
        stages = [layouts, partial(compiled_ways, device=device)]
    generators = [device] if device.type == "cuda" else []
    with buffers_restored(engine.classifier), torch.random.fork_rng(generators):
        tuned = tune(default, stages, candidate, engine.steps * len(ids), recipe.tune, Clock.of(device))
    engine.precision = default
    return tuned
