"""Robust accuracy from both sides: certified from below, attacked from above, on the same examples."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from unperturbed.errors import InputError, RunError
from unperturbed.evaluation.certificates import Bar, Certificates
from unperturbed.evaluation.distances import Distances
from unperturbed.evaluation.stored import is_other, read_distances, read_summary, with_examples
from unperturbed.findings import Outcome
from unperturbed.runs.job import JOB
from unperturbed.runs.verify import read_sealed
from unperturbed.threat import Threat

SAME = ("weights", "network", "data")
"""The entries of an environment that certificates and attacks must share."""
SLACK = 1e-4
"""The relative slack in comparisons of bounds and distances, for rounding in float32."""


def bars(certificates: Certificates, attacked: Outcome | Distances) -> tuple[Bar, ...]:
    """Return the bounds on the robust accuracy of the network at each radius of an evaluation or a curve.

    The vote under noise is another classifier, which was not attacked, and is not compared.

    Raises:
        InputError: if the attacks were on another network, other examples or in another norm.
        RunError: if a misclassified point lies nearer to an example than its proven bound, which is a bug.
    """
    mine, theirs = certificates.environment, attacked.environment
    differences = [name for name in SAME if mine[name] != theirs[name]]
    threat = Threat.parse(attacked.threat.split()[0])
    threat.refuse_shares("A comparison with certificates")
    if differences or threat.norm != certificates.threat.partition(":")[0]:
        raise InputError(
            f"The certificates are of {certificates.threat}, the attacks of {attacked.threat}, and they differ in "
            f"{', '.join(differences) or 'the norm'}: certify and attack the same network, examples and norm."
        )
    if certificates.unproven:
        return ()
    _check_law(certificates.examples, _distances_of(attacked))
    if isinstance(attacked, Distances):
        return tuple(Bar(eps, certificates.network(eps), share, attacked.suite) for eps, share in attacked.curve())
    return (Bar(threat.eps, certificates.network(threat.eps), attacked.robust_accuracy, attacked.suite),)


def stored_bars(certificates: Certificates, out: Path) -> tuple[Bar, ...]:
    """Return the bars of all finished evaluations and curves of the same network, examples and norm.

    The search covers `out` and the folders next to it, where commands write them; damaged ones are skipped.
    """
    norm = certificates.threat.partition(":")[0]
    all_bars = list[Bar]()
    for attacked in _stored(certificates, out) if not certificates.unproven else ():
        threat = Threat.parse(attacked.threat.split()[0])
        if threat.norm == norm and threat.shares is None:
            all_bars += bars(certificates, attacked)
    return tuple(sorted(all_bars, key=lambda bar: (bar.eps, bar.attacked.value)))


def _stored(certificates: Certificates, out: Path) -> Iterator[Outcome | Distances]:
    for path in sorted({*out.glob(f"*/{JOB}"), *out.glob(f"*/*/{JOB}"), *out.parent.glob(f"*/*/{JOB}")}):
        is_of, summary = read_sealed(path).get("is_of", {}), path.parent.with_name(f"{path.parent.name}.json")
        if "undescribed" in is_of or any(is_of.get(name) != certificates.environment[name] for name in SAME):
            continue
        try:
            if path.parent.name.startswith("curve-"):
                yield read_distances(summary)
            elif not is_other(path.parent):
                yield with_examples(summary, read_summary(summary))
        except (InputError, OSError):
            continue


def _distances_of(attacked: Outcome | Distances) -> Iterable[tuple[int, float]]:
    """Yield the ids of examples with a misclassified point, and its distance."""
    table = attacked.examples
    if isinstance(attacked, Distances):
        yield from zip(table["id"], table["distance"], strict=True)
        return
    for name, verdict, distance in zip(table["id"], table["verdict"], table["distance"], strict=True):
        if verdict in ("misclassified", "broken"):
            yield name, 0.0 if verdict == "misclassified" else distance


def _check_law(certified: Mapping[str, list[Any]], distances: Iterable[tuple[int, float]]) -> None:
    """Check that no misclassified point lies within a proven bound; raises RunError."""
    columns = (certified[name] for name in ("id", "proven", "rounding"))
    bounds = {name: (bound, rounding) for name, bound, rounding in zip(*columns, strict=True)}
    for name, distance in distances:
        bound, rounding = bounds[name]
        if bound > distance * (1 + SLACK) + rounding:
            raise RunError(
                f"Example {name} is proved robust up to {bound:.6g}, and an attack has found a misclassified point at "
                f"{distance:.6g}: one of the two is wrong. This is an error of the program: please report it."
            )
