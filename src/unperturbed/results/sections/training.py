"""The training of each run, and the commands that repeat it."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from unperturbed.findings import Outcome
from unperturbed.reports.document import Alert, Block, Code, Paragraph, Part, Section, Table, section
from unperturbed.results.stored import StoredRun
from unperturbed.runs.record import plain
from unperturbed.suites.by_name import SUITES, UNCHECKED


def training(runs: Sequence[StoredRun]) -> Section | None:
    """Return the section, with a part for each run with a readable record."""
    return section("Training", [Part(run.name if len(runs) > 1 else "", _blocks(run)) for run in runs])


def _blocks(run: StoredRun) -> tuple[Block, ...]:
    record = run.record
    if record is None:
        return ()
    blocks: list[Block] = [Table("What was trained", ("setting", "value"), tuple(_facts(run)))]
    conclusions = [str(text) for text in run.result.get("conclusions") or ()]
    blocks += [Paragraph(text) for text in conclusions]
    warnings = tuple(str(text) for text in run.result.get("warnings") or ())
    if warnings:
        blocks.append(Alert("Warnings of the training", warnings))
    if record.recipe is not None:
        blocks.append(Code("How to repeat it", _commands(run)))
    if run.config:
        blocks.append(Code("config.yaml", run.config, folded=True))
    return tuple(blocks)


def _facts(run: StoredRun) -> list[tuple[str, str]]:
    record, result = run.record, run.result
    assert record is not None
    trained_on, network, recipe = record.trained_on, record.network, record.recipe or {}
    model = "" if record.model is None else _tree(plain(record.model))
    rows = [
        ("data", record.data or (trained_on.name if trained_on is not None else "")),
        (
            "training examples",
            "" if trained_on is None else f"{trained_on.examples:,} of shape {_shape(trained_on.shape)}",
        ),
        ("classes", ", ".join(record.classes or ())),
        ("model", model or (network.class_path if network is not None else "")),
        ("weights", f"{network.parameters:,}" if network is not None else ""),
        ("method", _tree(record.method)),
        ("threat in training", record.threat),
        ("epochs", _epochs(recipe, result)),
        ("seed", str(recipe.get("seed", ""))),
        ("first weights", record.weights or ""),
        ("training time", _minutes(result.get("seconds"))),
        ("best epoch", str(result.get("best_epoch", ""))),
        ("version", record.unperturbed or ""),
    ]
    return [(name, text) for name, text in rows if text]


def _tree(value: Any) -> str:
    """Return a class with its arguments as one line, such as `at(maximiser=pgd(steps=7))`."""
    if isinstance(value, Mapping) and "class_path" in value:
        name = str(value["class_path"]).rpartition(".")[2]
        arguments = value.get("init_args") or {}
        inside = ", ".join(f"{key}={_tree(part)}" for key, part in arguments.items() if part is not None)
        return f"{name}({inside})" if inside else name
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_tree, value))}]"
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _epochs(recipe: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    planned, finished = recipe.get("epochs"), result.get("epochs")
    if planned is None:
        return ""
    if finished is None:
        return f"{planned} planned; the run has not ended"
    return str(finished) if finished == planned else f"{finished} of {planned}"


def _minutes(seconds: Any) -> str:
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return ""
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _commands(run: StoredRun) -> str:
    folder = run.place or run.folder
    repetition = shlex.quote(f"{folder}-again")
    lines = [f"unperturbed train --config {shlex.quote(str(folder / 'config.yaml'))} --out {repetition}"]
    if run.headline is not None:
        outcome = run.headline.outcome
        suite, threat = shlex.quote(outcome.suite.removesuffix(UNCHECKED)), shlex.quote(_threat(outcome.threat))
        examples = selected(run.headline.path.parent.name)
        check = _check_of_survivors(outcome)
        lines.append(f"unperturbed evaluate {repetition} --suite {suite} --threat {threat}{examples}{check}")
    return "\n".join(lines)


def _check_of_survivors(outcome: Outcome) -> str:
    """Return the options with which an evaluation checked its survivors by a stronger suite, or did not."""
    if outcome.gate is not None:
        half_width = outcome.gate.half_width
        return "" if half_width is None else f" --estimate {100 * half_width:g}"
    suite = SUITES.get(outcome.suite.removesuffix(UNCHECKED))
    has_gate = suite is not None and suite.gate is not None
    return " --no-gate" if has_gate and outcome.counts["survived"] else ""


def selected(folder: str) -> str:
    """Return the options that select the examples of an evaluation, from the name of its folder."""
    match = re.search(r"(?:^|-)(first|stratified|random)-(\d+)(?:-seed-(\d+))?(?:-|$)", folder)
    if match is None:
        return ""
    return f" --examples {match[1]}:{match[2]}" + (f" --examples-seed {match[3]}" if match[3] else "")


def _threat(text: str) -> str:
    """Return the norm and radius of a threat's text, without its bounds."""
    return text.split()[0] if text.split() else text
