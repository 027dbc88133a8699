"""The model card of a shared run: metadata of the hub with the results that can be believed, then the report."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from unperturbed.data.names import HUB_SPECS
from unperturbed.findings import Interval
from unperturbed.reports.card import card_of
from unperturbed.results.report import SECTIONS, document_of
from unperturbed.results.sections.audit import no_sign
from unperturbed.results.sections.examples import examples
from unperturbed.results.sections.explanation import explanations
from unperturbed.results.sections.missing import missing
from unperturbed.results.stored import StoredEvaluation, StoredRun

LIBRARY = "unperturbed"
TAGS = ("unperturbed", "adversarial-robustness")
FOLDER = Path("run")
"""The run folder in commands for readers of the card."""
LEFT_OUT = (examples, explanations, missing)
"""Sections of pictures, which are not shared, and of work that is left for the author."""


def hub_card(run: StoredRun, repository: str, license: str | None = None, tags: Sequence[str] = ()) -> str:
    """Return README.md for a repository: metadata in YAML between lines of dashes, then Markdown.

    Evaluations with doubts, and robust accuracies where the audit did not find the network sound, are in the text with
    these doubts, and not in the metadata, which has no room for them.
    """
    metadata = {
        "library_name": LIBRARY,
        "license": license,
        "pipeline_tag": "image-classification" if _is_of_images(run) else "tabular-classification",
        "tags": list(dict.fromkeys((*TAGS, *tags))),
        "datasets": [name] if (name := _dataset(run)[1]) is not None else None,
        "model-index": _model_index(run, repository.partition("/")[2]),
    }
    stated = {key: value for key, value in metadata.items() if value is not None}
    text = yaml.safe_dump(stated, sort_keys=False, allow_unicode=True)
    document = document_of([replace(run, place=FOLDER)], [make for make in SECTIONS if make not in LEFT_OUT])
    return f"---\n{text}---\n\n{card_of(document)}{_use(repository)}"


def _use(repository: str) -> str:
    return (
        "\n## How to use it\n\n"
        f"```\nunperturbed pull {repository} --out {FOLDER}\nunperturbed evaluate {FOLDER} --suite standard\n```\n\n"
        f'```python\nimport unperturbed as un\n\nmodel = un.load_run("hf://{repository}")\n```\n'
    )


def _model_index(run: StoredRun, name: str) -> list[dict[str, Any]] | None:
    """Return the results in the hub's format; None if there are none."""
    results = [_result(run, stored) for stored in run.evaluations if not stored.outcome.doubts]
    return [{"name": name, "results": results}] if results else None


def _result(run: StoredRun, stored: StoredEvaluation) -> dict[str, Any]:
    outcome, (name, identity) = stored.outcome, _dataset(run)
    kind = "image-classification" if _is_of_images(run) else "tabular-classification"
    arguments = {"threat": outcome.threat, "suite": outcome.suite}
    label = f"Robust accuracy under {outcome.threat}, suite {outcome.suite} (upper bound)"
    robust = {"type": "accuracy", "name": label, **_share(outcome.robust_accuracy, arguments)}
    is_sound = run.audit is None or no_sign(run.audit)
    return {
        "task": {"type": kind},
        "dataset": {"type": identity or name, "name": name, "args": {"n": outcome.n, **arguments}},
        "metrics": [
            {"type": "accuracy", "name": "Clean accuracy", **_share(outcome.clean_accuracy)},
            *([robust] if is_sound else []),
        ],
    }


def _share(share: Interval, arguments: dict[str, str] | None = None) -> dict[str, Any]:
    ends = [round(share.low, 6), round(share.high, 6)]
    return {"value": round(share.value, 6), "args": {"n": share.n, "interval_95": ends, **(arguments or {})}}


def _dataset(run: StoredRun) -> tuple[str, str | None]:
    """Return the name of the data and, for data of the hub, their identity there."""
    record = run.record
    if record is None:
        return "unknown", None
    name = record.trained_on.name if record.trained_on is not None else record.data or "unknown"
    place = HUB_SPECS.get(record.data or "", record.data or "").partition("?")[0]
    return name, place if re.fullmatch(r"[\w.-]+/[\w.-]+", place) else None  # a folder is recorded with its whole path


def _is_of_images(run: StoredRun) -> bool:
    record = run.record
    return record is not None and record.trained_on is not None and len(record.trained_on.shape) == 3
