"""Train PyTorch classifiers that hold up under worst-case perturbations, and know whether they do."""

import sys

if sys.argv[:1] == ["-m"] and {"unperturbed", "-munperturbed"} & {*sys.orig_argv} and not sys.flags.safe_path:
    del sys.path[0]  # `python -m unperturbed` puts the current folder there: a file in it would shadow any other module

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unperturbed.data.sources import load_data as load_data
    from unperturbed.evaluation.accuracy import evaluate as evaluate
    from unperturbed.evaluation.curve import minimum_norm as minimum_norm
    from unperturbed.examinations.runner import diagnose as diagnose
    from unperturbed.methods.at import AT as AT
    from unperturbed.threat import Threat as Threat
    from unperturbed.training.loop import train as train
    from unperturbed.training.recipe import Recipe as Recipe
    from unperturbed.weights.files import build_model as build_model
    from unperturbed.weights.files import load_weights as load_weights
    from unperturbed.weights.rebuild import load_run as load_run

_HOMES = {
    "AT": "methods.at",
    "Recipe": "training.recipe",
    "Threat": "threat",
    "build_model": "weights.files",
    "diagnose": "examinations.runner",
    "evaluate": "evaluation.accuracy",
    "load_data": "data.sources",
    "load_run": "weights.rebuild",
    "load_weights": "weights.files",
    "minimum_norm": "evaluation.curve",
    "train": "training.loop",
}
__all__ = [
    "AT",
    "Recipe",
    "Threat",
    "build_model",
    "diagnose",
    "evaluate",
    "load_data",
    "load_run",
    "load_weights",
    "minimum_norm",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the command line can answer before PyTorch is loaded."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"unperturbed.{_HOMES[name]}"), name)
