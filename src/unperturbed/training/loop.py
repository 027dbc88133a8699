"""One training run, from data and a network to weights, a validation score and a run folder."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from unperturbed import runs
from unperturbed.checks import COUNT, checked
from unperturbed.data.convert import as_data
from unperturbed.engines.ending import end_with_launcher
from unperturbed.errors import InputError
from unperturbed.evaluation.chance import TRIED, expected_layer
from unperturbed.evaluation.checked_model import check_kinds
from unperturbed.findings import Progress, silent
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method
from unperturbed.networks.device import find_device
from unperturbed.networks.dtype import home
from unperturbed.networks.logits import Output
from unperturbed.networks.modes import eager, own_randomness
from unperturbed.networks.precision import Precision, choose, full_float32
from unperturbed.networks.tuning import Tuned
from unperturbed.networks.unsettled import unsettled_statistics
from unperturbed.runs.record import RunRecord
from unperturbed.runs.verify import write_sealed
from unperturbed.runs.weights import note_of
from unperturbed.statistics.intervals import wilson
from unperturbed.storage.opened import all_files, published
from unperturbed.threat import Threat
from unperturbed.trackers.base import find_trackers
from unperturbed.training import checkpoint, shards
from unperturbed.training import resume as resuming
from unperturbed.training.engine import Engine
from unperturbed.training.folder import alone, claim, describe_run, origin
from unperturbed.training.journal import Journal
from unperturbed.training.prepare import Examples, chosen, classify, prepare
from unperturbed.training.processes import Strategy, make_fabric, under_torchrun
from unperturbed.training.recipe import Recipe
from unperturbed.training.schedule import learning_rate, ramped
from unperturbed.training.selection import Selection
from unperturbed.training.state import State
from unperturbed.training.trained import Trained, at_chance
from unperturbed.training.tuning import kept_choice, tune_training
from unperturbed.weights.files import load_weights, save_weights

log = logging.getLogger("unperturbed")


@published(all_files)
@checked(devices=COUNT, nodes=COUNT, until=COUNT)
def train(
    model: nn.Module,
    data: Any,
    threat: Threat,
    method: Method | None = None,
    recipe: Recipe | None = None,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    until: int | None = None,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    strategy: Strategy = "ddp",
    extra: Any = None,
    weights: Path | str | None = None,
    output: Output = None,
    track: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Trained:
    """Train `model` in place, and return it with the weights that held up best on held-out training examples.

    Args:
        model: returns logits: a tensor, a tuple's first item, or an object with `.logits`.
        data: a `Data`, a `Split`, a pair of arrays (inputs, labels), a map-style dataset, or a pair (train, test) of
            those; only the training split is used.
        threat: the threat set; inputs must lie within its bounds.
        method: what is minimised; None: `AT()`. One with memory (a dual variable, say) is left as it is: the run is of
            a copy, which `Trained.method` holds at the end.
        recipe: how; None: `Recipe()`.
        out: the run folder: config.yaml, metrics.jsonl, checkpoints/, best.safetensors, model.safetensors (the last
            weights) and result.json.
        resume: from the last checkpoint in `out`, if there is one.
        until: pause at the end of this epoch: a later call with `resume` ends the run as if it had not paused. A paused
            run has no result.json and no model.safetensors yet. None: train all epochs.
        device: "auto", "cpu", "cuda" or "mps".
        devices: processes on this machine, each with a part of every batch.
        nodes: machines; torchrun, SLURM's srun or Ray Train starts the processes of all of them.
        strategy: how processes share the work: "ddp" (each has all weights), or "fsdp" (weights and optimiser are
            sharded over the processes; a method must need no second derivative of the network).
        extra: more training data, of which every batch has the recipe's `extra_ratio`.
        weights: a weights file to start from.
        output: the part of the output with the logits: a position, a name or a function of it; None: see `model`.
        track: trackers that get the metrics of every epoch, in addition to metrics.jsonl in the run folder: "csv",
            "tensorboard", "wandb", "mlflow", "trackio". One that fails does not end the training.
        config: further entries of config.yaml (the sources of data and model).
        progress: called after every step.

    Raises:
        InputError: for bad input, before a run folder is made.
        RunError: for a loss that is not finite; the last checkpoint remains.
    """
    method, recipe = method or AT(), recipe or Recipe()
    check_kinds(model, threat)
    threat.refuse_sparse("Training")
    if until is not None and out is None:
        raise InputError(f"until is {until}, but a paused run is resumed from its folder: give out.")
    if checkpoint.memory(method):
        # so that another run starts in the same way; a method that holds the network still holds this network
        method = deepcopy(method, {id(model): model})
    folder = None if out is None else Path(out)
    trackers = find_trackers(track, folder)
    all_data = as_data(data)
    target = find_device(device)
    begun = resume and folder is not None and (folder / runs.CONFIG).is_file()
    kept = kept_choice(folder) if begun and folder is not None else None
    precision = choose(recipe.precision, model, target, recipe.layout, recipe.compile) if kept is None else kept.way
    classifier = classify(model, all_data, output)
    fabric = make_fabric(target, devices, nodes, strategy, classifier, all_data, recipe)
    shown = origin(model, all_data, extra, weights)
    if weights is not None:
        log.info("%s", load_weights(model, weights))
    launched = under_torchrun(fabric)  # before the launch, which makes a group of these processes
    fabric.launch()
    if launched:
        end_with_launcher()
    examples = prepare(classifier, all_data, extra, threat, recipe, fabric)
    settings = {**shown, **(config or {}), **({} if output is None else {"output": output})}

    def described(tuned: Tuned[Precision]) -> RunRecord:
        picked = chosen(recipe, tuned.way, examples, model, tuned.record() or None)
        return RunRecord.of(describe_run(threat, method, recipe, picked, settings), "this run")

    record = described(kept or Tuned(precision, ()))
    with alone(fabric, folder):
        if folder is not None:
            claim(folder, record.plain(), resume)
        fabric.barrier()
        with _reproducible(fabric, recipe.seed):
            engine = Engine(fabric, model, classifier, examples, threat, method, recipe, precision)
            if recipe.tune != "off" and not begun:
                tuned = tune_training(engine)
                if tuned.trials:
                    record = described(tuned)
                    engine = Engine(fabric, model, classifier, examples, threat, method, recipe, tuned.way)
            run = _Run(engine, examples, folder)
            last = checkpoint.last_of(folder) if resume and folder is not None else None
            if resume and last is None and engine.is_first:
                log.info("There is no checkpoint in %s yet: the training starts from the beginning.", folder)
            run.begin(record, last)
            with run.journal.tracking(trackers, record.plain()):  # the record is there: what they leave is of a run
                run.go(recipe.epochs if until is None else until, progress)
        return run.finish()


@contextmanager
def _reproducible(fabric: Fabric, seed: int) -> Iterator[None]:
    """Compute float32 products in float32 and seed torch's generators in this block; both are restored."""
    with full_float32(), torch.random.fork_rng([fabric.device] if fabric.device.type == "cuda" else []):
        torch.manual_seed(seed + fabric.global_rank)
        yield


class _Run:
    """A run: engine, journal, selection of the weights, and state."""

    def __init__(self, engine: Engine, examples: Examples, folder: Path | None) -> None:
        self.engine, self.folder, self.state = engine, folder, State()
        self.journal = Journal(engine.fabric, folder, self.state)
        self.selection = Selection(engine, self.journal, self.state, examples, folder)
        for text in examples.warnings:
            self.journal.warn(text)
        if engine.steps == 1 and learning_rate(engine.recipe, 0.0) == 0:
            text = "The run is a single step, at the learning rate 0: nothing is learned. Give more epochs."
            self.journal.warn(text)

    def begin(self, record: RunRecord, last: Path | None) -> None:
        """Check the first step and write the record, or resume from the last checkpoint."""
        engine, folder = self.engine, self.folder
        if last is None:
            for text in [*engine.preflight(self.selection.probed), *self.expected_layer()]:
                self.journal.warn(text)
        if folder is not None and last is None and engine.is_first:
            record.write(folder)
            (folder / runs.METRICS).unlink(missing_ok=True)  # of a run that ended before its first checkpoint
        engine.fabric.barrier()
        self.journal.note = {} if folder is None else note_of(runs.read_yaml(folder / runs.CONFIG))
        if last is not None:
            resuming.restore(last, engine, self.journal, self.selection, self.state)
        engine.fabric.barrier()

    def expected_layer(self) -> list[str]:
        """Return a warning if the weights before training are those of a network that expects other inputs."""
        engine, probed = self.engine, self.selection.probed
        with own_randomness(engine.recipe.seed, engine.fabric.device), eager():
            device, _ = home(engine.whole)
            layer = expected_layer(engine.whole, probed.x[:TRIED].to(device), probed.y[:TRIED].to(device))
        return [] if layer is None else [layer]

    @property
    def has_ended(self) -> bool:
        """Whether the run has no epoch left to train."""
        return self.state.stopped or self.state.step >= self.engine.steps

    def go(self, until: int, progress: Progress) -> None:
        """Train until the end of this epoch, the last epoch, or until the run stops."""
        while not self.has_ended and self.state.step < until * len(self.engine.batches):
            self.epoch(progress)

    def epoch(self, progress: Progress) -> None:
        """Train to the end of the epoch, probe the weights, and save."""
        engine, state = self.engine, self.state
        began, saved = time.perf_counter() - state.seconds, time.perf_counter()
        length, repeats, minutes = len(engine.batches), engine.method.repeats, engine.recipe.checkpoint_minutes
        end = (state.step // length + 1) * length
        engine.wrapped.train()
        steps = range(state.step, end)
        for step, (ids, x, y) in zip(steps, engine.batches.read_ahead(s // repeats for s in steps), strict=True):
            values, warning = engine.step(step, ids.to(engine.fabric.device), x, y)
            if warning is not None:
                self.journal.warn(warning)
            self.journal.add(values)
            state.step = step + 1
            loss = float(self.journal.sums["loss"]) / (step + 1 - end + length)
            progress(step + 1, engine.steps, f"epoch {step // length + 1}/{engine.recipe.epochs}: loss {loss:.3f}")
            if step + 1 < end and engine.agreed(time.perf_counter() - saved > 60 * minutes):
                state.seconds, saved = time.perf_counter() - began, time.perf_counter()
                resuming.save(engine, self.journal, state)
        self.end_epoch(began)
        resuming.save(engine, self.journal, state)

    def end_epoch(self, began: float) -> None:
        """Probe the weights, and write the epoch's metrics."""
        engine, state = self.engine, self.state
        means = self.journal.means(len(engine.batches))
        looked = self.selection.look(means["loss"])
        state.seconds = time.perf_counter() - began
        eps = ramped(engine.threat, engine.ramp, state.step / engine.steps).eps
        epoch, lr = state.step // len(engine.batches), engine.optimiser.param_groups[0]["lr"]
        record = {"epoch": epoch, "step": state.step, "seconds": state.seconds, "lr": lr, "eps": eps}
        self.journal.write(record | means | looked)

    def finish(self) -> Trained:
        """Write the last weights and the result, unless the run pauses; return the model with the best weights."""
        engine, state, folder = self.engine, self.state, self.journal.place if self.has_ended else None
        best = state.probes[state.best_epoch - 1]
        engine.gather()
        if folder is not None:
            save_weights(engine.bare, folder / runs.MODEL, self.journal.about(len(state.probes)))
            checkpoint.forget_previous(folder)
            shards.forget_others((folder / runs.CHECKPOINT).parent, 1, state.step)
        engine.fabric.barrier()
        engine.whole.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.selection.load_best()
        engine.model.eval()
        conclusions = self.selection.conclusions()
        for text in conclusions if engine.is_first else ():
            log.info(text)
        clean, robust = (wilson(round(best[name] * best["n"]), best["n"]) for name in ("clean", "many_steps"))
        chance = at_chance(clean, robust, engine.classes)
        if chance is not None and self.has_ended:
            self.journal.warn(chance)
            if (unsettled := unsettled_statistics(engine.whole)) is not None:
                self.journal.warn(unsettled)
        trained = Trained(
            model=engine.model,
            clean_accuracy=clean,
            robust_accuracy=robust,
            best_epoch=state.best_epoch,
            epochs=len(state.probes),
            seconds=state.seconds,
            warnings=tuple(state.warnings),
            folder=self.folder,
            conclusions=conclusions,
            feasible=state.best_feasible,
            method=engine.method,
            held_out=self.selection.held_out,
        )
        if folder is not None:
            write_sealed(folder / runs.RESULT, trained.json())
        return trained
