"""What every measurement of a model begins with: looks at model and data that refuse what would mislead."""

import hashlib
import platform
import re
from collections.abc import Sequence
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
from unperturbed.evaluation.evidence import Doubt
from unperturbed.evaluation.optimising import calls_autograd
from unperturbed.evaluation.reach import reach_warnings
from unperturbed.networks.classifier import Classes, as_classifier
from unperturbed.networks.dtype import home as home_of
from unperturbed.networks.failures import failed_on_all, isolate
from unperturbed.networks.fingerprint import describe
from unperturbed.networks.guard import trying
from unperturbed.networks.logits import Output, notes_on
from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs

_READ = 1024
_ANSWERED = 16
"""Examples whose answers tell a network from others."""
COUPLED = "An example's logits depend on the others in its batch, and so do its results: take the batch size 1."
PROBABILITIES = (
    "The outputs look like probabilities (they sum to 1), but attacks work on logits: leave the softmax out."
)
OPTIMISING = (
    "The network calls autograd in its forward: it optimises while it answers, and attacks that follow the gradient of "
    "a single forward need not see through that. Attack it adaptively."
)
FLAT = "The gradient at the inputs is exactly 0"
_DOUBTED = {
    COUPLED: "logits depend on the rest of the batch",
    PROBABILITIES: "the outputs are probabilities",
    OPTIMISING: "the network optimises at test time",
}


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
    """A hash of everything that the network's answers can depend on, and of its answers to the first examples."""
    undescribed: tuple[str, ...]
    """What in the network cannot be described: another network may have the same hash."""
    warnings: list[str]

    def doubts(self, places: int) -> list[Doubt]:
        """Return which of the warnings speak against a robust accuracy, the network seeing `places` at a time."""
        shorts = dict(_DOUBTED) if places > 1 else {text: short for text, short in _DOUBTED.items() if text != COUPLED}
        flat = [Doubt("the gradient is 0", text) for text in self.warnings if text.startswith(FLAT)]
        return [Doubt(shorts[text], text) for text in self.warnings if text in shorts] + flat

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
        warnings += _flat(classifier, some) + ([OPTIMISING] if calls_autograd(classifier, some[:1]) else [])
    warnings = [*notes_on(classifier), *misfit(classes, known), *warnings]
    if (weights := not_finite(model)) is not None:
        warnings.append(f"{weights}: nothing that is computed with them means anything.")
    network, undescribed = network_hash(classifier, some, seed)
    check(split, threat.bounds, classes)
    warnings = [*split.notes, *warnings, *reach_warnings(threat, split), *_not_described(undescribed)]
    return Subject(classifier, device, dtype, some, classes, network, undescribed, warnings)


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
        warnings.append(COUPLED)
    if bool((logits >= 0).all()) and bool(((logits.sum(dim=1) - 1).abs() < 1e-3).all()):
        warnings.append(PROBABILITIES)
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
        f"{FLAT} for {flat} of the first {len(some)} examples: searches by gradient "
        "find no way there, and what they leave standing says nothing. Attack through a stand-in with a gradient "
        "(docs/defences.md), and see what attacks without gradients find (--suite square)."
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


def _not_described(doubts: Sequence[str]) -> list[str]:
    """Return a warning where another network could pass for this one."""
    if not doubts:
        return []
    names = "; ".join(doubts[:3]) + (", ..." if len(doubts) > 3 else "")
    return [
        f"The network holds what cannot be described ({names}): another one may look the same, so that stored results "
        "are never read again. It is measured anew each time."
    ]


def network_hash(classifier: nn.Module, some: Inputs, seed: int) -> tuple[str, tuple[str, ...]]:
    """Return a SHA-256 of a network, the same in another process, and what in the network cannot be described.

    Over all that its answers can depend on (`describe`), and the bits of its logits and input gradients at a few
    examples, computed by one thread. What changes from forward to forward, such as a counter, is left out.
    """
    few, threads = some[:_ANSWERED], torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with under_attack(classifier):
            first, before = _answers(classifier, few, seed), describe(classifier)
            second, after = _answers(classifier, few, seed), describe(classifier)
    finally:
        torch.set_num_threads(threads)
    digest = hashlib.sha256(before.hash(after).encode())
    digest.update(first if first == second else b"other answers each time")
    return digest.hexdigest(), before.doubts


def _answers(classifier: nn.Module, x: Inputs, seed: int) -> bytes:
    """Return the bits of the logits at x and of the gradient of a weighted sum of them."""

    def answers(rows: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = x[rows].clone().requires_grad_()
            logits = classifier(z)
            weights = torch.arange(1, logits.shape[1] + 1).to(logits).cos()
            (slope,) = torch.autograd.grad((logits * weights).sum(), z, materialize_grads=True)
        return logits.detach().cpu(), slope.cpu()

    with own_randomness(seed, x.device):
        parts, _ = isolate(answers, torch.arange(len(x)))
    digest = hashlib.sha256()
    for values in (each for rows, found in parts for each in (rows, *found)):
        digest.update(values.contiguous().numpy().tobytes())
    return digest.digest()


def weights_hash(model: nn.Module) -> str:
    """Return a SHA-256 over the names, shapes and values of the weights and buffers, also of those never saved."""
    digest, state = hashlib.sha256(), model.state_dict()
    unsaved = {name: value for name, value in model.named_buffers() if name not in state}
    for name, value in (state | unsaved).items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
