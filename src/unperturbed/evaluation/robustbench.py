"""An outcome in the fields of RobustBench's model_info files (https://github.com/RobustBench/robustbench)."""

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from unperturbed.evaluation.accuracy import SUITES
from unperturbed.findings import Outcome, doubted
from unperturbed.runs.record import RunRecord


def model_info(
    outcome: Outcome,
    *,
    dataset: str,
    architecture: str,
    additional_data: bool | None = None,
    number_forward_passes: int | None = None,
) -> dict[str, Any]:
    """Return RobustBench's fields of a model in its format: percentages and the radius are text.

    Unknown fields are None. `autoattack_acc` is set for the suite `standard` only, to the share that survived;
    `footnote` has the suite, the number of examples, and the number of unknown verdicts.
    """
    standard = outcome.suite == "standard" and outcome.note.startswith(SUITES["standard"].note)
    radius = re.match(r"\w+:(\S+)", outcome.threat)
    return {
        "link": None,
        "name": None,
        "authors": None,
        "additional_data": additional_data,
        "number_forward_passes": number_forward_passes,
        "dataset": dataset,
        "venue": None,
        "architecture": architecture,
        "eps": radius[1] if radius else None,
        "clean_acc": _percent(outcome.clean_accuracy.value),
        "reported": None,
        "autoattack_acc": _percent(outcome.robust_accuracy.value) if standard else None,
        "external": None,
        "unreliable": bool(outcome.doubts) or None,
        "footnote": _footnote(outcome),
    }


def known_of(
    dataset: str, model: nn.Module, description: Mapping[str, Any], training: RunRecord | None
) -> dict[str, Any]:
    """Return what is known of a network for `model_info`.

    Args:
        dataset: the name of the data.
        model: the network.
        description: its class path and arguments, as `describe` gives them.
        training: the record of the run that trained these weights on these data; None: unknown.
    """
    arguments = description.get("init_args", {})
    sizes = [str(arguments[key]) for key in ("depth", "width") if isinstance(arguments.get(key), int)]
    chosen = None if training is None or training.weights else training.chosen
    return {
        "dataset": dataset,
        "architecture": "-".join([type(model).__name__, *sizes]),
        "additional_data": None if chosen is None else chosen.get("extra") is not None,
        "number_forward_passes": None if ":" in str(description["class_path"]) else 1,
    }


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _footnote(outcome: Outcome) -> str:
    version = outcome.environment["unperturbed"]
    unknown = outcome.counts["unknown"]
    undecided = f"; {unknown} of them could not be decided and do not count as robust" if unknown else ""
    robust = f"{outcome.robust_accuracy}{doubted(outcome.doubts)}"
    return (
        f"{outcome.threat}, n={outcome.n}{undecided}; robust {robust} under the suite "
        f"{outcome.suite} of unperturbed {version} (its own implementation: {outcome.note})"
    )
