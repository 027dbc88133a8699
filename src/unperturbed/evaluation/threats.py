"""Robust accuracy at several radii, or under several threat sets, of one network on the same examples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from unperturbed.attacks.gradient import Suite
from unperturbed.checks import COUNT, SEED, checked
from unperturbed.engines.group import group, meet
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.carry import keep, over_smaller_radii, points_between, with_points
from unperturbed.evaluation.checked_model import measured_split
from unperturbed.findings import Outcome, Progress, silent
from unperturbed.networks.logits import Output
from unperturbed.threat import Threat


@checked(seed=SEED, batch_size=COUNT)
def evaluate_threats(
    model: nn.Module,
    data: Any,
    threats: Sequence[Threat],
    suite: str | Suite = "pgd",
    *,
    out: Path | str | Sequence[Path | str] | None = None,
    overwrite: bool = False,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    precision: Literal["auto", "32"] = "auto",
    output: Output = None,
    progress: Progress = silent,
) -> tuple[Outcome, ...]:
    """Return the outcome under each threat set; a point found in one counts in all the others that it lies in.

    So the robust accuracy never rises with the radius: what breaks in a small ball is broken in the larger ones, where
    long steps may jump over the point. `attack` in the table says which attack broke an example, and under which
    threat.

    Args:
        model: as for `evaluate`, and so are data, suite, overwrite, seed, batch_size, precision and progress.
        data: the examples, the same for all.
        threats: at least one, each once.
        suite: the same for all.
        out: a folder, in which each threat has its own; or a folder for each.
        overwrite: replace other evaluations.
        seed: of the attacks' random starts.
        batch_size: examples that the network sees at a time.
        precision: of the searches.
        output: as for `evaluate`.
        progress: as for `evaluate`, with the threat named.

    Raises:
        InputError: as `evaluate` does, and where no threat is given, or one twice.
    """
    names = [str(threat) for threat in threats]
    if not names or len(set(names)) < len(names):
        raise InputError(f"The threats are {', '.join(names) or 'none'}: give at least one, each once.")
    folders = _folders(out, threats)
    outcomes = list[Outcome]()
    for number, threat in enumerate(threats):

        def named(done: float, total: float, text: str, name: str = names[number]) -> None:
            progress(done, total, f"{name}: {text}" if len(names) > 1 else text)

        outcomes.append(
            evaluate(
                model,
                data,
                threat,
                suite,
                out=None if folders is None else folders[number],
                overwrite=overwrite,
                seed=seed,
                batch_size=batch_size,
                precision=precision,
                output=output,
                progress=named,
            )
        )
    if any("draws" in outcome.examples for outcome in outcomes):
        return tuple(over_smaller_radii(threat, outcomes, threats) for threat in threats)
    points = points_between(outcomes, threats, measured_split(data), folders)
    meet()  # all processes have read the folders as they were
    if folders is not None and group()[0] == 0:
        for outcome, found, folder in zip(outcomes, points, folders, strict=True):
            keep(outcome, found, folder)
    return tuple(with_points(outcome, found) for outcome, found in zip(outcomes, points, strict=True))


def _folders(out: Path | str | Sequence[Path | str] | None, threats: Sequence[Threat]) -> list[Path] | None:
    if out is None:
        return None
    if isinstance(out, Path | str):
        return [Path(out) / f"{threat.norm}-{threat.eps!r}" for threat in threats]
    if len(out) != len(threats):
        raise InputError(f"There are {len(threats)} threats and {len(out)} folders: give one folder, or one a threat.")
    return [Path(folder) for folder in out]
