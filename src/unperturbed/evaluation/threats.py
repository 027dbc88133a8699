"""Robust accuracy at several radii, or under several threat sets, of one network on the same examples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from unperturbed.attacks.gradient import Suite
from unperturbed.checks import COUNT, SEED, checked
from unperturbed.data.split import Split
from unperturbed.engines.base import Engine
from unperturbed.engines.group import group, meet
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.carry import keep, over_smaller_radii, points_between, with_points
from unperturbed.evaluation.checked_model import measured_split
from unperturbed.evaluation.evaluated import Evaluated, headline_of
from unperturbed.evaluation.quantize import Quantised, clear, quantize
from unperturbed.evaluation.robustbench import model_info
from unperturbed.findings import Outcome, Progress, silent
from unperturbed.networks.logits import Output
from unperturbed.networks.settings import UNTUNED, Tuning
from unperturbed.runs import write_json
from unperturbed.storage.opened import published, results_and_weights
from unperturbed.threat import Threat


@published(results_and_weights)
@checked(seed=SEED, batch_size=COUNT)
def evaluate_threats(
    model: nn.Module,
    data: Any,
    threats: Sequence[Threat],
    suite: str | Suite = "fast",
    *,
    out: Path | str | Sequence[Path | str] | None = None,
    overwrite: bool = False,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    precision: Literal["auto", "32"] = "auto",
    tuning: Tuning = UNTUNED,
    output: Output = None,
    engine: str | Engine | None = None,
    progress: Progress = silent,
) -> tuple[Outcome, ...]:
    """Return the outcome under each threat set; a point of one set counts in every other set that contains it.

    So the robust accuracy never rises with the radius: an example that breaks in a small ball is broken in the larger
    ones, where long steps may miss the point. `attack` in the table names the attack and the threat of a break.

    Args:
        model: as for `evaluate`, and so are data, suite, overwrite, seed, batch_size, precision and progress.
        data: the examples, the same for all.
        threats: at least one, without duplicates.
        suite: the same for all.
        out: a folder with a subfolder per threat, or one folder for each.
        overwrite: replace other evaluations.
        seed: of the attacks' random starts.
        batch_size: examples that the network sees at a time.
        precision: of the searches.
        tuning: as for `evaluate`.
        output: as for `evaluate`.
        engine: as for `evaluate`.
        progress: as for `evaluate`, with the name of the threat.

    Raises:
        InputError: as `evaluate`, and if no threat is given, or one twice.
    """
    names = [str(threat) for threat in threats]
    if not names or len(set(names)) < len(names):
        raise InputError(f"The threats are {', '.join(names) or 'none'}: give at least one, each once.")
    folders = _folders(out, threats)
    outcomes = list[Outcome]()
    for number, threat in enumerate(threats):

        def named(finished: float, total: float, text: str, name: str = names[number]) -> None:
            progress(finished, total, f"{name}: {text}" if len(names) > 1 else text)

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
                tuning=tuning,
                output=output,
                engine=engine,
                progress=named,
            )
        )
    if any("draws" in outcome.examples for outcome in outcomes):
        return tuple(over_smaller_radii(threat, outcomes, threats) for threat in threats)
    points = points_between(outcomes, threats, measured_split(data), folders)
    meet()  # all processes have read the unchanged folders
    if folders is not None and group()[0] == 0:
        for outcome, carried, folder in zip(outcomes, points, folders, strict=True):
            keep(outcome, carried, folder)
    return tuple(with_points(outcome, carried) for outcome, carried in zip(outcomes, points, strict=True))


def _folders(out: Path | str | Sequence[Path | str] | None, threats: Sequence[Threat]) -> list[Path] | None:
    if out is None:
        return None
    if isinstance(out, Path | str):
        return [Path(out) / threat.text.replace(":", "-") for threat in threats]
    if len(out) != len(threats):
        raise InputError(f"There are {len(threats)} threats and {len(out)} folders: give one folder, or one a threat.")
    return [Path(folder) for folder in out]


def evaluate_into_folders(
    model: nn.Module,
    split: Split,
    threats: Sequence[Threat],
    suite: Suite,
    *,
    folders: Sequence[Path],
    results: Path,
    run: Path,
    asked: Threat | None,
    known: Mapping[str, Any],
    eight_bit: bool = False,
    overwrite: bool = False,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    precision: Literal["auto", "32"] = "auto",
    tuning: Tuning = UNTUNED,
    engine: str | Engine | None = None,
    progress: Progress = silent,
) -> Evaluated | None:
    """Evaluate a network under each threat, and write into a run folder all that an evaluation leaves there.

    Args:
        model: as for `evaluate_threats`, and so are threats, suite, overwrite, seed, batch_size, precision, progress.
        split: the examples.
        threats: radii of one threat, or several threats.
        suite: the same for all.
        folders: of the outcomes, one a threat.
        results: the folder of the curve over radii or of the worst case.
        run: the run folder, which the worst case names.
        asked: the threat whose radius is the headline; None: several threats are meant, and their worst case.
        known: what is known of the network for RobustBench, by the arguments of `model_info`.
        eight_bit: whether the adversarial examples are also written as 8-bit images.
        overwrite: replace other evaluations.
        seed: of the attacks' random starts.
        batch_size: examples that the network sees at a time.
        precision: of the searches.
        tuning: as for `evaluate`.
        engine: of the blocks of examples.
        progress: as for `evaluate_threats`.

    Returns:
        The outcomes with their headline; None in all processes of a group but the first.

    Raises:
        InputError: as `evaluate_threats` and, for 8-bit images, `quantize` do.
    """
    outcomes = evaluate_threats(
        model,
        split,
        threats,
        suite,
        out=folders,
        overwrite=overwrite,
        seed=seed,
        batch_size=batch_size,
        precision=precision,
        tuning=tuning,
        engine=engine,
        progress=progress,
    )
    if group()[0] != 0:
        return None
    quantised = list[Quantised | None]()
    for threat, outcome, folder in zip(threats, outcomes, folders, strict=True):
        if overwrite:
            clear(folder, suite.name)
        quantised.append(quantize(model, split, threat, outcome, out=folder) if eight_bit else None)
        write_json(folder / f"{outcome.suite}-robustbench.json", model_info(outcome, **known))
    evaluated = Evaluated(tuple(threats), outcomes, tuple(quantised), headline_of(threats, asked))
    evaluated.write(results, run)
    return evaluated
