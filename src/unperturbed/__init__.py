"""Train PyTorch classifiers that hold up under worst-case perturbations, and know whether they do."""

import sys

if sys.argv[:1] == ["-m"] and {"unperturbed", "-munperturbed"} & {*sys.orig_argv} and not sys.flags.safe_path:
    del sys.path[0]  # `python -m unperturbed` puts the current folder first: a file in it would shadow any other module

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unperturbed import architectures as architectures
    from unperturbed import attacks as attacks
    from unperturbed import maximise as maximise
    from unperturbed import methods as methods
    from unperturbed.attacks.gradient import Suite as Suite
    from unperturbed.data.sources import load_data as load_data
    from unperturbed.errors import InputError as InputError
    from unperturbed.errors import RunError as RunError
    from unperturbed.evaluation.accuracy import evaluate as evaluate
    from unperturbed.evaluation.attack import attack as attack
    from unperturbed.evaluation.certify import certify as certify
    from unperturbed.evaluation.comparison import PairedComparison as PairedComparison
    from unperturbed.evaluation.comparison import compare as compare
    from unperturbed.evaluation.corruptions import corruption_accuracy as corruption_accuracy
    from unperturbed.evaluation.curve import minimum_norm as minimum_norm
    from unperturbed.evaluation.probable import probable_accuracy as probable_accuracy
    from unperturbed.evaluation.quantize import quantize as quantize
    from unperturbed.evaluation.run_comparison import compare_runs as compare_runs
    from unperturbed.evaluation.threats import evaluate_threats as evaluate_threats
    from unperturbed.evaluation.transfer import transfer as transfer
    from unperturbed.evaluation.union import union as union
    from unperturbed.examinations.audit import audit as audit
    from unperturbed.examinations.explain import explain as explain
    from unperturbed.examinations.explain_runs import explain_runs as explain_runs
    from unperturbed.examinations.preflight import doctor as doctor
    from unperturbed.examinations.runner import diagnose as diagnose
    from unperturbed.examinations.several import diagnose_runs as diagnose_runs
    from unperturbed.findings import Outcome as Outcome
    from unperturbed.findings import Transfer as Transfer
    from unperturbed.hub.pull import pull as pull
    from unperturbed.methods.at import AT as AT
    from unperturbed.networks.settings import Tuning as Tuning
    from unperturbed.results.accuracies import accuracies as accuracies
    from unperturbed.results.adversarial import AdversarialSet as AdversarialSet
    from unperturbed.results.adversarial import adversarial_set as adversarial_set
    from unperturbed.results.push import push as push
    from unperturbed.results.report import Report as Report
    from unperturbed.results.report import report as report
    from unperturbed.specs.model_for import model_for as model_for
    from unperturbed.sweeps.ranges import Range as Range
    from unperturbed.sweeps.sweep import sweep as sweep
    from unperturbed.sweeps.table import Sweep as Sweep
    from unperturbed.sweeps.tpe import TPE as TPE
    from unperturbed.threat import Threat as Threat
    from unperturbed.training.loop import train as train
    from unperturbed.training.recipe import Recipe as Recipe
    from unperturbed.training.robust_loss import robust_loss as robust_loss
    from unperturbed.training.run import Run as Run
    from unperturbed.training.trained import Trained as Trained
    from unperturbed.weights.files import build_model as build_model
    from unperturbed.weights.files import load_weights as load_weights
    from unperturbed.weights.files import save_weights as save_weights
    from unperturbed.weights.rebuild import load_run as load_run

    __version__: str

_HOMES = {
    "AT": "methods.at",
    "accuracies": "results.accuracies",
    "AdversarialSet": "results.adversarial",
    "adversarial_set": "results.adversarial",
    "attack": "evaluation.attack",
    "audit": "examinations.audit",
    "build_model": "weights.files",
    "certify": "evaluation.certify",
    "compare": "evaluation.comparison",
    "compare_runs": "evaluation.run_comparison",
    "corruption_accuracy": "evaluation.corruptions",
    "diagnose": "examinations.runner",
    "diagnose_runs": "examinations.several",
    "doctor": "examinations.preflight",
    "evaluate": "evaluation.accuracy",
    "evaluate_threats": "evaluation.threats",
    "explain": "examinations.explain",
    "explain_runs": "examinations.explain_runs",
    "InputError": "errors",
    "load_data": "data.sources",
    "load_run": "weights.rebuild",
    "load_weights": "weights.files",
    "minimum_norm": "evaluation.curve",
    "model_for": "specs.model_for",
    "Outcome": "findings",
    "PairedComparison": "evaluation.comparison",
    "probable_accuracy": "evaluation.probable",
    "pull": "hub.pull",
    "push": "results.push",
    "quantize": "evaluation.quantize",
    "Range": "sweeps.ranges",
    "Recipe": "training.recipe",
    "Report": "results.report",
    "report": "results.report",
    "robust_loss": "training.robust_loss",
    "Run": "training.run",
    "RunError": "errors",
    "save_weights": "weights.files",
    "Suite": "attacks.gradient",
    "Sweep": "sweeps.table",
    "sweep": "sweeps.sweep",
    "Threat": "threat",
    "TPE": "sweeps.tpe",
    "train": "training.loop",
    "Trained": "training.trained",
    "Transfer": "findings",
    "transfer": "evaluation.transfer",
    "Tuning": "networks.settings",
    "union": "evaluation.union",
}
"""Public names, and the modules that they are in."""
_PACKAGES = ("architectures", "attacks", "maximise", "methods")
"""Packages with a table of contents."""
__all__ = [
    "__version__",
    "AT",
    "AdversarialSet",
    "InputError",
    "Outcome",
    "PairedComparison",
    "Range",
    "Recipe",
    "Report",
    "Run",
    "RunError",
    "Suite",
    "Sweep",
    "TPE",
    "Threat",
    "Trained",
    "Transfer",
    "Tuning",
    "accuracies",
    "adversarial_set",
    "architectures",
    "attack",
    "attacks",
    "audit",
    "build_model",
    "certify",
    "compare",
    "compare_runs",
    "corruption_accuracy",
    "diagnose",
    "diagnose_runs",
    "doctor",
    "evaluate",
    "evaluate_threats",
    "explain",
    "explain_runs",
    "load_data",
    "load_run",
    "load_weights",
    "maximise",
    "methods",
    "minimum_norm",
    "model_for",
    "probable_accuracy",
    "pull",
    "push",
    "quantize",
    "report",
    "robust_loss",
    "save_weights",
    "sweep",
    "train",
    "transfer",
    "union",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the command line can answer before PyTorch is loaded."""
    if name == "__version__":
        return version("unperturbed")
    if name in _PACKAGES:
        return import_module(f"unperturbed.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"unperturbed.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
