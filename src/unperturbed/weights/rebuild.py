"""From a network back to how it is built, and whether a rebuilt one is the same."""

import hashlib
import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unperturbed.checks import checked
from unperturbed.errors import InputError
from unperturbed.imports import Trust, check_argument, check_nested, follow, may_make, user_trust
from unperturbed.networks.inputs import prepared
from unperturbed.runs.files import BEST, CONFIG
from unperturbed.runs.record import ModelSpec, Network, RunRecord
from unperturbed.runs.weights import check_weights
from unperturbed.weights.files import build_model, load_weights, named_models

log = logging.getLogger("unperturbed")
PLAIN = (str, int, float, bool, type(None))


def spec_of(model: nn.Module) -> ModelSpec | None:
    """Return how to build a network of this package; None for another, or where it was changed after it was built."""
    kind = type(model)
    name, arguments = vars(kind).get("name"), getattr(model, "init_args", None)
    if not isinstance(arguments, Mapping) or named_models().get(str(name)) is not kind:
        return None
    with torch.random.fork_rng(devices=[]), torch.device("meta"):  # without values: shapes and layers are compared
        again = kind(**arguments)
    if architecture(again) != architecture(model):
        return None
    return ModelSpec(str(name), dict(arguments))


def network_of(model: nn.Module) -> Network:
    """Return what a run folder says of the network that was trained."""
    kind = type(model)
    parameters = sum(weight.numel() for weight in model.parameters())
    return Network(f"{kind.__module__}.{kind.__qualname__}", architecture(model), parameters)


def architecture(model: nn.Module) -> str:
    """Return a hash of the modules by name (their classes and settings) and of the shapes of weights and buffers.

    Of modules that are not PyTorch's own the settings are the plain attributes named as the constructor's parameters.
    """
    lines = [f"{name} {type(module).__qualname__} {_settings(module)}" for name, module in model.named_modules()]
    lines += [f"{name} {tuple(value.shape)}" for name, value in model.state_dict().items() if hasattr(value, "shape")]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def check_rebuilt(model: nn.Module, network: Network | None, made_by: str, run: object, remedy: str) -> None:
    """Raise InputError where a network is not the one that a run trained: its weights may fit all the same."""
    if network is not None and architecture(model) != network.architecture:
        raise InputError(
            f"{made_by} makes another network than the {network.class_path} that {run} holds, though weights may fit: "
            f"its layers, their settings or their shapes differ. {remedy}"
        )


@checked()
def load_run(folder: Path | str, trust: bool | Trust = False) -> nn.Module:
    """Return the network of a run folder, with its best weights, in eval mode: `Run.open(folder).model`.

    An import path in the folder is followed only where `trust` says so, or the user otherwise trusts the folder (see
    `imports`). Raises `InputError` where it is not, where the folder does not say what its network is (one of another
    class than this package's that was built in Python), and where the rebuilt network is not the one that was trained.
    """
    path = Path(folder)
    record = RunRecord.read(path)
    if not (path / BEST).is_file():
        raise InputError(f"{path} has no {BEST}: the run has not finished an epoch. Resume it.")
    if record.model is None:
        raise InputError(
            f"{path} does not say what its network is: build it, and load_weights(model, {str(path / BEST)!r})"
        )
    given = trust if isinstance(trust, Trust) else user_trust(trust)
    own = given.of_file(path, [record.model.class_path, record.model.init_args])
    try:
        model = build_from(record.model, f"the model of {path}", own)
    except InputError as error:
        raise InputError(f"{path / CONFIG}, model: {error}") from error.__cause__ or error
    remedy = "Build the one that was trained, and load_weights into it."
    check_rebuilt(model, record.network, record.model.class_path, path, remedy)
    for text in check_weights(path):
        log.warning(text)
    load_weights(model, path / BEST)
    return prepared(model, record.output, record.scale, record.normalise).eval()


def build_from(spec: ModelSpec, where: str, trust: Trust) -> nn.Module:
    """Return the network that a file describes; `where` names the file in what is raised.

    Raises:
        InputError: for an import path that is not followed, before any import, and where building fails.
    """
    path = spec.class_path
    if ":" in path or "." in path:
        if not may_make(follow(path, where, trust), nn.Module, path, trust):
            raise InputError(f"{where}: {path} makes no torch.nn.Module, so it is no model.")
    check_nested(spec.init_args, where, trust, strings=True)
    for name, value in spec.init_args.items():
        check_argument(name, value, path, where, trust)
    return build_model(path, spec.init_args, (), 0, (), ())


def _settings(module: nn.Module) -> str:
    if type(module).__module__.partition(".")[0] == "torch":
        return module.extra_repr()
    named = inspect.signature(type(module).__init__).parameters
    values: dict[str, Any] = {name: vars(module)[name] for name in named if name in vars(module)}
    return str({name: value for name, value in values.items() if isinstance(value, PLAIN)})
