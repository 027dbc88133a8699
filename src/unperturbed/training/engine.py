"""The engine of a run: the network on its device and in its precision, its optimiser, and the step."""

from copy import deepcopy
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from unperturbed.data.augment import augmentation
from unperturbed.errors import InputError, RunError
from unperturbed.maximise.climb_queue import at_least_two
from unperturbed.maximise.slopes import REPLACED, noticing
from unperturbed.methods.base import Method
from unperturbed.networks.device import pins
from unperturbed.networks.dtype import cast as cast_network
from unperturbed.networks.guard import running, trying
from unperturbed.networks.logits import unwrapped
from unperturbed.networks.modes import buffers_restored, eager, under_attack
from unperturbed.networks.precision import InPrecision, Precision, plainly
from unperturbed.networks.second import is_missing, lacking
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training import checkpoint
from unperturbed.training.prepare import Examples, peak_learning_rate
from unperturbed.training.processes import block_paths, is_sharded, set_up
from unperturbed.training.recipe import Recipe
from unperturbed.training.recompute import recomputed
from unperturbed.training.same_gradient import check_accumulation, check_recomputation, check_sharding, on_cpu
from unperturbed.training.schedule import learning_rate, ramped
from unperturbed.training.shards import in_one_piece
from unperturbed.training.step import accumulate, not_finite_at, optimisation_step
from unperturbed.types import Batch, Inputs, Labels

T = TypeVar("T")
CHECKED = 8
"""Number of the probe's examples for the check of a method before the first step."""


class Engine:
    """The network, its optimiser and its method, which `step` changes.

    Attributes:
        model: the caller's network.
        whole: the same, returning logits.
        classifier: that network or, if the processes share the weights, a copy of it in shards.
        attacked: the same, in the precision of training; its gradients are not averaged over processes.
        wrapped: the same in Fabric's wrapper, whose backward averages gradients over the processes.
        average: the running average of the weights, if the recipe has one.
    """

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
    ) -> None:
        self.fabric, self.model, self.whole, self.threat = fabric, model, classifier, threat
        self.classifier = deepcopy(classifier) if is_sharded(fabric) else classifier
        self.method, self.recipe, self.precision = method, recipe, precision
        self.batches, self.classes = examples.batches, examples.classes
        self.steps = recipe.epochs * len(self.batches)
        self.ramp = method.ramp if recipe.ramp is None else recipe.ramp
        self.augment = augmentation(recipe.augment)
        self.peak = peak_learning_rate(recipe, classifier)
        self.replaced = False
        """Whether a warning of a gradient of the inner maximisation that is not finite was issued."""

        if is_sharded(fabric):
            cast_network(self.whole, precision.dtype)
        cast_network(self.classifier, precision.dtype, fabric.device)
        self.classifier.to(memory_format=precision.memory_format)  # type: ignore[call-overload]
        checkpoint.move_memory(method, fabric.device)
        first = self.inputs(self.batches.split.inputs(torch.arange(3) % len(self.batches.split)))
        self.recomputed = block_paths(self.classifier, first) if recipe.checkpoint_activations else ()
        self.attacked = self.running(precision)
        self.wrapped, self.optimiser = set_up(fabric, self.attacked, recipe)
        average = get_ema_multi_avg_fn(recipe.averaging) if recipe.averaging else None  # type: ignore[no-untyped-call]
        self.average = AveragedModel(classifier, multi_avg_fn=average, use_buffers=True) if average else None

    @property
    def is_first(self) -> bool:
        """Whether this is the first or only process."""
        return bool(self.fabric.is_global_zero)

    @property
    def weighed(self) -> nn.Module:
        """The network whose weights count: the running average if it exists."""
        return self.classifier if self.average is None else self.average.module

    @property
    def bare(self) -> nn.Module:
        """That network without wrappers; of shards, the whole network as of the last `gather`."""
        return unwrapped(self.whole if is_sharded(self.fabric) else self.weighed)

    def gather(self) -> None:
        """Copy weights in shards into the whole network; all processes call it together."""
        if is_sharded(self.fabric):
            self.whole.load_state_dict(
                {name: in_one_piece(part) for name, part in self.classifier.state_dict().items()}
            )

    def running(self, precision: Precision) -> InPrecision:
        """Return the network as this precision runs it; compiled for whole batches only."""
        size = self.batches.batch_size // self.batches.world
        return InPrecision(self.classifier, precision.autocast, compile=precision.compiled, compiled_size=size)

    def agreed(self, value: T) -> T:
        """Return the first process's value, since clocks and running averages differ between processes."""
        return value if self.fabric.world_size == 1 else self.fabric.broadcast(value)

    def inputs(self, x: Inputs) -> Inputs:
        """Return inputs on the network's device and in its format, clamped against rounding."""
        x = x.to(self.fabric.device, self.precision.dtype, non_blocking=pins(self.fabric.device))
        if x.dim() == 4:
            x = x.contiguous(memory_format=self.precision.memory_format)
        low, high = self.threat.limits(x)
        return x.clamp(low, high)

    def batch(self, ids: Labels, x: Inputs, y: Labels, noise: Noise) -> Batch:
        """Return a training batch, augmented, with smoothed targets if the recipe has smoothing."""
        y = y.to(self.fabric.device, non_blocking=pins(self.fabric.device))
        x = self.augment(self.inputs(x), noise)
        smoothing = self.recipe.label_smoothing
        if smoothing == 0:
            return Batch(x, y, ids)
        one_hot = nn.functional.one_hot(y, self.classes).to(x.dtype)
        return Batch(x, y, ids, one_hot * (1 - smoothing) + smoothing / self.classes)

    def preflight(self, probed: Batch) -> list[str]:
        """Try a step on two examples, run the method's check of the network, and return its warnings.

        Network, method and random state are restored. Raises `InputError` for failures of the first step.
        """
        rows = at_least_two(torch.arange(min(CHECKED, len(probed.x)), device=self.fabric.device))  # for batch norm
        sample = Batch(probed.x[rows], probed.y[rows], probed.ids[rows])
        pair = Batch(sample.x[:2], sample.y[:2], sample.ids[:2])
        noise = Noise.of(self.recipe.seed, sample.ids).fold(-3)
        noise_of_pair = noise.rows(torch.arange(2, device=self.fabric.device))
        device = [self.fabric.device] if self.fabric.device.type == "cuda" else []
        self.wrapped.train()
        with buffers_restored(self.attacked), torch.random.fork_rng(device), eager():
            if is_sharded(self.fabric):
                self.try_shards(pair, noise_of_pair)
                sample, noise = on_cpu(sample), Noise(noise.keys.cpu())
            else:
                self.try_step(pair, noise_of_pair)
        with torch.random.fork_rng(device):
            if self.recipe.accumulate > 1:
                check_accumulation(self.whole, self.method, sample, self.threat, noise)
            if self.recomputed:
                check_recomputation(self.whole, self.recomputed, self.method, sample, self.threat, noise)
        network = self.attacked if self.whole is self.classifier else InPrecision(self.whole)
        with buffers_restored(network), torch.random.fork_rng(device):
            return [*self.method.check(network, sample, self.threat, noise), *self.notes_on_parts()]

    def notes_on_parts(self) -> list[str]:
        """Return a warning if parts of a batch have separate statistics of batch norm."""
        in_training = any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in self.wrapped.modules())
        if self.recipe.accumulate == 1 or not in_training:
            return []
        size = len(self.batches.at(0)) // self.recipe.accumulate
        return [f"Batch norm uses the statistics of parts of {size} examples, since --accumulate divides the batch."]

    def try_shards(self, two: Batch, noise: Noise) -> None:
        """Compare the gradient of a step on two examples with that of the whole network; raises InputError."""
        if any(checkpoint.holds(self.method, network) for network in (self.model, self.whole)):
            raise InputError("The method holds the network, of which --strategy fsdp trains a copy in shards: use ddp.")

        def gradient() -> list[Tensor]:
            method = deepcopy(self.method)
            with plainly():
                accumulate(self.attacked, self.wrapped, method, two, self.threat, noise, 1, self.fabric.backward)
            weights = [weight for weight in self.classifier.parameters() if weight.requires_grad]
            gradient = [in_one_piece(torch.zeros_like(w) if w.grad is None else w.grad) for w in weights]
            self.optimiser.zero_grad(set_to_none=True)
            return gradient

        with trying(f"trying a step of {getattr(self.method, 'name', type(self.method).__name__)}", two.ids, two.x):
            network = InPrecision(self.whole)
            network.train()
            check_sharding(network, gradient, self.method, two, self.threat, noise)

    def try_step(self, two: Batch, noise: Noise) -> None:
        """Compute the gradient of a step on two examples, on a copy of a method with memory, without an update."""
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

    def step(self, number: int, ids: Labels, x: Inputs, y: Labels) -> tuple[dict[str, float], str | None]:
        """Take an optimisation step; return its terms and diagnostics, and a warning if there is one."""
        share = number / self.steps
        for group in self.optimiser.param_groups:
            group["lr"] = self.peak * learning_rate(self.recipe, share)
        noise = Noise.of(self.recipe.seed, ids).fold(number)
        augmenting = Noise.of(self.recipe.seed, ids).fold(number // self.method.repeats)  # a replay uses the same batch
        batch = self.batch(ids, x, y, augmenting.fold(0))
        threat = ramped(self.threat, self.ramp, share)
        try:
            recomputing = recomputed([self.classifier.get_submodule(path) for path in self.recomputed])
            with noticing() as replaced, running("taking a step", ids, x), recomputing:
                terms, inner = optimisation_step(
                    self.fabric, self.attacked, self.wrapped, self.optimiser, self.method, batch, threat, noise.fold(1),
                    self.recipe.clip_grad_norm, self.recipe.accumulate,
                )  # fmt: skip
        except RunError as error:
            raise RunError(f"Step {number + 1}: {error}") from error.__cause__ or error
        warning = None
        if replaced.any and not self.replaced:
            self.replaced = True
            warning = _replaced(not_finite_at(self.attacked, batch.x, batch))
        if self.average is not None:
            self.average.update_parameters(self.classifier)
        loss = sum(float(term) for term in terms.values())
        values: dict[str, Any] = {**terms, **{name: value.mean() for name, value in inner.log.items()}, "loss": loss}
        return {name: float(value) for name, value in values.items()}, warning

    def random_state(self) -> dict[str, Tensor]:
        """Return the state of torch's generators, for a checkpoint."""
        device = self.fabric.device
        of_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.zeros(1)
        return {"random": torch.get_rng_state(), "device_random": of_device}

    def restore_random_state(self, state: dict[str, Any]) -> None:
        """Restore the generators from a state of `random_state`."""
        torch.set_rng_state(state["random"].clone())  # for a view it would read the wrong memory
        if self.fabric.device.type == "cuda":
            torch.cuda.set_rng_state(state["device_random"].clone(), self.fabric.device)


def _replaced(place: str | None) -> str:
    where = f" It stops being finite in {place}." if place else ""
    return (
        f"The gradient at the inputs is not finite somewhere (a root, a logarithm or a norm at 0, say).{where} The "
        f"inner maximisation used {REPLACED}. A small number added there makes the slope finite."
    )
