"""One training run, from data and a network to weights, a validation score and a run folder."""

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.csv_logs import CSVLogger
from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from unperturbed import runs
from unperturbed.checks import COUNT, checked
from unperturbed.data.augment import augmentation
from unperturbed.data.convert import as_data
from unperturbed.errors import InputError, NotResumableError, RunError
from unperturbed.evaluation.subject import check_kinds
from unperturbed.findings import Interval, Progress, silent
from unperturbed.maximise.places import at_least_two
from unperturbed.maximise.slopes import REPLACED, noticing
from unperturbed.methods.at import AT
from unperturbed.methods.base import EpochEnd, Method
from unperturbed.networks.dtype import cast as cast_network
from unperturbed.networks.guard import running, trying
from unperturbed.networks.inputs import missing_layer
from unperturbed.networks.logits import Output, unwrapped
from unperturbed.networks.modes import buffers_restored, eager, own_randomness, under_attack
from unperturbed.networks.precision import InPrecision, Precision, as_reported, choose, full_float32
from unperturbed.networks.second import is_missing, lacking
from unperturbed.noise import Noise
from unperturbed.runs.record import RunRecord
from unperturbed.runs.tensors import DamagedError, read_tensors
from unperturbed.runs.weights import note_of
from unperturbed.statistics.intervals import wilson
from unperturbed.threat import Threat
from unperturbed.training import checkpoint
from unperturbed.training.alarm import Probe, probe, recognise
from unperturbed.training.folder import alone, claim, describe_run, origin
from unperturbed.training.prepare import (
    Examples,
    check_devices,
    chosen,
    classify,
    find_device,
    make_optimiser,
    peak_learning_rate,
    prepare,
    strategy_for,
)
from unperturbed.training.recipe import Recipe
from unperturbed.training.schedule import learning_rate, ramped
from unperturbed.training.step import not_finite_at, optimisation_step
from unperturbed.types import Batch, Inputs, Labels
from unperturbed.weights.files import load_weights, save_weights

T = TypeVar("T")
log = logging.getLogger("unperturbed")
PROBED = 512
"""Held-out examples that the probe of every epoch looks at."""
EXAMINED = 128
"""Of those, the first ones, on which a method measures its own quantities."""
CHECKED = 8
"""Of those, the first ones, that a method is checked on before the first step."""
STRONGER = 2
"""Doublings of the inner steps that the alarm may make: if four times the steps fail, more will not help."""


@dataclass(frozen=True, eq=False)
class Trained:
    """The result of a run.

    Attributes:
        model: the network that was given, with the best weights, in eval mode.
        clean_accuracy: of those weights, on the examples that the probe looks at.
        robust_accuracy: likewise, under ten steps of projected ascent: a quick look, not an evaluation.
        best_epoch: the epoch, from 1, that the weights are from: the most robust one under the probe, of those that
            meet the method's limit, if it has one and any does.
        epochs: how many were run.
        seconds: of training, probes included.
        warnings: what was adjusted, and what the alarm recognised.
        folder: the run folder, or None.
        conclusions: what the method says of its end, the last epoch's: whether a limit was met, say.
        feasible: whether the epoch that the weights are from has met the method's limit; None where it has none, and
            where a loss is limited but a running average of the weights is kept.
        method: as it is at the end, its memory included: that of the last epoch, too.
        held_out: whether the probe's examples were held out, as they are unless `validation` leaves none.
    """

    model: nn.Module
    clean_accuracy: Interval
    robust_accuracy: Interval
    best_epoch: int
    epochs: int
    seconds: float
    warnings: tuple[str, ...]
    folder: Path | None
    conclusions: tuple[str, ...] = ()
    feasible: bool | None = None
    method: Method | None = None
    held_out: bool = True

    def json(self) -> dict[str, Any]:
        """Return the result as plain values."""
        return {
            "run": None if self.folder is None else str(self.folder),
            "clean_accuracy": self.clean_accuracy.value,
            "robust_accuracy": self.robust_accuracy.value,
            "validation_examples": self.clean_accuracy.n,
            "held_out": self.held_out,
            "best_epoch": self.best_epoch,
            "epochs": self.epochs,
            "seconds": self.seconds,
            "warnings": list(self.warnings),
            "conclusions": list(self.conclusions),
            "feasible": self.feasible,
        }


@checked(devices=COUNT)
def train(
    model: nn.Module,
    data: Any,
    threat: Threat,
    method: Method | None = None,
    recipe: Recipe | None = None,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    device: str = "auto",
    devices: int = 1,
    extra: Any = None,
    weights: Path | str | None = None,
    output: Output = None,
    loggers: Sequence[Literal["csv", "tensorboard"]] = (),
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
        resume: go on from the last checkpoint in `out`, if there is one.
        device: "auto", "cpu", "cuda" or "mps".
        devices: processes, each with a part of every batch.
        extra: more training data, of which every batch has the recipe's `extra_ratio`.
        weights: a weights file to start from.
        output: which part of what the model returns are the logits: a place, a name or a function of it; None: see
            `model`.
        loggers: beside metrics.jsonl, in the run folder.
        config: what else config.yaml shall hold (where data and model came from).
        progress: called after every step, with the mean loss of the epoch so far in the text.

    Raises:
        InputError: on bad input, before a run folder is made.
        RunError: on a loss that is not finite; the last checkpoint stands.
    """
    method, recipe = method or AT(), recipe or Recipe()
    check_kinds(model, threat)
    if checkpoint.memory(method):
        # so that another run of it begins as this one does; a method that holds the network still holds this one
        method = deepcopy(method, {id(model): model})
    folder = None if out is None else Path(out)
    all_data = as_data(data)
    found = find_device(device)
    check_devices(devices, found)
    precision = choose(recipe.precision, model, found)
    classifier = classify(model, all_data, output)
    fabric = Fabric(
        accelerator=found.type,
        devices=devices if found.index is None else [found.index],
        strategy="auto" if devices == 1 else strategy_for(classifier, all_data),
        loggers=_loggers(loggers, folder),
    )
    shown = origin(model, all_data, extra, weights)
    if weights is not None:
        log.info("%s", load_weights(model, weights))
    fabric.launch()
    examples = prepare(classifier, all_data, extra, threat, recipe, fabric)
    said = {**shown, **(config or {}), **({} if output is None else {"output": output})}
    picked = chosen(recipe, precision, examples, model)
    record = RunRecord.of(describe_run(threat, method, recipe, picked, said), "this run")
    description = record.plain()
    with alone(fabric, folder):
        if folder is not None:
            claim(folder, description, resume)
        fabric.barrier()
        with full_float32(), torch.random.fork_rng([fabric.device] if fabric.device.type == "cuda" else []):
            torch.manual_seed(recipe.seed + fabric.global_rank)
            run = _Run(fabric, model, classifier, examples, threat, method, recipe, precision, folder)
            last = checkpoint.last_of(folder) if resume and folder is not None else None
            if last is None:
                run.preflight()
            if folder is not None and last is None and fabric.is_global_zero:
                record.write(folder)
                (folder / runs.METRICS).unlink(missing_ok=True)  # of a run that ended before its first checkpoint
            fabric.barrier()
            run.note = {} if folder is None else note_of(runs.read_yaml(folder / runs.CONFIG))
            if last is not None:
                run.restore(last)
            fabric.barrier()
            run.go(progress)
        return run.finish()


@dataclass
class _State:
    """What changes while a run goes on, beside the weights; all of it is in the checkpoint."""

    step: int = 0
    seconds: float = 0.0
    probes: list[dict[str, Any]] = field(default_factory=list)
    training_losses: list[float] = field(default_factory=list)
    best_epoch: int = -1
    best_feasible: bool | None = False
    """Whether that epoch has met the method's limit; None if it has none, or cannot know."""
    best_examined: dict[str, float] = field(default_factory=dict)
    """What the method measured of itself after that epoch."""
    strengthened: int = 0
    stopped: bool = False
    warnings: list[str] = field(default_factory=list)


class _Run:
    """A run on its way: the parts that stay, and the state that changes."""

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        classifier: nn.Module,
        examples: Examples,
        threat: Threat,
        method: Method,
        recipe: Recipe,
        precision: Precision,
        folder: Path | None,
    ) -> None:
        self.note: dict[str, str] = {}
        """What the run's files say of the run that they belong to."""
        self.fabric, self.model, self.classifier, self.threat = fabric, model, classifier, threat
        self.method, self.recipe, self.precision, self.folder = method, recipe, precision, folder
        self.batches, self.classes = examples.batches, examples.classes
        self.held_out = len(examples.held_out) > 0
        self.replaced = False
        """Whether a gradient of the inner maximisation was not finite, and that was told."""
        self.state = _State()
        self.sums: dict[str, Tensor] = {}
        """Of this epoch's terms and diagnostics over its steps, as this process sees them."""
        self.best: dict[str, Tensor] = {}
        self.metrics: list[dict[str, Any]] = []
        """Of every epoch, as metrics.jsonl has them, but for the time."""
        self.steps = recipe.epochs * len(self.batches)
        self.ramp = method.ramp if recipe.ramp is None else recipe.ramp
        self.augment = augmentation(recipe.augment)
        self.peak = peak_learning_rate(recipe, classifier)

        cast_network(classifier, precision.dtype, fabric.device)
        classifier.to(memory_format=precision.memory_format)  # type: ignore[call-overload]
        checkpoint.move_memory(method, fabric.device)
        self.attacked = InPrecision(classifier, precision.autocast, compile=recipe.compile)
        self.wrapped, self.optimiser = fabric.setup(self.attacked, make_optimiser(classifier, recipe))
        average = get_ema_multi_avg_fn(recipe.averaging) if recipe.averaging else None  # type: ignore[no-untyped-call]
        self.average = AveragedModel(classifier, multi_avg_fn=average, use_buffers=True) if average else None

        ids = examples.probed
        ids = ids[Noise.of(recipe.seed, ids).keys.argsort()[:PROBED]]
        split = self.batches.split
        x, y = self.inputs(split.inputs(ids)), split.labels[ids].to(fabric.device)
        self.probed = Batch(x, y, ids.to(fabric.device))
        for text in examples.warnings:
            self.warn(text)
        if self.steps == 1 and learning_rate(recipe, 0.0) == 0:
            self.warn("The run is a single step, at the learning rate 0: nothing is learned. Give more epochs.")

    def inputs(self, x: Inputs) -> Inputs:
        """Return inputs as the network takes them: on the device, in its format, clamped against rounding."""
        x = x.to(self.fabric.device, self.precision.dtype)
        if x.dim() == 4:
            x = x.contiguous(memory_format=self.precision.memory_format)
        low, high = self.threat.limits(x)
        return x.clamp(low, high)

    def batch(self, ids: Labels, x: Inputs, y: Labels, noise: Noise) -> Batch:
        """Return a training batch, augmented, with smoothed targets if the recipe has any smoothing."""
        x, y = self.augment(self.inputs(x), noise), y.to(self.fabric.device)
        smoothing = self.recipe.label_smoothing
        if smoothing == 0:
            return Batch(x, y, ids)
        one_hot = nn.functional.one_hot(y, self.classes).to(x.dtype)
        return Batch(x, y, ids, one_hot * (1 - smoothing) + smoothing / self.classes)

    def go(self, progress: Progress) -> None:
        """Train until the last epoch, or until the run is stopped."""
        while self.state.step < self.steps and not self.state.stopped:
            self.epoch(progress)

    def preflight(self) -> None:
        """Try a step on two examples, and let the method look at the network: before the run folder is made.

        Network, method and random state are as before. Raises `InputError` for what would fail at the first step.
        """
        rows = at_least_two(torch.arange(min(CHECKED, len(self.probed.x)), device=self.fabric.device))  # for batch norm
        few = Batch(self.probed.x[rows], self.probed.y[rows], self.probed.ids[rows])
        noise = Noise.of(self.recipe.seed, few.ids).fold(-3)
        device = [self.fabric.device] if self.fabric.device.type == "cuda" else []
        self.wrapped.train()
        with buffers_restored(self.attacked), torch.random.fork_rng(device), eager():
            self.try_step(_first(few, 2), noise.rows(torch.arange(2, device=self.fabric.device)))
        with buffers_restored(self.attacked), torch.random.fork_rng(device):
            for text in self.method.check(self.attacked, few, self.threat, noise):
                self.warn(text)

    def try_step(self, two: Batch, noise: Noise) -> None:
        """Take the gradient of a step on two examples, on a copy of a method with memory; nothing moves."""
        method = deepcopy(self.method, {id(self.model): self.model}) if checkpoint.memory(self.method) else self.method
        weights = [weight for weight in self.classifier.parameters() if weight.requires_grad]
        with trying(f"trying a step of {getattr(method, 'name', type(method).__name__)}", two.ids, two.x):
            try:
                with under_attack(self.attacked):
                    inner = method.perturb(self.attacked, two, self.threat, noise)
                terms = method.loss(self.attacked, two, inner, self.threat, noise)
                loss = torch.stack(list(terms.values())).sum()
                if loss.requires_grad:
                    torch.autograd.grad(loss, weights, allow_unused=True)
            except RuntimeError as error:
                if is_missing(error):
                    raise InputError(lacking(self.classifier, two.x, error)) from error
                raise

    def epoch(self, progress: Progress) -> None:
        """Train to the end of the epoch, look at the result, and save."""
        began, saved = time.perf_counter() - self.state.seconds, time.perf_counter()
        length = len(self.batches)
        end = (self.state.step // length + 1) * length
        repeats = self.method.repeats
        self.wrapped.train()
        steps = range(self.state.step, end)
        for step, (ids, x, y) in zip(steps, self.batches.read_ahead(s // repeats for s in steps), strict=True):
            self.one_step(step, ids.to(self.fabric.device), x, y)
            self.state.step = step + 1
            loss = float(self.sums["loss"]) / (step + 1 - end + length)
            progress(step + 1, self.steps, f"epoch {step // length + 1}/{self.recipe.epochs}: loss {loss:.3f}")
            if step + 1 < end and self.all_agree(time.perf_counter() - saved > 60 * self.recipe.checkpoint_minutes):
                self.state.seconds, saved = time.perf_counter() - began, time.perf_counter()
                self.save()
        self.look(began)
        self.save()

    def all_agree(self, due: bool) -> bool:
        """Return what the first process says: clocks differ, and a checkpoint takes all of them."""
        return due if self.fabric.world_size == 1 else bool(self.fabric.broadcast(due))

    def first_says(self, found: T) -> T:
        """Return what the first process has found: each has running averages of its own, and all must do the same."""
        return found if self.fabric.world_size == 1 else self.fabric.broadcast(found)

    def one_step(self, step: int, ids: Labels, x: Inputs, y: Labels) -> None:
        """Take one optimisation step."""
        share = step / self.steps
        for group in self.optimiser.param_groups:
            group["lr"] = self.peak * learning_rate(self.recipe, share)
        noise = Noise.of(self.recipe.seed, ids).fold(step)
        augmenting = Noise.of(self.recipe.seed, ids).fold(step // self.method.repeats)  # a replay is the same batch
        batch = self.batch(ids, x, y, augmenting.fold(0))
        threat = ramped(self.threat, self.ramp, share)
        try:
            with noticing() as replaced, running("taking a step", ids, x):
                terms, inner = optimisation_step(
                    self.fabric, self.attacked, self.wrapped, self.optimiser, self.method, batch, threat, noise.fold(1),
                    self.recipe.clip_grad_norm,
                )  # fmt: skip
        except RunError as error:
            raise RunError(f"Step {step + 1}: {error}") from error.__cause__ or error
        if replaced.any and not self.replaced:
            self.replaced = True
            self.warn(_replaced(not_finite_at(self.attacked, batch.x, batch)))
        if self.average is not None:
            self.average.update_parameters(self.classifier)
        loss = sum(float(term) for term in terms.values())
        for name, value in {**terms, **{name: value.mean() for name, value in inner.log.items()}, "loss": loss}.items():
            self.sums[name] = self.sums.get(name, torch.zeros((), dtype=torch.float64)) + float(value)

    def look(self, began: float) -> None:
        """Probe the weights, keep them if they are the best so far, raise the alarm, and write the epoch's metrics."""
        state, epoch = self.state, self.state.step // len(self.batches)
        means = self.means()
        noise = Noise.of(self.recipe.seed, self.probed.ids).fold(-2)
        result = self.first_says(probe(self.subject(), self.probed, self.threat, noise))
        examined = self.examine()
        share = state.step / self.steps
        self.method.after_epoch(EpochEnd(result.clean, result.n, share, averaged=self.average is not None))
        state.probes.append(asdict(result))
        state.training_losses.append(means["loss"])
        feasible = self.method.feasible()
        if state.best_epoch < 0 or _rank(feasible, asdict(result)) > _rank(
            state.best_feasible, state.probes[state.best_epoch - 1]
        ):
            state.best_epoch, state.best_feasible, state.best_examined = epoch, feasible, examined
            self.keep_best()
        if self.recipe.alarm != "off" and share > self.ramp:
            self.raise_alarm()
        patience, since = self.recipe.patience, max(state.best_epoch, int(self.ramp * self.recipe.epochs))
        if patience is not None and state.best_feasible is not False and epoch - since >= patience:
            state.stopped = True
        state.seconds = time.perf_counter() - began
        eps = ramped(self.threat, self.ramp, share).eps
        lr = self.optimiser.param_groups[0]["lr"]
        self.write_metrics(
            {"epoch": epoch, "step": state.step, "seconds": state.seconds, "lr": lr, "eps": eps}
            | means
            | {f"probe/{name}": value for name, value in asdict(result).items()}
            | {f"method/{name}": value for name, value in examined.items()}
        )

    def means(self) -> dict[str, float]:
        """Return the means of this epoch's terms and diagnostics over steps and processes, and begin anew."""
        sums, self.sums = self.sums, {}
        if self.fabric.world_size > 1:
            sums = cast(dict[str, Tensor], self.fabric.all_reduce(sums))
        return {name: float(total) / len(self.batches) for name, total in sums.items()}

    def examine(self) -> dict[str, float]:
        """Return the means of what the method measures of itself, in the precision of the inputs."""
        some = _first(self.probed, EXAMINED)
        noise = Noise.of(self.recipe.seed, some.ids).fold(-4)
        with under_attack(self.subject()), as_reported(some.x.device):
            examined = self.method.examine(self.subject(), some, self.threat, noise)
        return {name: float(value.mean()) for name, value in examined.items()}

    def raise_alarm(self) -> None:
        """Say what the probes show, and do about it what the recipe asks for."""
        alarm = recognise([Probe(**values) for values in self.state.probes], self.state.training_losses)
        if alarm is None:
            return
        self.warn(f"Epoch {len(self.state.probes)}: {alarm.text}")
        if self.recipe.alarm == "stop":
            self.state.stopped = True
        if self.recipe.alarm == "add-steps" and alarm.too_weak and self.state.step < self.steps:
            stronger = self.method.stronger()
            if self.state.strengthened == STRONGER:
                self.warn(f"The method has {2**STRONGER} times its inner steps already: no more are added.")
            elif stronger is None:
                self.warn(f"{type(self.method).__name__} has no inner steps to add.")
            else:
                self.method = stronger
                self.state.strengthened += 1
                self.warn(f"From epoch {len(self.state.probes) + 1} on the method is {stronger}.")

    def subject(self) -> nn.Module:
        """Return the network whose weights count: the running average where there is one."""
        return self.classifier if self.average is None else self.average.module

    def plain(self) -> nn.Module:
        """Return that network without the wrappers around it."""
        return unwrapped(self.subject())

    def keep_best(self) -> None:
        """Keep the present weights as the best ones."""
        if self.folder is None:
            self.best = {name: value.detach().clone() for name, value in self.plain().state_dict().items()}
        elif self.fabric.is_global_zero:
            save_weights(self.plain(), self.folder / runs.BEST, self.about(self.state.best_epoch))

    def about(self, epoch: int) -> dict[str, Any]:
        """Return what a weights file says of itself."""
        return {"config": self.note, "epoch": epoch}

    def warn(self, text: str) -> None:
        """Say it, and keep it for the result."""
        if text not in self.state.warnings:
            self.state.warnings.append(text)
            if self.fabric.is_global_zero:
                log.warning(text)

    def write_metrics(self, values: dict[str, Any]) -> None:
        """Append the epoch to metrics.jsonl and tell the loggers."""
        if self.folder is not None and self.fabric.is_global_zero:
            runs.append_jsonl(self.folder / runs.METRICS, values)
            self.metrics.append(_without_seconds(values))
        self.fabric.log_dict(values, step=values["step"])
        for logger in self.fabric.loggers:
            logger.save()

    def save(self) -> None:
        """Write the checkpoint."""
        if self.folder is None:
            return
        device = self.fabric.device
        own = {
            "memory": checkpoint.memory(self.method),
            "sums": self.sums,
            "random": torch.get_rng_state(),
            "device_random": torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.zeros(1),
        }
        # Each process has its own perturbations and random numbers; all of them belong into the one file.
        gathered = self.fabric.all_gather(own) if self.fabric.world_size > 1 else own
        if self.fabric.is_global_zero:
            content = {
                "model": self.classifier.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                "state": asdict(self.state),
                "own": gathered,
                "metrics": self.metrics,
                "config": self.note,
            }
            checkpoint.save(self.folder / runs.CHECKPOINT, content)
        self.fabric.barrier()

    def restore(self, path: Path) -> None:
        """Go back to a checkpoint.

        Raises:
            RunError: where it is damaged or another run's, or the best weights are.
        """
        assert self.folder is not None
        if path.name == Path(runs.PREVIOUS).name:
            log.warning("%s is not there: resumed from %s.", self.folder / runs.CHECKPOINT, path)
        content = checkpoint.load(path)
        if content.get("config", self.note) != self.note:
            raise NotResumableError(checkpoint.damaged(path, "it is of another run"))
        own = content["own"]
        begun = len(own["random"]) if own["random"].dim() > 1 else 1
        if begun != self.fabric.world_size:
            raise InputError(f"The run was begun with devices={begun}, not {self.fabric.world_size}: resume it so.")
        self.state = _State(**content["state"])
        self.classifier.load_state_dict(content["model"])
        self.optimiser.load_state_dict(content["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(content["average"])
        for _ in range(self.state.strengthened):
            self.method = self.method.stronger() or self.method
        if self.fabric.world_size > 1:
            rank = self.fabric.global_rank
            own = {
                name: {key: values[rank] for key, values in held.items()} if isinstance(held, dict) else held[rank]
                for name, held in own.items()
            }
        self.sums = own["sums"]
        checkpoint.restore_memory(self.method, own["memory"])
        torch.set_rng_state(own["random"].clone())  # of a view it would read the wrong memory, or none
        if self.fabric.device.type == "cuda":
            torch.cuda.set_rng_state(own["device_random"].clone(), self.fabric.device)
        self.check_best()
        lines = runs.read_jsonl(self.folder / runs.METRICS)
        earlier = [_without_seconds(line) for line in lines if line.get("step", 0) <= self.state.step]
        self.metrics = content.get("metrics", earlier)  # a checkpoint of an earlier version holds none
        lines = _restored(self.metrics, lines)
        if self.fabric.is_global_zero:
            runs.write_jsonl(self.folder / runs.METRICS, lines)
            for logger in self.fabric.loggers:  # which are told of everything anew
                shutil.rmtree(self.folder / str(logger.name), ignore_errors=True)
        for line in lines:
            self.fabric.log_dict(line, step=line["step"])
        log.info("Resumed at step %d of %d.", self.state.step, self.steps)

    def check_best(self) -> None:
        """Check that the best weights are there, as they were written; write them anew where the checkpoint has them.

        Raises:
            RunError: where they are lost.
        """
        assert self.folder is not None
        state, path = self.state, self.folder / runs.BEST
        if state.best_epoch < 0:
            return
        try:
            about = read_tensors(path)[1] or {}
            if about.get("config") != self.note or about.get("epoch", 0) < state.best_epoch:
                raise DamagedError("it is of another run or epoch")
        except DamagedError as error:
            if state.best_epoch * len(self.batches) != state.step:
                raise NotResumableError(
                    f"{path} is damaged or missing ({error}), and with it the weights of the best epoch, "
                    f"{state.best_epoch}: put back a copy, or start the run again in another folder."
                ) from error
            log.warning("%s was damaged or missing (%s): it is written anew from the checkpoint.", path, error)
            self.keep_best()

    def kept(self) -> str:
        """Say which weights are kept, and what the method measured of them: its conclusion is of the last epoch."""
        state, epochs, told = self.state, len(self.state.probes), ""
        if state.best_epoch != epochs:
            was = {None: "", True: ", which met the limit", False: ", which did not meet the limit"}
            told += f" This is of the last epoch, {epochs}; the weights kept are those of epoch {state.best_epoch}"
            told += f"{was[state.best_feasible]}."
        if state.best_examined:
            measured = ", ".join(f"{name} {value:.4g}" for name, value in state.best_examined.items())
            where = f"{min(EXAMINED, len(self.probed.x))} {'held-out' if self.held_out else 'training'} examples"
            told += f" The weights kept have, on {where}: {measured}."
        return told

    def finish(self) -> Trained:
        """Write the last weights and the result, and return the model with the best ones."""
        state, best = self.state, self.state.probes[self.state.best_epoch - 1]
        if self.folder is not None and self.fabric.is_global_zero:
            save_weights(self.plain(), self.folder / runs.MODEL, self.about(len(state.probes)))
            checkpoint.forget_previous(self.folder)
        self.fabric.barrier()
        self.classifier.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        if self.folder is None:
            unwrapped(self.model).load_state_dict(self.best)
        else:
            load_weights(self.model, self.folder / runs.BEST)
        self.model.eval()
        conclusions = tuple(text + self.kept() for text in self.method.conclude())
        for text in conclusions:
            if self.fabric.is_global_zero:
                log.info(text)
        clean, robust = (wilson(round(best[name] * best["n"]), best["n"]) for name in ("clean", "many_steps"))
        chance = at_chance(clean, robust, self.classes)
        if chance is not None:
            self.warn(chance)
            with own_randomness(self.recipe.seed, self.fabric.device):
                layer = missing_layer(self.classifier, self.probed.x, self.probed.y)
            if layer is not None:
                self.warn(layer)
        trained = Trained(
            model=self.model,
            clean_accuracy=clean,
            robust_accuracy=robust,
            best_epoch=state.best_epoch,
            epochs=len(state.probes),
            seconds=state.seconds,
            warnings=tuple(state.warnings),
            folder=self.folder,
            conclusions=conclusions,
            feasible=state.best_feasible,
            method=self.method,
            held_out=self.held_out,
        )
        if self.folder is not None and self.fabric.is_global_zero:
            runs.write_json(self.folder / runs.RESULT, trained.json())
        return trained


def at_chance(clean: Interval, robust: Interval, classes: int) -> str | None:
    """Return a warning where a run ends at chance: its accuracies are not told from those of a constant answer.

    Clean accuracy is at chance where its interval does not lie above it, robust accuracy where its interval holds it
    (below it, points were searched and found: that is no chance). Under 20 examples nothing is said.
    """
    chance = 1 / classes
    low = {"clean": clean.low <= chance, "robust": robust.low <= chance <= robust.high}
    names = [name for name, is_low in low.items() if is_low]
    if clean.n < 20 or not names:
        return None
    return (
        f"The {' and the '.join(names)} accuracy on the probe's {clean.n} examples cannot be told from chance "
        f"({chance:.0%}): the network may answer alike everywhere. Train longer, let eps grow (ramp), or lower lr."
    )


def _without_seconds(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "seconds"}


def _restored(metrics: Sequence[Mapping[str, Any]], lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl as they were written: those of the file, but for the damaged and later ones."""
    read = {line.get("step"): line for line in lines if not isinstance(line.get("step"), (list, dict))}
    restored = []
    for kept in metrics:
        line = read.get(kept["step"], {})
        restored.append(dict(line if _without_seconds(line) == kept else kept))
    return restored


def _rank(feasible: bool | None, probed: Mapping[str, float]) -> tuple[bool, float, float]:
    """Return what `best` is chosen by: a limit met, then accuracy under ten steps, then clean accuracy."""
    return feasible is not False, probed["many_steps"], probed["clean"]


def _first(batch: Batch, n: int) -> Batch:
    return Batch(batch.x[:n], batch.y[:n], batch.ids[:n])


def _replaced(place: str | None) -> str:
    where = f" It stops being finite in {place}." if place else ""
    return (
        f"The gradient at the inputs is not finite somewhere (a root, a logarithm or a norm at 0, say).{where} The "
        f"inner maximisation went on with {REPLACED}. A small number added there makes the slope finite."
    )


def _loggers(names: Sequence[str], folder: Path | None) -> list[Logger]:
    if names and folder is None:
        raise InputError("Loggers write into the run folder: give one (--out).")
    unknown = set(names) - {"csv", "tensorboard"}
    if unknown:
        raise InputError(f"There is no logger {sorted(unknown)[0]!r}; there are csv and tensorboard.")
    made: list[Logger] = []
    if "csv" in names:
        made.append(CSVLogger(str(folder), name="csv", version=""))
    if "tensorboard" in names:
        made.append(TensorBoardLogger(str(folder), name="tensorboard", version=""))
    return made
