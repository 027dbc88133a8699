"""Specifications of networks: from a network to its specification, back, and the comparison of both."""

import hashlib
import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unperturbed.architectures.by_name import maker_of, without_download
from unperturbed.architectures.libraries.base import LibraryModel
from unperturbed.checks import checked
from unperturbed.errors import InputError
from unperturbed.hub.pull import as_folder
from unperturbed.imports import Trust, check_argument, check_nested, follow, may_make, user_trust
from unperturbed.networks.inputs import prepared
from unperturbed.runs.files import BEST, CONFIG, MODEL
from unperturbed.runs.record import ModelSpec, Network, RunRecord
from unperturbed.runs.weights import check_weights
from unperturbed.weights.files import build_model, load_weights, named_models

log = logging.getLogger("unperturbed")
PLAIN = (str, int, float, bool, type(None))


def spec_of(model: nn.Module) -> ModelSpec | None:
    """Return the specification of a network of this package, or of a library's that was built by name.

    None for others, and for a network changed since.
    """
    kind = type(model)
    if isinstance(model, LibraryModel):
        return _library_spec(model)
    name, arguments = vars(kind).get("name"), getattr(model, "init_args", None)
    if not isinstance(arguments, Mapping) or named_models().get(str(name)) is not kind:
        return None
    with torch.random.fork_rng(devices=[]), torch.device("meta"):  # without values: shapes and layers are compared
        rebuilt = kind(**arguments)
    if architecture(rebuilt) != architecture(model):
        return None
    return ModelSpec(str(name), dict(arguments))


def _library_spec(model: LibraryModel) -> ModelSpec | None:
    with torch.random.fork_rng(devices=[]):
        rebuilt = build_model(model.spec, without_download(model.spec, model.init_args), (), 0, (), ())
    return ModelSpec(model.spec, model.init_args) if architecture(rebuilt) == architecture(model) else None


def network_of(model: nn.Module) -> Network:
    """Return the specification of the trained network in a run folder."""
    kind = type(model)
    parameters = sum(weight.numel() for weight in model.parameters())
    return Network(f"{kind.__module__}.{kind.__qualname__}", architecture(model), parameters)


def architecture(model: nn.Module) -> str:
    """Return a hash of the modules by name (their classes and settings) and of the shapes of weights and buffers.

    For modules outside PyTorch, the settings are the plain attributes with the names of constructor parameters.
    """
    lines = [f"{name} {type(module).__qualname__} {_settings(module)}" for name, module in model.named_modules()]
    lines += [f"{name} {tuple(value.shape)}" for name, value in model.state_dict().items() if hasattr(value, "shape")]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def check_rebuilt(model: nn.Module, network: Network | None, made_by: str, run: object, remedy: str) -> None:
    """Raise InputError if a network differs from the one that a run trained, also if the weights would fit."""
    if network is not None and architecture(model) != network.architecture:
        raise InputError(
            f"{made_by} makes another network than the {network.class_path} that {run} holds, though weights may fit: "
            f"its layers, their settings or their shapes differ. {remedy}"
        )


@checked()
def load_run(folder: Path | str, trust: bool | Trust = False) -> nn.Module:
    """Return the network of a run folder, with its best weights, in eval mode: `Run.open(folder).model`.

    The folder may be a run on the Hugging Face hub, `hf://user/name`, which is then read from the hub's cache.

    An import path in the folder is followed only with `trust`, or if the user trusts the folder otherwise (see
    `imports`). Raises `InputError` if it is not followed, if the folder has no specification of its network (a class
    outside this package that was built in Python), and if the rebuilt network differs from the trained one.
    """
    path = as_folder(folder, (CONFIG, BEST, MODEL))
    record = RunRecord.read(path)
    if not (path / BEST).is_file():
        raise InputError(f"{path} has no {BEST}: the run has not finished an epoch. Resume it.")
    if record.model is None:
        raise InputError(
            f"{path} has no specification of its network: build it, and load_weights(model, {str(path / BEST)!r})"
        )
    base = trust if isinstance(trust, Trust) else user_trust(trust)
    trusted = base.of_file(path, [record.model.class_path, record.model.init_args])
    try:
        model = build_from(record.model, f"the model of {path}", trusted)
    except InputError as error:
        raise InputError(f"{path / CONFIG}, model: {error}") from error.__cause__ or error
    remedy = "Build the trained network, and load_weights into it."
    check_rebuilt(model, record.network, record.model.class_path, path, remedy)
    for text in check_weights(path):
        log.warning(text)
    load_weights(model, path / BEST)
    return prepared(model, record.output, record.scale, record.normalise).eval()


def build_from(spec: ModelSpec, where: str, trust: Trust) -> nn.Module:
    """Return the network that a file specifies; `where` names the file in errors.

    Raises:
        InputError: for an import path that is not followed, before any import, and if building fails.
    """
    path = spec.class_path
    arguments = without_download(path, spec.init_args)
    if maker_of(path, [*arguments], where, trust) is None and (":" in path or "." in path):
        if not may_make(follow(path, where, trust), nn.Module, path, trust):
            raise InputError(f"{where}: {path} makes no torch.nn.Module, so it is no model.")
    check_nested(spec.init_args, where, trust, strings=True)
    for name, value in spec.init_args.items():
        check_argument(name, value, path, where, trust)
    return build_model(path, arguments, (), 0, (), ())


def _settings(module: nn.Module) -> str:
    if isinstance(module, LibraryModel):  # its layers tell all but the name and the origin of its weights
        return ""
    if type(module).__module__.partition(".")[0] == "torch":
        return module.extra_repr()
    parameters = inspect.signature(type(module).__init__).parameters
    values: dict[str, Any] = {name: vars(module)[name] for name in parameters if name in vars(module)}
    return str({name: value for name, value in values.items() if isinstance(value, PLAIN)})
