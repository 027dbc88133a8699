"""A user's network as a classifier after a trial on a few inputs: wrapped where it must be, refused where it fails."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unperturbed.errors import InputError
from unperturbed.networks.dtype import home
from unperturbed.networks.guard import place, probable_cause
from unperturbed.networks.logits import (
    ONE_LOGIT,
    Copied,
    LogitsOnly,
    NotReentrant,
    OneLogit,
    Output,
    Trial,
    WithGradient,
    output_logits,
    parts_of,
    try_on,
)
from unperturbed.networks.modes import buffers_restored
from unperturbed.types import Inputs, Labels

_CHANCE = 1e-3
"""If labels would miss a further class with less than this probability, they are assumed to cover all classes."""


@dataclass(frozen=True)
class Classes:
    """The number of classes of the data: known by name, or the largest of some labels plus 1."""

    count: int
    labels: int | None = None

    @classmethod
    def seen_in(cls, labels: Labels) -> "Classes":
        """Return the number of classes according to labels."""
        return cls(int(labels.max()) + 1 if len(labels) else 0, len(labels))

    def fit(self, columns: int) -> bool:
        """Tell whether this number of logits fits the data."""
        if columns <= self.count or self.labels is None:
            return columns == self.count
        return bool((self.count / columns) ** self.labels >= _CHANCE)

    def __str__(self) -> str:
        """Return the number in words, with its source."""
        return f"the data has {self.count} classes" if self.labels is None else f"labels go up to {self.count - 1}"


def as_classifier(
    model: nn.Module,
    example: Inputs,
    output: Output = None,
    classes: Classes | None = None,
    modes: Sequence[bool] = (False,),
) -> nn.Module:
    """Return `model` as a network from inputs to logits, after trying it on the first of `example`.

    It is wrapped if its output is no tensor of logits (`output` selects them), if it changes its inputs in place, if it
    has one logit, if its activation checkpoints give no gradients of inputs, or if it takes gradients itself; the
    wrappers have notes on this. It is tried in eval mode, and with True among `modes` in train mode, on two inputs.
    Modes, buffers and random numbers are restored. Raises `InputError` if the model fails on the input, does not return
    logits of shape (n, classes), or has another output that fits the classes better.
    """
    if isinstance(model, LogitsOnly) and model.which is not None and output is None:
        output = model.which
        model = model.module  # its output is tried as it is
    device, _ = home(model)
    trials = [(_tried(model, example.to(device), training), training) for training in modes]
    tried = [trial for trial, _ in trials]
    outputs = [trial.output for trial in tried]
    if output is not None and all(isinstance(value, Tensor) for value in outputs) and not callable(output):
        output_logits(outputs[0], output)
    classifier = model
    if any(trial.changed_inputs for trial in tried):
        classifier = Copied(classifier, "The network changes its inputs in place: it is called on a copy of them.")
    if any(trial.reentrant for trial in tried):
        note = "The network's activation checkpoints (use_reentrant=True) are run as use_reentrant=False."
        classifier = NotReentrant(classifier, note)
    if output is not None or not all(isinstance(value, Tensor) for value in outputs):
        classifier = LogitsOnly(classifier, output, _on_parts(trials, output))
    logits = [_logits(trial, output) for trial, _ in trials]
    sizes = [2 if training else 1 for training in modes]
    for value, n, trial in zip(logits, sizes, tried, strict=True):
        _check_logits(value, n, trial.output, classes, output)
    if all(value.numel() == n for value, n in zip(logits, sizes, strict=True)):
        _refuse_probability(classifier, example[:1].to(device))
        classifier = OneLogit(classifier, f"The network returns one logit, z: it is taken as {ONE_LOGIT}.")
    return WithGradient(classifier) if any(trial.with_gradient for trial in tried) else classifier


def _tried(model: nn.Module, x: Inputs, training: bool) -> Trial:
    """Return a trial on one input in eval mode, or on two in train mode."""
    inputs = x[torch.arange(2) % len(x)] if training else x[:1]
    with untouched(model, inputs.device, training):
        try:
            return try_on(model, inputs)
        except (Exception, SystemExit) as error:
            if isinstance(error, InputError):
                raise
            mode = " in train mode" if training else ""
            shapes = (
                f"an input of shape {tuple(inputs.shape)}" if not training else f"inputs of shape {tuple(inputs.shape)}"
            )
            raise InputError(
                f"the model fails on {shapes}{mode} ({type(error).__name__}: {error}){place(error)}: "
                f"{_remedy(model, inputs, error)}"
            ) from error


def _remedy(model: nn.Module, x: Inputs, error: BaseException) -> str:
    """Return the remedy, after trials with other types and shapes of the same input."""
    pixels = (x * 255).clamp(0, 255).to(torch.uint8)
    integers = "it takes integers only, but attacks need gradients: have it take floating-point inputs"
    variants: list[tuple[Inputs, str]] = [
        (pixels, f"{integers} (x.float() in place of a check or conversion; --scale 255 where it expects 0 to 255)"),
        (pixels.long(), f"{integers} (an embedding is attacked at its vectors)"),
        (
            x.double() if x.dtype == torch.float32 else x.float(),
            "it takes inputs of another precision: have it convert them (x.to(weight.dtype)), or give --precision 64",
        ),
        (
            torch.cat([x, x]),
            f"it takes {2 * len(x)} inputs but not {len(x)}: "
            + (
                "its batch norm takes the statistics of the batch in eval mode, too: let it keep running ones"
                if "per channel" in str(error)
                else "name the dimension in squeeze()"
            ),
        ),
        (x.flatten(1), "it takes flat inputs: put nn.Flatten() first"),
        (x[:, None], "it takes inputs with a channel: put nn.Unflatten or x[:, None] first"),
    ]
    for variant, remedy in [*variants, *_with_other_channels(x)]:
        try:
            with torch.no_grad():
                model(variant.clone())
        except (Exception, SystemExit):
            continue
        return remedy
    return f"build it for inputs of that shape. {probable_cause(error)}"


def _with_other_channels(x: Inputs) -> list[tuple[Inputs, str]]:
    """Return the images with their channels elsewhere, or with more or fewer of them."""
    if x.dim() == 3:
        return [
            (x[:, None].expand(-1, 3, -1, -1), "it takes three channels: put x[:, None].expand(-1, 3, -1, -1) first")
        ]
    if x.dim() != 4:
        return []
    found = [(x.permute(0, 2, 3, 1), "it takes the channels last: put x.permute(0, 2, 3, 1) first")]
    if x.shape[3] <= 4:
        last = "the images have their channels last, and it takes them first: put x.permute(0, 3, 1, 2) first"
        found.append((x.permute(0, 3, 1, 2), last))
    if x.shape[1] == 1:
        found.append((x.expand(-1, 3, -1, -1), "it takes three channels: put x.expand(-1, 3, -1, -1) first"))
    if x.shape[1] == 4:
        found.append((x[:, :3], "it takes three channels: put x[:, :3] first, which leaves transparency out"))
    if x.shape[1] == 3:
        found.append((x.mean(1, keepdim=True), "it takes grey images: put x.mean(1, keepdim=True) first"))
    return found


def _on_parts(trials: Sequence[tuple[Trial, bool]], output: Output) -> str:
    """Return a note if one of several tensors is taken for the logits by default."""
    if output is not None:
        return ""
    several = [(trial.output, training) for trial, training in trials if len(parts_of(trial.output)) > 1]
    if not several:
        return ""
    value, training = several[0]
    logits, parts = output_logits(value), parts_of(value)
    name = next((name for name, part in parts.items() if part is logits), 0)
    only = training and len(several) < len(trials)
    if name == "logits" and not only:
        return ""
    mode = " in train mode" if only else ""
    shown = ", ".join(f"{key!r} {tuple(part.shape)}" for key, part in list(parts.items())[:8])
    return (
        f"The network returns several tensors{mode} ({shown}): {name!r} is taken for the logits, and the loss reaches "
        "no other. output= (--output) picks another one."
    )


def _logits(trial: Trial, output: Output) -> Tensor:
    value = trial.output
    return value if isinstance(value, Tensor) and not callable(output) else output_logits(value, output)


def _check_logits(logits: Tensor, n: int, output: object, classes: Classes | None, chosen: Output) -> None:
    shape = tuple(logits.shape)
    single = logits.numel() == n and logits.is_floating_point()
    if single and (classes is None or classes.count <= 2):
        return
    if single:
        raise InputError(
            f"the model returns one number an example, but {classes}: return logits of shape (n, {classes.count}); "  # type: ignore[union-attr]
            f"of two classes, {ONE_LOGIT} of the one logit z"
        )
    if logits.dim() != 2 or len(logits) != n or not logits.is_floating_point():
        raise InputError(
            f"the model turned {'one input' if n == 1 else f'{n} inputs'} into {logits.dtype} of shape {shape}: return "
            f"floating-point logits of shape (n, classes){_other_part(output, n, classes)}"
        )
    hint = _other_part(output, n, classes)
    if chosen is None and classes is not None and not classes.fit(shape[1]) and hint:
        raise InputError(f"the model returns {shape[1]} columns as its logits, but {classes}{hint}")


def _other_part(output: object, n: int, classes: Classes | None) -> str:
    """Return a hint to the part of an output that fits the classes, or an empty text."""
    for name, part in parts_of(output).items():
        if classes is not None and part.shape == (n, classes.count) and part.is_floating_point():
            return f": its part {name!r} has {classes.count}, say output={name!r} (--output {name})"
    return ""


def _refuse_probability(model: nn.Module, x: Inputs) -> None:
    with untouched(model, x.device), torch.enable_grad():
        node = model(x.clone().requires_grad_()).grad_fn
    for _ in range(4):  # a sigmoid, and changes of shape after it
        if node is not None and "Sigmoid" in node.name():
            raise InputError(
                "the model returns one probability an example (it ends in a sigmoid): return the logit z before it, or "
                f"{ONE_LOGIT}"
            )
        node = node.next_functions[0][0] if node is not None and node.next_functions else None


@contextmanager
def untouched(model: nn.Module, device: torch.device, training: bool = False) -> Iterator[None]:
    """Set eval or train mode in this block; afterwards restore every mode, buffer and the random state."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), buffers_restored(model):
            model.train(training)
            yield
    finally:
        for module, mode in modes:
            module.training = mode
