"""What every measurement of a model begins with: looks at model and data that refuse what would mislead."""

import hashlib
import platform
import re
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unperturbed.attacks.base import padded_logits
from unperturbed.data.check import check
from unperturbed.data.convert import as_split
from unperturbed.data.split import Data, Split
from unperturbed.errors import InputError
from unperturbed.networks.classifier import Classes, as_classifier
from unperturbed.networks.dtype import home as home_of
from unperturbed.networks.failures import failed_on_all, isolate
from unperturbed.networks.guard import trying
from unperturbed.networks.logits import Output, notes_on
from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs

_READ = 1024


@dataclass(frozen=True, eq=False)
class Subject:
    """A model that was found fit to be measured on a split."""

    classifier: nn.Module
    """The model, returning logits alone."""
    device: torch.device
    dtype: torch.dtype
    """Of the weights, in which results are computed."""
    some: Inputs
    """The first examples."""
    classes: int
    network: str
    """A hash of the network's description and of its answers to the first examples: weights alone do not tell it."""
    warnings: list[str]

    def batch(self, split: Split, rows: Tensor, threat: Threat) -> Batch:
        """Return examples where the model is and in its precision, inside the box: `check` lets a rounding pass."""
        x, y, ids = split.inputs(rows), split.labels[rows], split.names()[rows]
        return Batch(threat.boxed(x.to(self.device, self.dtype)), y.to(self.device), ids.to(self.device))


def look_at(model: nn.Module, split: Split, threat: Threat, seed: int, output: Output = None) -> Subject:
    """Return the model as a subject of measurements; `output` says which part of what it returns are the logits.

    Raises:
        InputError: on weights that are neither float32 nor float64, outputs that are no logits, of another type than
            the weights or without a gradient, labels that do not fit them, and data outside the bounds or with NaN.
    """
    if torch.is_inference_mode_enabled():
        raise InputError("This was called under torch.inference_mode(), where no gradient exists: leave that block.")
    check_kinds(model, threat)
    device, dtype = home(model)
    first = split.names().argsort(stable=True)[:64]
    some = split.inputs(first).to(device, dtype)
    known = Classes.seen_in(split.labels)
    classifier = as_classifier(model, some[:1], output, known)
    with own_randomness(seed, device), trying("taking logits and gradients of the first examples", first, some):
        classes, warnings = check_outputs(classifier, some)
        _check_type(classifier, some)
        warnings += _flat(classifier, some)
    warnings = [*notes_on(classifier), *misfit(classes, known), *warnings]
    if (weights := not_finite(model)) is not None:
        warnings.append(f"{weights}: nothing that is computed with them means anything.")
    network = _network_hash(classifier, some, seed)
    check(split, threat.bounds, classes)
    return Subject(
        classifier, device, dtype, some, classes, network, [*split.notes, *warnings, *box_warnings(threat, some[0])]
    )


def check_kinds(model: Any, threat: Any) -> None:
    """Raise InputError on what is no network or no threat set, such as a path or its text, with the remedy."""
    if not isinstance(model, nn.Module):
        raise InputError(
            f"The model is {model!r:.80}, not a torch.nn.Module: give the network itself; of a run folder, "
            "load_run(folder); a function goes into the forward of a module."
        )
    if not isinstance(threat, Threat):
        raise InputError(f"The threat is {threat!r:.80}: give a Threat, such as Threat.parse('Linf:8/255').")


def not_finite(model: nn.Module) -> str | None:
    """Return what is wrong where weights hold NaN or infinite values; None if all are finite."""
    wrong = {name: int((~weight.isfinite()).sum()) for name, weight in model.named_parameters()}
    found = [f"{name} ({count} of its values)" for name, count in wrong.items() if count]
    return f"Weights are NaN or infinite: {', '.join(found[:3])}{', ...' * (len(found) > 3)}" if found else None


def measured_split(data: Any) -> Split:
    """Return what is measured: a `Data`'s test split, or any other form of data as it is."""
    if isinstance(data, Data):
        if data.test is None:
            raise InputError(f"The data {data.name!r} has no test split: pass one of its splits instead.")
        data = data.test
    split = as_split(data)
    if len(split) == 0:
        raise InputError("There is not a single example to evaluate.")
    return split


def home(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Return the device and precision of the weights."""
    device, dtype = home_of(model)
    if dtype not in (torch.float32, torch.float64):
        raise InputError(f"The weights are {dtype}, but results are computed in float32: call model.float().")
    return device, dtype


def misfit(columns: int, classes: Classes) -> list[str]:
    """Return a warning if the network tells apart more classes than the data has."""
    if columns <= classes.count or classes.fit(columns):
        return []
    return [
        f"The network returns {columns} logits, but {classes}: are these its logits, and do the labels suit them? "
        "output= (--output) picks another part of what it returns."
    ]


def device_kind(device: torch.device) -> str:
    """Return the kind of a device, such as "cpu (AVX512)" or a GPU with its name: on another, results may differ."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.backends.cpu.get_cpu_capability()})" if device.type == "cpu" else device.type


def version() -> str:
    """Return this package's version."""
    return metadata.version("unperturbed")


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {"unperturbed": version(), "torch": torch.__version__, "python": platform.python_version()}


def physical_batch_size(asked: int | Literal["auto"], subject: Subject, n: int) -> int:
    """Return how many of n examples the network sees at a time: a power of two, the next one if there are fewer.

    "auto" follows from the network and its inputs alone, and times nothing: the same evaluation takes the same size
    everywhere on the same kind of device. About as many as autograd keeps 2^25 numbers for (a processor's cache is soon
    left behind; on other devices 2^30), up to 512, and no fewer than 128 small, 64 middling or 32 large inputs.
    """
    size = asked
    if size == "auto":
        numel = subject.some[0].numel()
        least = 128 if numel <= 1024 else 64 if numel <= 3 * 64 * 64 else 32
        kept = kept_for_gradient(subject)
        fitting = (2**25 if subject.device.type == "cpu" else 2**30) // max(kept, numel) if kept is not None else least
        size = int(max(least, min(fitting, 512)))
    if not isinstance(size, int) or size < 1:
        raise InputError(f"batch_size is {size!r}, but must be a whole number, at least 1, or 'auto'.")
    return int(1 << (min(size, n) - 1).bit_length())


def kept_for_gradient(subject: Subject) -> int | None:
    """Return how many numbers autograd keeps for the gradient at one more example: a measure of the network's size.

    None where it keeps nothing, or where the network cannot be asked.
    """
    classifier, example = subject.classifier, subject.some[0]

    def kept(n: int) -> int:
        numbers = 0

        def keep(saved: Tensor) -> Tensor:
            nonlocal numbers
            numbers += saved.numel()
            return saved

        x = example.expand(n, *example.shape).clone().requires_grad_()
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
            classifier(x)
        return numbers

    with under_attack(classifier), own_randomness(0, subject.device):
        try:
            more = kept(2) - kept(1)  # without what does not depend on the batch, such as the weights
        except Exception:  # whatever a network may do about hooks, or two examples: the evaluation does without
            return None
    return more if more > 0 else None


def check_outputs(model: nn.Module, some: Inputs) -> tuple[int, list[str]]:
    """Return the number of classes that the model tells apart, and warnings.

    Of outputs that look like probabilities, and of logits that depend on the other examples in the batch.

    Raises:
        InputError: if the outputs are not logits of shape (n, classes >= 2).
    """
    with under_attack(model):
        parts, failures = isolate(lambda rows: padded_logits(model, some[rows], len(rows)), torch.arange(len(some)))
        if not parts:
            raise failed_on_all(failures)
        logits = torch.cat([part for _, part in parts])
        with torch.enable_grad():
            reached = model(some[:1].clone().requires_grad_()).requires_grad
        coupled = _is_coupled(model, some[parts[0][0][:1]], parts[0][1][:1])
    if not reached:
        raise InputError("No gradient reaches the model's inputs (no_grad or detach inside it): attacks need one.")
    if logits.dim() != 2 or logits.shape[1] < 2:
        shape = tuple(logits.shape)
        raise InputError(f"The model returns a tensor of shape {shape}, but logits have the shape (n, classes >= 2).")
    warnings = []
    if coupled:
        text = "An example's logits depend on the others in its batch, and so do its results: take the batch size 1."
        warnings.append(text)
    if bool((logits >= 0).all()) and bool(((logits.sum(dim=1) - 1).abs() < 1e-3).all()):
        text = "The outputs look like probabilities (they sum to 1), but attacks work on logits: leave the softmax out."
        warnings.append(text)
    return logits.shape[1], warnings


def _is_coupled(model: nn.Module, example: Inputs, among_others: Tensor) -> bool:
    """Tell whether logits differ by more than rounding (also TF32's) without the others, random numbers aside.

    Such a network (batch norm without running statistics, say) has no answer for an example, only for a batch.
    """
    parts, _ = isolate(lambda rows: [padded_logits(model, example, 1) for _ in range(2)], torch.zeros(1).long())
    if not parts or not torch.equal(*parts[0][1]):
        return False
    alone = parts[0][1][0]
    return bool((alone - among_others).abs().max() > 0.05 * alone.abs().max())


def _check_type(model: nn.Module, some: Inputs) -> None:
    with under_attack(model), torch.no_grad():
        dtype = model(some[:1]).dtype
    if dtype != some.dtype:
        raise InputError(
            f"The model returns {dtype} logits from {some.dtype} weights, but results are computed in the weights' own "
            "type: leave autocast and conversions out of its forward."
        )


def _flat(model: nn.Module, some: Inputs) -> list[str]:
    """Return a warning if nothing moves the logits apart where examples lie: searches by gradient end there."""

    def slopes(rows: Tensor) -> Tensor:
        with torch.enable_grad():
            x = some[rows].clone().requires_grad_()
            first, second = model(x).topk(2, dim=1).values.unbind(1)
            (slope,) = torch.autograd.grad((first - second).sum(), x, materialize_grads=True)
            return slope.flatten(1)

    with under_attack(model):
        parts, _ = isolate(slopes, torch.arange(len(some)))
    flat = sum(int((slope == 0).all(1).sum()) for _, slope in parts)
    if flat <= len(some) / 10:
        return []
    return [
        f"The gradient at the inputs is exactly 0 for {flat} of the first {len(some)} examples: searches by gradient "
        "find no way there, and what they leave standing says nothing. Attack through a stand-in with a gradient "
        "(docs/defences.md), and see what attacks without gradients find (--suite square)."
    ]


def box_warnings(threat: Threat, example: Tensor) -> list[str]:
    """Return a warning if eps spans the whole box, so that every input may become any other."""
    low, high = threat.limits(example[None])
    sides = (high - low).expand(1, *example.shape).flatten().double()
    width = float(torch.linalg.vector_norm(sides, {"Linf": torch.inf, "L2": 2, "L1": 1}[threat.norm]))
    if threat.eps < width:
        return []
    meant = f" Is eps meant as {threat.eps:g}/255?" if 1 <= threat.eps <= 255 and float(sides.max()) == 1 else ""
    return [
        f"eps is {threat.eps:g} and the box only {width:g} wide in {threat.norm}: every input may become any "
        f"other.{meant}"
    ]


def data_hash(split: Split) -> str:
    """Return a SHA-256 over the names, labels and inputs of the examples, in the order of their names."""
    digest = hashlib.sha256(str(tuple(split.shape)).encode())
    names = split.names()
    for ids in torch.split(names.argsort(stable=True), _READ):
        for values in (names[ids], split.labels[ids], split.inputs(ids)):
            digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()


def without_addresses(text: str) -> str:
    """Return the text without the places in memory that Python writes after what has no better name."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _network_hash(classifier: nn.Module, some: Inputs, seed: int) -> str:
    digest = hashlib.sha256(without_addresses(repr(classifier)).encode())
    with under_attack(classifier), own_randomness(seed, some.device):
        parts, _ = isolate(lambda rows: padded_logits(classifier, some[rows], len(rows)), torch.arange(len(some)))
    for rows, logits in parts:
        digest.update(rows.numpy().tobytes() + logits.argmax(1).cpu().numpy().tobytes())
    return digest.hexdigest()


def weights_hash(model: nn.Module) -> str:
    """Return a SHA-256 over the names, shapes and values of the weights and buffers, also of those never saved."""
    digest, state = hashlib.sha256(), model.state_dict()
    unsaved = {name: value for name, value in model.named_buffers() if name not in state}
    for name, value in (state | unsaved).items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
