"""Models by name or import path, and weights from and to files."""

import inspect
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_origin

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import UninitializedParameter

from unperturbed.architectures.by_name import maker_of
from unperturbed.architectures.libraries.base import LibraryModel
from unperturbed.catalogue import listing
from unperturbed.checks import checked
from unperturbed.errors import InputError, hint
from unperturbed.findings import Shown
from unperturbed.imports import OWN, follow, is_function, may_make
from unperturbed.networks.classifier import as_classifier
from unperturbed.networks.guard import trying
from unperturbed.networks.logits import LogitsOnly, output_logits, unwrapped
from unperturbed.reading import check_memory, free_memory, in_words
from unperturbed.runs.tensors import write_tensors
from unperturbed.storage.file_copy import file_copy
from unperturbed.storage.places import is_url
from unperturbed.weights.layouts import MEAN, STD, StoredWeights, networks_in, plain_names
from unperturbed.weights.nearest import belonging
from unperturbed.weights.stored import read_stored

__all__ = ("LogitsOnly", "as_classifier", "output_logits")  # their place was here

log = logging.getLogger("unperturbed")
LARGE = 2**26
"""Bytes of a weight from which the free memory is looked up."""

# --- models ---------------------------------------------------------------------------------------------------------


@checked()
def build_model(
    spec: str,
    arguments: Mapping[str, object],
    input_shape: tuple[int, ...],
    classes: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> nn.Module:
    """Build the model named by `spec`: "small-cnn", "timm:resnet18", or a user's class as "package.module:Class".

    The class is called with `arguments`, and with `input_shape`, `classes`, `mean` and `std` if its signature has a
    parameter of that name and `arguments` does not. A function that returns a module works as well. Raises `InputError`
    for an unknown name (with the nearest), a failing import, an unknown (with the known ones) or missing argument, an
    error in the constructor, and a result that is not a module.
    """
    make = _find_maker(spec)
    offered = {"input_shape": input_shape, "classes": classes, "mean": mean, "std": std}
    keywords = _checked_arguments(spec, make, arguments, offered)
    with trying(f"building the model {spec} with {keywords!r:.300}"), _within_memory(spec):
        model = make(**keywords)
    if not isinstance(model, nn.Module):
        raise InputError(f"{spec} returned a {type(model).__name__}, not a torch.nn.Module: name a class that is one")
    return model


@contextmanager
def _within_memory(spec: str) -> Iterator[None]:
    """Raise InputError in this block once the weights of new layers exceed the memory of the machine, or what is free.

    Their memory is reserved by then, but taken only by the first values: nothing is full yet.
    """
    total = 0

    def count(_: nn.Module, __: str, parameter: nn.Parameter | None) -> None:
        nonlocal total
        if parameter is not None and not isinstance(parameter, UninitializedParameter) and not parameter.is_meta:
            total += parameter.nbytes
            check_memory(total, f"The weights of the model {spec}", "give smaller sizes")
            if parameter.nbytes > LARGE and parameter.nbytes > (free := free_memory()):
                raise InputError(
                    f"A layer of the model {spec} would take {in_words(parameter.nbytes)} of memory, but "
                    f"{in_words(free)} are free: give smaller sizes."
                )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def named_models() -> dict[str, type[nn.Module]]:
    """Return the models of `architectures` by their short names."""
    models: dict[str, Any] = {
        name: follow(entry.path, "model", OWN) for name, entry in listing("architectures").items()
    }
    return models


def _find_maker(spec: str) -> Callable[..., object]:
    if (make := maker_of(spec, (), "the model", OWN)) is not None:
        return make
    if ":" in spec or "." in spec:
        target: Any = follow(spec, "the model", OWN)
        if isinstance(target, nn.Module) or not (inspect.isclass(target) or is_function(target)):
            raise InputError(f"{spec} is a {type(target).__name__}: name a class, or a function that returns the model")
        if not may_make(target, nn.Module, spec, OWN):
            raise InputError(f"{spec} makes no torch.nn.Module: name a subclass, or a function that returns one")
        maker: Callable[..., object] = target
        return maker
    models = named_models()
    if spec not in models:
        raise InputError(f"There is no model {spec!r}. {hint(spec, models)} Your own class: 'package.module:Class'.")
    return models[spec]


def _checked_arguments(
    spec: str, make: Callable[..., object], arguments: Mapping[str, object], offered: Mapping[str, object]
) -> dict[str, object]:
    """Return the arguments for `make`; raises `InputError` if they do not fit its signature."""
    signature = inspect.signature(make)
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    accepted = [name for name, kind in kinds.items() if kind in (kind.POSITIONAL_OR_KEYWORD, kind.KEYWORD_ONLY)]
    takes_any = any(kind is kind.VAR_KEYWORD for kind in kinds.values())
    for name in arguments:
        if name not in accepted and not takes_any:
            raise InputError(f"{spec} has no argument {name!r}. {hint(name, accepted)}")
    complete = {name: value for name, value in offered.items() if name in accepted} | dict(arguments)
    for name in complete.keys() & kinds.keys():  # YAML and JSON have no tuples
        value = complete[name]
        if isinstance(value, list) and get_origin(signature.parameters[name].annotation) is tuple:
            complete[name] = tuple(value)
    try:
        signature.bind(**complete)
    except TypeError as error:
        raise InputError(f"{spec}: {error}; it accepts {', '.join(accepted) or 'none'}") from None
    return complete


# --- weights --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class KeyReport(Shown):
    """The outcome of loading a weights file, by name.

    `missing` and `mismatched` (with both shapes) are the model's names, `unexpected` the file's; `kept` is the
    normalisation that the model keeps because the file has none; `source` is the place of the weights in the file.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    source: str = ""

    def __str__(self) -> str:
        """Return a line on the loaded weights, and one for every kind of other names."""
        lines = [f"{len(self.loaded)} tensors of weights loaded from {self.source}"]
        for kind in ("missing", "unexpected", "mismatched", "kept"):
            if names := getattr(self, kind):
                ellipsis = f" and {len(names) - 8} more" if len(names) > 8 else ""
                lines.append(f"{kind} ({len(names)}): {', '.join(f'{name:.200}' for name in names[:8])}{ellipsis}")
        return "\n".join(lines)


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Return the tensors of a weights file by their plain names, on the CPU, in their stored type.

    Reads safetensors, and files of `torch.save` with `weights_only=True`: code in a file never runs. Names lose
    the leading prefixes of wrappers, and a normalisation becomes `normalise.mean` and `normalise.std`, for the layouts
    in `layouts.py`. Raises `InputError` if the file does not exist, is no weights file (an HTML page), is truncated, or
    holds code or no weights.
    """
    stored = read_stored(_on_this_machine(path)).weights
    return {plain: stored[name] for plain, name in plain_names(stored).items()}


def _on_this_machine(path: Path | str) -> Path:
    """Return a file, or the copy of one in an object store."""
    return file_copy(path) if is_url(path) else Path(path)


@checked()
def load_weights(
    model: nn.Module, path: Path | str, strict: bool = True, keep_normalisation: bool = False
) -> KeyReport:
    """Load a weights file into `model`, in the model's dtype and device, and report on every name.

    The file may be the URL of one in an object store, s3://bucket/weights.safetensors.

    Names are compared with or without the wrappers' prefixes, so that more of them agree. If the file has no
    normalisation, the model keeps its normalisation if that is the identity (mean 0, std 1), if it is that of a
    library's model, or if `keep_normalisation` states that its numbers are those of the network's training. Raises
    `InputError` like `read_weights`, and for missing or mismatched names unless `strict` is False; the model is then
    unchanged.
    """
    stored = read_stored(_on_this_machine(path))
    model = unwrapped(model)
    tensors = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    fitting, report = _match(tensors, stored, str(path))
    if keep_normalisation or isinstance(model, LibraryModel) or _is_identity(tensors, report.missing):
        report = _with_kept_normalisation(tensors, report)
    if strict and (report.missing or report.mismatched):
        answer = "\n" + fitting_network if (fitting_network := belonging(stored.weights, named_models())) else ""
        raise InputError(f"{path} does not fit the {type(model).__name__}: {_problem(tensors, report)}{answer}")
    model.load_state_dict(fitting, strict=False)
    return report


@checked()
def save_weights(model: nn.Module, path: Path | str, about: Mapping[str, object] | None = None) -> None:
    """Write the model's state as safetensors, atomically; shared tensors are written under every name.

    The metadata hold a hash of the contents, and the plain values `about`.

    Raises `InputError` if the state holds something other than tensors, and `RunError` if the file cannot be written;
    an earlier file then remains.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"path is {path}, a folder: give the path of a file.")
    try:
        json.dumps(about)
    except (TypeError, ValueError) as error:
        raise InputError(f"about is {about!r:.80}: give plain values ({error}).") from error
    state = unwrapped(model).state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{name} of the model is a {type(value).__name__}: safetensors hold tensors only")
    # copies: safetensors refuses tensors that share memory or are not contiguous
    tensors = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}
    write_tensors(path, tensors, about or {})


def _match(tensors: Mapping[str, Tensor], stored: StoredWeights, path: str) -> tuple[dict[str, Tensor], KeyReport]:
    """Return the tensors to load under the model's names, and the report on all names."""
    ours, theirs = _best_names(tensors, stored.weights, path)
    fitting, mismatched = {}, []
    for plain in ours.keys() & theirs.keys():
        name, value = ours[plain], stored.weights[theirs[plain]]
        fitted = _fitted(value, tensors[name]) if plain in (MEAN, STD) else value
        if fitted.shape == tensors[name].shape:
            _check_kind(fitted, tensors[name], name, path)
            fitting[name] = fitted
        else:
            mismatched.append(f"{name} {tuple(tensors[name].shape)}, in the file {tuple(value.shape)}")
    # a tied weight may be stored once, and old files lack the counts of batches, which eval mode does not use
    loaded = {_memory(tensors[name]) for name in fitting}
    absent = [ours[plain] for plain in ours if plain not in theirs]
    missing = [n for n in absent if not n.endswith("num_batches_tracked") and _memory(tensors[n]) not in loaded]
    unexpected = [theirs[plain] for plain in theirs if plain not in ours]
    rest = f" (the file also holds {', '.join(stored.others)})" if stored.others else ""
    source = path + "".join(f"[{name!r}]" for name in stored.path) + rest
    return fitting, KeyReport(
        loaded=tuple(name for name in tensors if name in fitting),
        missing=tuple(missing),
        unexpected=tuple(unexpected),
        mismatched=tuple(sorted(mismatched)),
        source=source,
    )


def _check_kind(stored: Tensor, tensor: Tensor, name: str, path: str) -> None:
    """Refuse what copying would change: an imaginary part is lost, and codes of quantised weights are no weights."""
    real = tensor.is_floating_point()
    if (stored.is_complex() and not tensor.is_complex()) or (real and not stored.is_floating_point()):
        raise InputError(
            f"{name} is {tensor.dtype} in the model and {stored.dtype} in {path}, so its values would change: build "
            "the model with that type, or save its weights as floating-point numbers"
        )


def _best_names(
    tensors: Mapping[str, Tensor], stored: Mapping[str, Tensor], path: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the names, stored or plain, that agree with the model's most often; the stored ones if equal.

    If they lack weights, and those behind a prefix of the file do not, these are taken; the rest is unexpected.
    """
    ours = ({name: name for name in tensors}, plain_names(tensors))
    theirs = ({name: name for name in stored}, plain_names(stored))
    best = max(product(ours, theirs), key=lambda pair: len(pair[0].keys() & pair[1].keys()))
    if _has_all(*best):
        return best
    whole = {
        prefix: (mine, {name: name for name in stored.keys() - {*names.values()}} | names)
        for prefix, names in networks_in(stored).items()
        for mine in ours
        if _has_all(mine, names)
    }
    if len(whole) > 1:
        raise InputError(
            f"{path} holds {len(whole)} networks with the names of the model, behind {' and '.join(whole)}: save the "
            "one that you mean alone"
        )
    return next(iter(whole.values()), best)


def _has_all(ours: Mapping[str, str], theirs: Mapping[str, str]) -> bool:
    """Tell whether a file has all weights of the model but, at most, its normalisation and counts of batches."""
    return all(name in theirs for name in ours if name not in (MEAN, STD) and not name.endswith("num_batches_tracked"))


def _fitted(stored: Tensor, tensor: Tensor) -> Tensor:
    """Return a normalisation's numbers in the model's shape: (3,), (3, 1, 1), or one for all."""
    if stored.numel() == tensor.numel():
        return stored.reshape(tensor.shape)
    return stored.reshape(()).expand(tensor.shape) if stored.numel() == 1 else stored


def _memory(tensor: Tensor) -> tuple[int, torch.Size, tuple[int, ...]] | int:
    # empty tensors have no memory to share
    return (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else id(tensor)


def _normalisation(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {plain: name for plain, name in plain_names(tensors).items() if plain in (MEAN, STD)}


def _is_identity(tensors: Mapping[str, Tensor], missing: tuple[str, ...]) -> bool:
    names = _normalisation(tensors)
    if len(names) < 2 or not set(names.values()) <= set(missing):
        return False
    return bool((tensors[names[MEAN]] == 0).all() and (tensors[names[STD]] == 1).all())


def _with_kept_normalisation(tensors: Mapping[str, Tensor], report: KeyReport) -> KeyReport:
    names = set(_normalisation(tensors).values())
    names_kept = tuple(name for name in report.missing if name in names)
    missing = tuple(name for name in report.missing if name not in names)
    return KeyReport(report.loaded, missing, report.unexpected, report.mismatched, names_kept, report.source)


def _problem(tensors: Mapping[str, Tensor], report: KeyReport) -> str:
    names = set(_normalisation(tensors).values())
    if report.missing and set(report.missing) <= names and not report.mismatched:
        return (
            f"it holds no normalisation for {', '.join(report.missing)}, so build the model with that of its training:"
            f" mean 0 and std 1 if it saw raw inputs, else the numbers used there\n{report}"
        )
    return f"build the model with the arguments that it was trained with\n{report}"
