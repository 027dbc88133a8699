"""The checks and automatic choices before a run."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from unperturbed.architectures.libraries.base import LibraryModel
from unperturbed.data.augment import augmentation
from unperturbed.data.check import check
from unperturbed.data.convert import as_split
from unperturbed.data.split import Data, Split, hold_out
from unperturbed.errors import InputError
from unperturbed.evaluation.outputs import check_outputs, misfit, not_finite
from unperturbed.evaluation.reach import reach_warnings
from unperturbed.networks.classifier import Classes, as_classifier, untouched
from unperturbed.networks.device import pins
from unperturbed.networks.dtype import home
from unperturbed.networks.guard import trying
from unperturbed.networks.logits import Output, notes_on, unwrapped
from unperturbed.networks.precision import Precision
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training.batches import Batches
from unperturbed.training.recipe import Recipe
from unperturbed.types import Rows


@dataclass(frozen=True, eq=False)
class Examples:
    """The training data, checked and divided."""

    batches: Batches
    held_out: Rows
    """Ids of held-out examples of the training split."""
    classes: int
    warnings: list[str]

    @property
    def probed(self) -> Rows:
        """Ids of the probe and of the choice of `best`: the held-out examples or, without any, all."""
        return self.held_out if len(self.held_out) else self.batches.ids


def classify(model: nn.Module, data: Data, output: Output = None) -> nn.Module:
    """Return the model after trials in eval and train mode, wrapped if it does not return logits."""
    network = unwrapped(model)
    if isinstance(network, LibraryModel) and network.evaluation_only:
        raise InputError(f"{network.spec} is a program from a file, which can be evaluated but not trained.")
    x = data.train.inputs(torch.arange(min(len(data.train), 2)))
    return as_classifier(model, x.to(*home(model)), output, classes_of(data), (False, True))


def strategy_for(classifier: nn.Module, data: Data) -> Literal["ddp", "ddp_find_unused_parameters_true"]:
    """Return the strategy for sharing gradients, with a search for unused weights if there are any.

    Four forwards in train mode detect them, since stochastic depth skips random layers.
    """
    device, dtype = home(classifier)
    x = data.train.inputs(torch.arange(2) % len(data.train)).to(device, dtype)
    weights = [weight for weight in classifier.parameters() if weight.requires_grad]
    with untouched(classifier, device, training=True), torch.enable_grad():
        for _ in range(4):
            gradients = torch.autograd.grad(classifier(x).square().sum(), weights, allow_unused=True)
            if any(gradient is None for gradient in gradients):
                return "ddp_find_unused_parameters_true"
    return "ddp"


def classes_of(data: Data) -> Classes:
    """Return the number of classes of the data, by names and labels."""
    return Classes(len(data.classes), len(data.train))


def prepare(classifier: nn.Module, data: Data, extra: Any, threat: Threat, recipe: Recipe, fabric: Fabric) -> Examples:
    """Check all training data against model and threat, hold some out, and divide the rest into batches."""
    train = data.train
    first = torch.arange(min(len(train), 64))
    examples = train.inputs(first).to(*home(classifier))
    with trying("taking logits of the first examples", first, examples):
        classes, warnings = check_outputs(classifier, examples)
    warnings = [*notes_on(classifier), *misfit(classes, classes_of(data)), *warnings]
    if len(data.classes) > classes:
        raise InputError(f"The data has {len(data.classes)} classes, but the model returns {classes} logits.")
    check(train, threat.bounds, classes)
    warnings += [*train.notes, *reach_warnings(threat, train), *_missing(train, data.classes)]
    if (wrong := not_finite(classifier)) is not None:
        raise InputError(f"{wrong}, before the first step: give other weights.")
    augmentation(recipe.augment)(examples, Noise.of(0, torch.arange(len(examples), device=examples.device)))
    if isinstance(extra, Data):
        _check_same_classes(data.classes, extra.classes)
        check_same_features(data.features, extra.features, "in the extra data")
    extra_split = None if extra is None else extra.train if isinstance(extra, Data) else as_split(extra)
    if extra_split is not None:
        if extra_split.shape != train.shape:
            raise InputError(f"Extra examples have shape {extra_split.shape}, but training examples {train.shape}.")
        check(extra_split, threat.bounds, classes)
    ids, held_out = hold_out(train.labels, recipe.validation)
    if len(ids) == 0:
        raise InputError(f"With validation {recipe.validation}, all {len(train)} examples are held out: lower it.")
    if len(held_out) == 0:
        warnings.append("No example is held out: best weights and alarm rest on training examples.")
    size = recipe.batch_size or usual_batch_size(len(ids))
    extra_size = 0 if extra_split is None else min(round(size * recipe.extra_ratio), size - 1)
    if size - extra_size > len(ids):
        warnings.append(f"The batch size {size} is larger than the data ({len(ids)}); it was lowered.")
        size = len(ids) + extra_size
    if size < fabric.world_size:
        raise InputError(f"A batch of {size} cannot be shared by {fabric.world_size} processes.")
    size -= size % fabric.world_size
    extra_size = min(extra_size, size - 1)
    share = (fabric.global_rank, fabric.world_size)
    batches = Batches(train, ids, extra_split, size, extra_size, recipe.seed, *share, pinned=pins(fabric.device))
    return Examples(batches, held_out, classes, warnings)


def usual_batch_size(examples: int) -> int:
    """Return the examples per step of a recipe without a batch size."""
    return 128 if examples >= 10_000 else 32


def _check_same_classes(classes: Sequence[str], extra: Sequence[str]) -> None:
    """Raise InputError if labels of the extra examples mean other classes than in the training data.

    Labels are numbers: with names in another order, or with a missing name, they would be wrong. Classes that are only
    numbered from 0 have no names.
    """
    numbered = [list(map(str, range(len(names)))) == list(names) for names in (classes, extra)]
    numerals = [all(name.isdecimal() for name in names) for names in (classes, extra)]
    same_order = list(extra) == list(classes)[: len(extra)]
    if same_order or all(numbered) or (any(numbered) and not all(numerals)):
        return
    raise InputError(
        f"The classes of the extra data are {', '.join(extra[:10])}, but those of the training data are "
        f"{', '.join(classes[:10])}: labels would have different meanings. Use the same classes in the same order, or "
        "give the extra data as an .npz file with class numbers."
    )


def check_same_features(trained: Sequence[str] | None, other: Sequence[str] | None, where: str) -> None:
    """Raise InputError if tables have different columns, or a different order of columns."""
    if trained is None or other is None or tuple(trained) == tuple(other):
        return
    raise InputError(
        f"The features are {', '.join(trained[:10])} in training, and {', '.join(other[:10])} {where}: give the same "
        "columns in the same order."
    )


def _missing(split: Split, classes: Sequence[str]) -> list[str]:
    """Return a warning if classes have no example, which happens with labels that count from 1."""
    if len(classes) == 1:
        return [f"All training examples are of the one class {classes[0]}: there is nothing to tell apart."]
    without = sorted(set(range(len(classes))) - set(split.labels.tolist()))
    if not without:
        return []
    names = ", ".join(classes[label] for label in without[:5]) + ", ..." * (len(without) > 5)
    hint = " If the labels count from 1, take 1 off." if without[0] == 0 else ""
    return [f"{len(without)} of {len(classes)} classes have no training example ({names}).{hint}"]


def make_optimiser(model: nn.Module, recipe: Recipe) -> Optimizer:
    """Return the recipe's optimiser; weight decay applies to parameters of two dimensions and more."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [w for w in weights if w.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [w for w in weights if w.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise InputError("The model has no weights that require a gradient: there is nothing to train.")
    kind, lr = optimiser_kind(recipe, model), peak_learning_rate(recipe, model)
    if kind == "sgd":
        return SGD(groups, lr=lr, momentum=0.9, nesterov=True)
    return (Adam if kind == "adam" else AdamW)(groups, lr=lr)


def optimiser_kind(recipe: Recipe, model: nn.Module) -> str:
    """Return the recipe's optimiser, or the default for the network."""
    if recipe.optimiser != "auto":
        return recipe.optimiser
    batch_norm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    return "sgd" if batch_norm else "adam"


def peak_learning_rate(recipe: Recipe, model: nn.Module) -> float:
    """Return the recipe's peak learning rate, or the optimiser's usual one."""
    return recipe.lr if recipe.lr is not None else 0.1 if optimiser_kind(recipe, model) == "sgd" else 0.003


def chosen(
    recipe: Recipe, precision: Precision, examples: Examples, model: nn.Module, tuning: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the automatic choices, for config.yaml; `tuning` are the times behind them, if any."""
    return {
        "precision": precision.name,
        "channels_last": precision.memory_format == torch.channels_last,
        "compiled": precision.compiled,
        "tuning": tuning,
        "batch_size": examples.batches.batch_size,
        "optimiser": optimiser_kind(recipe, model),
        "lr": peak_learning_rate(recipe, model),
        "training_examples": len(examples.batches.ids),
        "held_out_examples": len(examples.held_out),
        "data": fingerprint(examples.batches.split),
        "extra": None if examples.batches.extra is None else fingerprint(examples.batches.extra),
    }


def fingerprint(split: Split) -> str:
    """Return a hash of the labels and of 64 inputs spread over the split, since reading all may take minutes."""
    n = min(64, len(split))
    digest = hashlib.sha256(split.labels.numpy().tobytes())
    digest.update(split.inputs(torch.arange(n) * len(split) // n).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
