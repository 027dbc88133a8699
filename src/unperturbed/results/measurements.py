"""Stored measurements besides evaluations and curves.

These are unions, certificates, random perturbations, corruptions and transfer.

Each is compared with its table of examples, or with what it is made of; a contradiction is an error.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unperturbed.errors import InputError
from unperturbed.evaluation.certificates import Bar, Certificates
from unperturbed.evaluation.corruptions import UnderCorruptions
from unperturbed.evaluation.probable import Probable
from unperturbed.evaluation.stored import check_job, stored_table
from unperturbed.evaluation.union import Union, union
from unperturbed.findings import Interval, Outcome, Transfer
from unperturbed.runs.verify import read_verified
from unperturbed.statistics.intervals import share_within

SLACK = 1e-9
TRANSFER = "transfer.json"


def read_union(path: Path, content: Mapping[str, Any], outcomes: Sequence[Outcome]) -> Union:
    """Return the worst case over threats, computed again from the stored evaluations that the summary names.

    Raises:
        InputError: if one of them is missing or damaged, or the summary contradicts them.
    """
    members = list[Outcome]()
    for entry in content["threats"]:
        kind = (str(entry["suite"]), str(entry["threat"]), str(entry["environment"]["data"]))
        stored = [one for one in outcomes if (one.suite, one.threat, one.environment["data"]) == kind and one.examples]
        if not stored:
            raise InputError(f"{path} needs the evaluation under {kind[1]}, which is missing or damaged: repeat it.")
        members.append(stored[0])
    found = union(members)
    _check(path, "robust accuracy", float(content["robust_accuracy"]), found.robust_accuracy.value)
    return found


def read_certificates(path: Path, content: Mapping[str, Any]) -> Certificates:
    """Return the certificates of a summary and its verified table; raises InputError if they contradict each other."""
    n = int(content["n"])
    certificates = Certificates(
        note=str(content["note"]),
        threat=str(content["threat"]),
        n=n,
        sigma=float(content["sigma"]),
        draws=int(content["draws"]),
        selection_draws=int(content["selection_draws"]),
        alpha=float(content["alpha"]),
        radii=tuple(float(row["eps"]) for row in content["certified"]),
        clean_accuracy=_interval(content["clean_accuracy"], content["clean_interval"], n),
        counts={str(answer): int(count) for answer, count in content["counts"].items()},
        unproven=str(content["unproven"]),
        doubts=tuple(map(str, content["doubts"])),
        bars=tuple(_bar(entry, n) for entry in content["bars"]),
        seconds=float(content["seconds"]),
        warnings=tuple(map(str, content["warnings"])),
        environment=dict(content["environment"]),
        examples=stored_table(path, n),
    )
    settings = {name: content[name] for name in ("sigma", "draws", "selection_draws", "alpha")}
    check_job(path, {**certificates.environment, **settings})
    for row in content["certified"]:
        eps = float(row["eps"])
        _check(path, f"smoothed at {eps:g}", float(row["smoothed_accuracy"]), certificates.smoothed(eps).value)
        if row["network_accuracy"] is not None:
            _check(path, f"network at {eps:g}", float(row["network_accuracy"]), certificates.network(eps).value)
    return certificates


def read_probable(path: Path, content: Mapping[str, Any]) -> Probable:
    """Return the accuracy under random perturbations of a summary; raises InputError if its table contradicts it."""
    n, draws = int(content["n"]), int(content["draws"])
    probable = Probable(
        note=str(content["note"]),
        threat=str(content["threat"]),
        n=n,
        draws=draws,
        clean_accuracy=_interval(content["clean_accuracy"], content["clean_interval"], n),
        mean_accuracy=_interval(content["mean_accuracy"], content["mean_interval"], n),
        accuracy={
            float(row["rho"]): _interval(row["probable_accuracy"], row["interval"], n) for row in content["probable"]
        },
        unknown={float(row["rho"]): int(row["unknown"]) for row in content["probable"]},
        seconds=float(content["seconds"]),
        warnings=tuple(map(str, content["warnings"])),
        environment=dict(content["environment"]),
        examples=stored_table(path, n),
    )
    check_job(path, {**probable.environment, "threat": probable.threat, "draws": draws})
    table = probable.examples
    _check(path, "mean over draws", probable.mean_accuracy.value, sum(table["right"]) / (draws * n))
    for rho, share in probable.accuracy.items():
        true = share_within(table["wrong"], table["unknown"], draws, rho)
        _check(path, f"share at rho {rho:g}", share.value, true.value)
    return probable


def read_corruptions(path: Path, content: Mapping[str, Any]) -> UnderCorruptions:
    """Return the accuracy under corruptions of a summary; raises InputError if its table contradicts it."""
    n = int(content["n"])
    found = UnderCorruptions(
        note=str(content["note"]),
        threat=str(content["threat"]),
        n=n,
        clean_accuracy=_interval(content["clean_accuracy"], content["clean_interval"], n),
        mean_accuracy=_interval(content["corrupted_accuracy"], content["corrupted_interval"], n),
        accuracy={
            str(row["corruption"]): tuple(
                _interval(value, ends, n) for value, ends in zip(row["accuracy"], row["intervals"], strict=True)
            )
            for row in content["corruptions"]
        },
        seconds=float(content["seconds"]),
        warnings=tuple(map(str, content["warnings"])),
        environment=dict(content["environment"]),
        examples=stored_table(path, n),
    )
    check_job(path, dict(found.environment))
    columns = [f"{name}-{level}" for name, shares in found.accuracy.items() for level in range(1, len(shares) + 1)]
    correct = {column: sum(margin < 0 for margin in found.examples[column]) for column in ("clean", *columns)}
    _check(path, "clean accuracy", found.clean_accuracy.value, correct["clean"] / n)
    for name, shares in found.accuracy.items():
        for level, share in enumerate(shares, 1):
            _check(path, f"{name} at severity {level}", share.value, correct[f"{name}-{level}"] / n)
    mean = sum(correct[column] for column in columns) / (n * len(columns))
    _check(path, "mean over corruptions", found.mean_accuracy.value, mean)
    return found


def read_transfer(path: Path) -> Transfer:
    """Return the matrix of a summary, without its tables; raises InputError if it contradicts itself."""
    content = read_verified(path)
    names, n = tuple(map(str, content["models"])), int(content["n"])

    def row(values: Sequence[float], ends: Sequence[Sequence[float]]) -> tuple[Interval, ...]:
        if len(values) != len(names):
            raise InputError(f"{path} has {len(values)} accuracies for {len(names)} models: repeat the command.")
        return tuple(_interval(value, pair, n) for value, pair in zip(values, ends, strict=True))

    matrix = Transfer(
        names=names,
        suite=str(content["suite"]),
        note=str(content["note"]),
        threat=str(content["threat"]),
        n=n,
        clean_accuracy=row(content["clean_accuracy"], content["clean_interval"]),
        accuracy=tuple(
            row(values, ends) for values, ends in zip(content["accuracy"], content["interval"], strict=True)
        ),
        worst=row(content["worst_accuracy"], content["worst_interval"]),
        seconds=float(content["seconds"]),
        warnings=tuple(map(str, content["warnings"])),
        environment=dict(content["environment"]),
        examples={},
        doubts={str(name): tuple(map(str, texts)) for name, texts in content["doubts"].items()},
    )
    if len(matrix.accuracy) != len(names):
        raise InputError(f"{path} has {len(matrix.accuracy)} rows for {len(names)} models: repeat the command.")
    for number, name in enumerate(names):
        least = min(shares[number].value for shares in matrix.accuracy)
        if matrix.worst[number].value > least + SLACK:
            raise InputError(
                f"{path} says {matrix.worst[number].value} in the worst case for {name}, but {least} on the points of "
                "one model: it was changed. Repeat the command."
            )
    return matrix


def _bar(entry: Mapping[str, Any], n: int) -> Bar:
    certified = _interval(entry["certified"], entry["certified_interval"], n)
    return Bar(
        float(entry["eps"]), certified, _interval(entry["attacked"], entry["attacked_interval"], n), str(entry["suite"])
    )


def _interval(value: Any, ends: Sequence[Any], n: int) -> Interval:
    low, high = ends
    return Interval(float(value), float(low), float(high), n)


def _check(path: Path, noun: str, stated: float, true: float) -> None:
    if abs(stated - true) > SLACK:
        raise InputError(
            f"{path} says {stated} ({noun}), but its examples {true}: it was changed. Repeat the command with "
            "--overwrite."
        )
