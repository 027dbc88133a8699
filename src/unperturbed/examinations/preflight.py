"""A preflight of model, data and threat, in seconds, for faults that make training or evaluation misleading."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unperturbed.attacks.gradient import Gate
from unperturbed.checks import COUNT, checked
from unperturbed.data.convert import as_split
from unperturbed.data.split import Data, Split
from unperturbed.errors import InputError
from unperturbed.evaluation.chance import expected_layer
from unperturbed.evaluation.outputs import not_finite, spoiled_columns
from unperturbed.examinations.behaviour import Behaviour, behaviour_of
from unperturbed.examinations.data_faults import SAMPLE, Symptom, input_faults, label_faults
from unperturbed.examinations.remedies.candidates import looks_like_probabilities
from unperturbed.findings import Shown
from unperturbed.networks.classifier import as_classifier
from unperturbed.networks.dtype import home
from unperturbed.networks.logits import Output
from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.networks.unsettled import unsettled_statistics
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Labels, Logits

TWINS = 2000
"""Number of examples of each split in the search for duplicates."""
PASSES = {"pgd": 1000, "fast": 600, "standard": 8000}
"""Approximate number of passes of a suite for an unbroken example; a pass is a forward and a backward. `fast` is here
without its check of a sample."""
AT_PASSES = 12
"""Number of passes of adversarial training with 10 steps per example and epoch."""


_HOPELESS = ("inputs not finite", "weights' type", "mixed weights")
"""Symptoms that make the network's outputs meaningless."""


@dataclass(frozen=True, repr=False)
class Checkup(Shown):
    """The result of a preflight.

    Attributes:
        symptoms: the faults; empty if none was found.
        facts: the measurements: inputs, logits, clean accuracy, memory, estimated times.
        seconds: in all.
    """

    symptoms: tuple[Symptom, ...]
    facts: Mapping[str, Any]
    seconds: float

    def json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the faults, one a line."""
        return "\n".join(f"{symptom.name}: {symptom.text}" for symptom in self.symptoms) or "nothing wrong was found"


@dataclass(frozen=True, eq=False)
class _Patient:
    """The network on a few examples."""

    model: nn.Module
    classifier: nn.Module
    x: Inputs
    y: Labels
    logits: Logits
    classes: int
    behaviour: Behaviour
    seed: int


@checked(examples=COUNT)
def doctor(
    model: nn.Module, data: Any, threat: Threat, *, output: Output = None, seed: int = 0, examples: int = SAMPLE
) -> Checkup:
    """Return the faults of a set-up before training or an evaluation.

    Args:
        model: returns logits.
        data: a `Data`, a split, a pair of arrays (inputs, labels), or a dataset; duplicates need a `Data`.
        threat: the threat set.
        output: the part of the model's output with the logits.
        seed: of random numbers.
        examples: number of examples.

    Raises:
        InputError: if the data cannot be read.
    """
    began = time.monotonic()
    threat.refuse_sparse("The check before a run")
    split = as_split((data.test or data.train) if isinstance(data, Data) else data)
    rows = torch.arange(min(examples, len(split))) * len(split) // min(examples, len(split))
    x, y = split.inputs(rows), split.labels[rows]
    symptoms = [*input_faults(x, threat, split), *label_faults(split.labels), *_twins(data), *_of_weights(model)]
    facts: dict[str, Any] = {"examples": len(split), "inputs": _range(x), "modes": _modes(model)}
    if not any(symptom.name in _HOPELESS for symptom in symptoms):
        patient, trouble = _patient(model, x, y, output, seed)
        symptoms += trouble
        if patient is not None:
            symptoms += [fault for examine in _EXAMINATIONS if (fault := examine(patient)) is not None]
            facts |= _costs(patient, data, split)
    return Checkup(tuple(symptoms), facts, time.monotonic() - began)


def _patient(
    model: nn.Module, x: Inputs, y: Labels, output: Output, seed: int
) -> tuple[_Patient | None, list[Symptom]]:
    device, dtype = home(model)
    x, y = x.to(device, dtype), y.to(device)
    try:
        classifier = as_classifier(model, x[:1], output)
        with under_attack(classifier), torch.no_grad(), own_randomness(seed, device):
            logits: Logits = classifier(x)
        behaviour = behaviour_of(classifier, x[:32], seed, 32)
    except InputError as error:
        return None, [Symptom("the model does not run", str(error))]
    except Exception as error:  # any error of the network
        text = f"The model fails on {tuple(x.shape)} inputs ({type(error).__name__}: {error})"[:400]
        return None, [Symptom("the model does not run", f"{text}: try model(x) on one batch.")]
    return _Patient(model, classifier, x, y, logits, logits.shape[1], behaviour, seed), []


def _twins(data: Any) -> list[Symptom]:
    """Return a symptom if test examples are among the training examples."""
    if not isinstance(data, Data) or data.test is None or data.test is data.train:
        return []
    training = {
        part.numpy().tobytes()
        for rows in torch.split(torch.arange(len(data.train)), 1000)
        for part in (255 * data.train.inputs(rows)).round().to(torch.int16)
    }
    rows = torch.arange(min(TWINS, len(data.test)))
    twins = sum(part.numpy().tobytes() in training for part in (255 * data.test.inputs(rows)).round().to(torch.int16))
    if twins <= 0.005 * len(rows):
        return []
    return [
        Symptom("duplicates", f"{twins} of {len(rows)} test examples are also training examples: remove them from one.")
    ]


def _of_weights(model: nn.Module) -> list[Symptom]:
    flaws, kinds = [], {weight.dtype for weight in model.parameters() if weight.is_floating_point()}
    if len(kinds) > 1:
        flaws.append(Symptom("mixed weights", f"Weights are {', '.join(sorted(map(str, kinds)))}: call model.float()."))
    elif kinds and kinds <= {torch.float16, torch.bfloat16}:
        flaws.append(
            Symptom("weights' type", f"Weights are {next(iter(kinds))}: call model.float(), results need 32 bits.")
        )
    if (wrong := not_finite(model)) is not None:
        flaws.append(Symptom("weights not finite", f"{wrong}: load other weights."))
    modes = {module.training for module in model.modules() if not list(module.children())}
    layers = [
        m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd)
    ]
    if layers and any(layer.training for layer in layers) and modes:
        text = f"The model is in train mode, and {len(layers)} of its layers give other outputs there"
        flaws.append(Symptom("train mode", f"{text}: call model.eval() before you evaluate it yourself."))
    return flaws


def _not_logits(patient: _Patient) -> Symptom | None:
    if not looks_like_probabilities(patient.logits):
        return None
    return Symptom("probabilities", "The outputs look like probabilities: return logits, without softmax or sigmoid.")


def _outputs_not_finite(patient: _Patient) -> Symptom | None:
    count = int((~patient.logits.isfinite().all(1)).sum())
    if count == 0 or not_finite(patient.model) is not None:
        return None
    columns = spoiled_columns(patient.logits)
    text = f"Logits of {count} of {len(patient.logits)} examples are NaN or infinite{f' {columns}' if columns else ''}."
    return Symptom("logits not finite", text)


def _one_logit(patient: _Patient) -> Symptom | None:
    kinds = int(patient.y.max()) + 1
    if patient.classes == 2 and kinds > 2:
        return Symptom("class count", f"The model distinguishes 2 classes, but labels go up to {kinds - 1}.")
    if kinds > patient.classes:
        return Symptom("class count", f"The model has {patient.classes} logits, but labels go up to {kinds - 1}.")
    if patient.classes > 2 * kinds and len(patient.y) > 50:
        return Symptom("class count", f"The model has {patient.classes} logits, but labels only go up to {kinds - 1}.")
    return None


def _random(patient: _Patient) -> Symptom | None:
    if not patient.behaviour.is_random:
        return None
    return Symptom("random answers", "Two forwards of the same inputs differ in eval mode: use --suite rand.")


def _stateful(patient: _Patient) -> Symptom | None:
    if not patient.behaviour.stateful:
        return None
    return Symptom("state", "A forward changes the outputs of later ones: let forward() change nothing in eval mode.")


def _coupled(patient: _Patient) -> Symptom | None:
    if not patient.behaviour.coupled:
        return None
    text = "An example's logits depend on the rest of the batch: give batch norms running statistics, or"
    return Symptom("batch dependence", f"{text} evaluate with --batch-size 1.")


def _constant(patient: _Patient) -> Symptom | None:
    if len(patient.x) < 2 or not bool(patient.logits.isfinite().all()):
        return None
    if float(patient.logits.std(0).max()) > 1e-6 * float(patient.logits.abs().max()):
        return None
    return Symptom("constant answers", "The logits are the same for every input: a dead layer, or inputs not used.")


def _no_gradient(patient: _Patient) -> Symptom | None:
    with under_attack(patient.classifier), torch.enable_grad(), own_randomness(patient.seed, patient.x.device):
        leaf = patient.x[:8].clone().requires_grad_()
        logits = patient.classifier(leaf)
        slope: Tensor | None = None
        if logits.requires_grad:
            weights = torch.arange(1, logits.shape[1] + 1).to(logits).cos()
            (slope,) = torch.autograd.grad((logits * weights).sum(), leaf, allow_unused=True)
    if slope is not None and not bool(slope.isfinite().all()):
        return Symptom("gradient not finite", "The gradient at the inputs is NaN or infinite: see unperturbed audit.")
    if slope is None or bool((slope.flatten(1) == 0).all(1).any()):
        text = "No gradient reaches the inputs (no_grad, detach, rounding), so attacks fail: see unperturbed audit."
        return None if _constant(patient) is not None else Symptom("no gradient", text)
    return None


def _at_chance(patient: _Patient) -> Symptom | None:
    n, kinds = len(patient.y), len(set(patient.y.tolist()))
    right = float((patient.logits.argmax(1) == patient.y).double().mean())
    if n < 20 or kinds < 2 or right > 1.5 / kinds or _constant(patient) is not None:
        return None
    if (unsettled := unsettled_statistics(patient.classifier)) is not None:
        return Symptom("batch norm", unsettled)
    expected = expected_layer(patient.classifier, patient.x, patient.y)
    if expected is not None:
        return Symptom("normalisation", expected)
    shifted = float((patient.logits.argmax(1) + 1 == patient.y).double().mean())
    if shifted > 3 / kinds:
        return Symptom(
            "label base", f"{shifted:.0%} of the labels are the prediction plus 1: subtract 1 from the labels."
        )
    text = f"Clean accuracy is {right:.0%} of {n}, chance is {1 / kinds:.0%}"
    return Symptom("chance", f"{text}: are these weights trained, on these classes in this order?")


_EXAMINATIONS: Sequence[Callable[[_Patient], Symptom | None]] = (
    _not_logits,
    _outputs_not_finite,
    _one_logit,
    _random,
    _stateful,
    _coupled,
    _constant,
    _no_gradient,
    _at_chance,
)


def _range(x: Inputs) -> dict[str, Any]:
    return {
        "shape": list(x.shape[1:]),
        "low": float(x.min()),
        "high": float(x.max()),
        "mean": float(x.mean()),
        "std": float(x.std()),
    }


def _modes(model: nn.Module) -> str:
    modes = {module.training for module in model.modules()}
    return "train and eval" if len(modes) > 1 else "train" if True in modes else "eval"


def _costs(patient: _Patient, data: Any, split: Split) -> dict[str, Any]:
    """Return clean accuracy, and estimates of the seconds of training and suites on this machine."""
    times = []
    with under_attack(patient.classifier), torch.enable_grad():
        for _ in range(3):
            began = time.perf_counter()
            leaf = patient.x.clone().requires_grad_()
            logits = patient.classifier(leaf)
            if logits.requires_grad:
                torch.autograd.grad(logits.sum(), leaf, allow_unused=True)
            times.append(time.perf_counter() - began)
    seconds_per_pass = sorted(times)[1] / len(patient.x)
    training = len(data.train) if isinstance(data, Data) else len(split)
    sample = min(max(Gate.least, round(Gate.share * len(split))), len(split))
    passes = {name: of_one * len(split) for name, of_one in PASSES.items()}
    passes["fast"] += PASSES["standard"] * sample
    seconds = {f"evaluate --suite {name}": of_all * seconds_per_pass for name, of_all in passes.items()}
    return {
        "clean_accuracy": float((patient.logits.argmax(1) == patient.y).double().mean()),
        "weights_bytes": sum(weight.numel() * weight.element_size() for weight in patient.model.parameters()),
        "seconds": {"train, an epoch of at": AT_PASSES * seconds_per_pass * training, **seconds},
    }
