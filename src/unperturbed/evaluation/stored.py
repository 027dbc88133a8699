"""Finished evaluations read from a run folder."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

from unperturbed.checks import is_file_name
from unperturbed.errors import InputError
from unperturbed.evaluation.carry import with_carried
from unperturbed.evaluation.checked_model import doubts_in
from unperturbed.evaluation.distances import Distances, SearchRecord
from unperturbed.evaluation.evidence import Doubt, doubts_of, total
from unperturbed.evaluation.outputs import FLAT
from unperturbed.evaluation.parts import Part
from unperturbed.evaluation.randomised import RANDOM
from unperturbed.evaluation.store import Store
from unperturbed.findings import AttackRecord, GateRecord, Interval, Outcome, Verdict
from unperturbed.runs.job import JOB
from unperturbed.runs.verify import read_sealed, read_verified
from unperturbed.statistics.intervals import wilson

KINDS = {"id": int, "label": int, "verdict": str}
"""Columns of tables of examples, with the type of their values."""
NEEDED = ("weights", "network", "data", "attacks")
"""The entries of an environment that comparisons of evaluations need."""
REMEDY = "Repeat the evaluation with --overwrite."


def stored_evaluations(run: Path) -> dict[Path, Outcome]:
    """Return the finished evaluations below a run folder by the path of their summary, without their examples.

    Raises:
        InputError: if the summary of an evaluation is damaged.
    """
    jobs = [job for job in sorted((run / "evaluation").rglob(JOB)) if not is_part(job.parent)]
    summaries = [job.parent.with_name(f"{job.parent.name}.json") for job in jobs if not is_other(job.parent)]
    return {path: read_summary(path) for path in summaries if path.is_file()}


def with_examples(summary: Path, outcome: Outcome) -> Outcome:
    """Return an evaluation with its table of examples, read from the verified parts in the folder next to its summary.

    Raises:
        InputError: if a part is missing or damaged, or the summary contradicts the table or the job.
    """
    check_job(summary, {**outcome.environment, "threat": outcome.threat, "suite": outcome.suite})
    parts, store = stored_parts(summary, outcome.n), Store(summary.with_suffix(""))
    columns = _table(summary, parts)
    check_doubts(summary, outcome.doubts, outcome.warnings, parts)
    counts = {verdict: columns["verdict"].count(verdict) for verdict in outcome.counts}
    carried = with_carried(replace(outcome, counts=counts, examples=columns), store)
    counted = {verdict: carried.examples["verdict"].count(verdict) for verdict in outcome.counts}
    margins = carried.examples["clean_margin"]
    correct, unclear = sum(margin < 0 for margin in margins), sum(margin != margin for margin in margins)
    stated = (dict(outcome.counts), outcome.clean_accuracy, outcome.robust_accuracy)
    true = (
        counted,
        wilson(correct, len(margins), correct + unclear),
        wilson(counted["survived"], len(margins), counted["survived"] + counted["unknown"]),
    )
    if stated != true and "draws" not in columns:
        raise InputError(
            f"{summary} says {_in_words(stated)}, but its table of examples {_in_words(true)}: it was changed. {REMEDY}"
        )
    if "draws" not in columns and (wrong := _wrong_attack(outcome, correct, unclear)):
        raise InputError(f"{summary} says that {wrong}, but its table of examples does not: it was changed. {REMEDY}")
    return replace(outcome, examples=carried.examples)


def _wrong_attack(outcome: Outcome, correct: int, unclear: int) -> str:
    """Return the record of an attack that contradicts the verdicts, in words; "" if all agree.

    Each attack starts from the examples that the earlier ones left. Those with unclear clean margins count as left in
    the records of points of other sources only.
    """
    left, broken, n = [correct / outcome.n], 0, outcome.n
    for attack in outcome.attacks:
        broken += attack.broken
        fits = 0 <= attack.broken <= broken <= outcome.counts["broken"]
        left = [share - attack.broken / n for share in (*left, left[0] + unclear / n)] if fits else []
        left = [share for share in left if abs(share - attack.robust_after) < 1e-9]
        if not left:
            return f"{attack.name} broke {attack.broken} examples and left {attack.robust_after:.1%}"
    return ""


def check_job(summary: Path, stated: Mapping[str, Any]) -> None:
    """Raise InputError if a summary states another threat, suite or setting than the sealed job in its folder.

    `stated` has entries of the job's identity by name; other entries are not compared.
    """
    is_of = read_sealed(summary.with_suffix("") / JOB).get("is_of")
    identity: dict[str, Any] = dict(is_of) if isinstance(is_of, Mapping) else {}
    for name, value in stated.items():
        if name in identity and identity[name] != value:
            said, true = f"{value!r:.80}", f"{identity[name]!r:.80}"
            raise InputError(f"{summary} says {name} {said}, but its {JOB} {true}: it was changed. {REMEDY}")


def check_doubts(summary: Path, doubts: Sequence[str], warnings: Sequence[str], parts: Sequence[Part]) -> None:
    """Raise InputError if a summary lacks a warning of a part, or a doubt that follows from its parts and warnings.

    Doubts that need the network again are not recomputed; the hash of the summary guards them.
    """
    n = sum(len(next(iter(part.table.values()))) for part in parts)
    flat = any(text.startswith(FLAT) for text in warnings)
    batch_size = read_sealed(summary.with_suffix("") / JOB)["batch_size"]
    implied = [
        *doubts_of(total([part.evidence for part in parts]), n, flat),
        *doubts_in(warnings, batch_size),
        *(Doubt("the network draws random numbers", text) for text in warnings if text.startswith(RANDOM)),
    ]
    texts = [*(text for part in parts for text in part.warnings), *(doubt.text for doubt in implied)]
    lost = [text for text in texts if text not in warnings]
    lost += [doubt.short for doubt in implied if doubt.short and doubt.short not in doubts]
    if lost:
        raise InputError(
            f"{summary} lacks the warning {lost[0]!r:.160}, which follows from its parts: it was changed. {REMEDY}"
        )


def stored_table(summary: Path, n: int) -> dict[str, list[Any]]:
    """Return the table of n examples in the verified parts of a measurement; raises InputError where one is damaged."""
    return _table(summary, stored_parts(summary, n))


def stored_parts(summary: Path, n: int) -> list[Part]:
    """Return the verified parts of a measurement of n examples; raises InputError where one is missing or damaged."""
    store = Store(summary.with_suffix(""))
    block = read_sealed(summary.with_suffix("") / JOB).get("block", 0)
    numbers = range(-(-n // block)) if isinstance(block, int) and block > 0 else range(0)
    if not numbers or not all(store.is_finished(number) for number in numbers):
        raise InputError(f"Parts of {summary} are missing or damaged. {REMEDY}")
    try:
        return [store.read(number) for number in numbers]
    except (LookupError, TypeError, AttributeError) as error:  # its checksum is right, but it is no part of ours
        raise InputError(f"A part of {summary} does not fit ({error}). {REMEDY}") from error


def _table(summary: Path, parts: Sequence[Part]) -> dict[str, list[Any]]:
    """Return the tables of the parts as one, with typed values."""
    tables = [part.table for part in parts]
    try:
        columns = {name: [value for table in tables for value in table[name]] for name in tables[0]}
    except (LookupError, TypeError, AttributeError) as error:  # its checksum is right, but it is no table of ours
        raise InputError(f"The table of {summary} does not fit ({error}). {REMEDY}") from error
    for name, kind in KINDS.items():
        if wrong := [value for value in columns.get(name, ()) if not _is_kind(value, kind)]:
            raise InputError(f"The table of {summary} has the {name} {wrong[0]!r:.80}, which does not fit. {REMEDY}")
    return columns


def _is_kind(value: Any, kind: type) -> bool:
    within = not isinstance(value, int) or 0 <= value < 2**63
    return within and type(value) is kind


def _in_words(numbers: tuple[Mapping[Verdict, int], Interval, Interval]) -> str:
    counts, clean, robust = numbers
    return f"{', '.join(f'{count} {verdict}' for verdict, count in counts.items())}, clean {clean}, robust {robust}"


def is_other(folder: Path) -> bool:
    """Tell whether a folder holds distances, certificates, a matrix, counts of draws, or corruptions."""
    return folder.name.startswith(("curve-", "certify-")) or folder.name in ("transfer", "probable", "corruptions")


def is_part(path: Path) -> bool:
    """Tell whether a file or folder lies in the folder of an evaluation, which has its results."""
    return any((parent / JOB).exists() for parent in path.parents)


def read_summary(path: Path) -> Outcome:
    """Return the outcome of a summary, without its examples; raises InputError if it is damaged."""
    fields = read_verified(path)
    try:
        n = int(fields["n"])
        (clean_low, clean_high), (low, high) = fields["clean_interval"], fields["interval"]
        return Outcome(
            suite=_name(fields["suite"]),
            note=str(fields["note"]),
            threat=str(fields["threat"]),
            n=n,
            clean_accuracy=Interval(float(fields["clean_accuracy"]), float(clean_low), float(clean_high), n),
            robust_accuracy=Interval(float(fields["robust_accuracy"]), float(low), float(high), n),
            counts={name: int(fields["counts"][name]) for name in ("misclassified", "broken", "survived", "unknown")},
            attacks=tuple(map(_attack, fields["attacks"])),
            ties=int(fields["ties"]),
            unverified=int(fields["unverified"]),
            seconds=float(fields["seconds"]),
            warnings=_texts(fields["warnings"]),
            environment=dict(fields["environment"]) | {name: _text(fields["environment"][name]) for name in NEEDED},
            examples={},
            doubts=_texts(fields["doubts"]),
            gate=None if fields.get("gate") is None else _gate(fields["gate"]),
        )
    except KeyError as error:
        raise InputError(f"{path} has no {error.args[0]!r}. {REMEDY}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path} holds a value that does not fit ({error}). {REMEDY}") from error


def read_distances(path: Path) -> Distances:
    """Return the distances that a summary and its table describe; raises InputError where one is damaged."""
    given = read_verified(path)
    try:
        n, radii = int(given["n"]), tuple(float(entry["eps"]) for entry in given["curve"])
        low, high = given["clean_interval"]
        found = Distances(
            suite=str(given["suite"]),
            note=str(given["note"]),
            threat=str(given["threat"]),
            eps=max(radii),
            radii=radii,
            n=n,
            clean_accuracy=Interval(float(given["clean_accuracy"]), float(low), float(high), n),
            counts={name: int(given["counts"][name]) for name in ("misclassified", "broken", "survived", "unknown")},
            searches=tuple(SearchRecord(**record) for record in given["attacks"]),
            seconds=float(given["seconds"]),
            warnings=_texts(given["warnings"]),
            environment=dict(given["environment"]),
            examples=_table(path, parts := stored_parts(path, n)),
            doubts=_texts(given["doubts"]),
        )
        check_doubts(path, found.doubts, found.warnings, parts)
        said = {float(entry["eps"]): float(entry["robust_accuracy"]) for entry in given["curve"]}
        check_job(path, {**found.environment, "threat": found.threat, "suite": found.suite})
    except KeyError as error:
        raise InputError(f"{path} has no {error.args[0]!r}. {REMEDY}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path} holds a value that does not fit ({error}). {REMEDY}") from error
    if any(abs(found.at(eps).value - share) > 1e-9 for eps, share in said.items()):
        raise InputError(f"{path} says something else than its table of examples: it was changed. {REMEDY}")
    return found


def _attack(fields: Any) -> AttackRecord:
    """Return the record of an attack with typed values; raises errors that `read_summary` catches."""
    kinds = get_type_hints(AttackRecord)
    return AttackRecord(**{name: kind(fields[name]) for name, kind in kinds.items()})


def _gate(value: Any) -> GateRecord:
    """Return the record of a gate with each value in its type; raises what `read_summary` catches."""
    numbers, estimate, half_width = ("survivors", "sampled", "broken"), value["estimate"], value.get("half_width")
    ends = {name: float(estimate[name]) for name in ("value", "low", "high")}
    return GateRecord(
        suite=_text(value["suite"]),
        reason=_text(value["reason"]),
        estimate=Interval(**ends, n=int(estimate["n"])),
        half_width=None if half_width is None else float(half_width),
        **{name: int(value[name]) for name in numbers},
    )


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.80} is no list of texts")
    return tuple(map(_text, value))


def _name(value: Any) -> str:
    """Return the name of a suite, which is also that of the folder with the results: no path to another one."""
    if not is_file_name(_text(value)):
        raise ValueError(f"{value!r:.80} is no name of a suite")
    return _text(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is no text")
    return value
