"""A study from its runs to its table, figure and sentences."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import torch

from unperturbed.engines.base import Engine, Unit
from unperturbed.engines.local import Local
from unperturbed.errors import InputError
from unperturbed.findings import Progress, silent
from unperturbed.methods.base import Method
from unperturbed.runs.lock import locked
from unperturbed.studies.design import Measure, Network, Run, Scale, Setting, Study
from unperturbed.studies.jobs import Processes
from unperturbed.studies.rule import Verdict, decide_all
from unperturbed.studies.store import Store
from unperturbed.studies.training import TRAINING, Work, step_seconds
from unperturbed.studies.values import Values, stack

CHOICE = 1000
"""The seed of the runs that choose among several methods of a network; no decision uses it."""
TIME = "step seconds"


@dataclass(frozen=True)
class Result:
    """The result of a study at one scale.

    Attributes:
        study: the study.
        scale: the scale.
        verdicts: the decisions, setting by setting.
        settings: the settings, with their values and the chosen runs.
    """

    study: Study
    scale: Scale
    verdicts: tuple[tuple[Setting, Verdict], ...]
    settings: tuple[tuple[Setting, Values, tuple[Run, ...]], ...]


@dataclass(frozen=True)
class Place:
    """The folder of studies.

    Attributes:
        out: has `runs/` (networks), `measured/` (values of every run), and a folder for each study and scale.
        data: a folder with one folder per data set, or None: data sets by name.
    """

    out: Path
    data: Path | None = None

    @property
    def store(self) -> Store:
        """The measured values."""
        return Store(self.out / "measured")


def run_study(study: Study, scale: Scale, place: Place, jobs: int = 1, progress: Progress = silent) -> Result:
    """Train and measure the missing runs of a study, and decide its claims.

    Killed anywhere, the same call resumes. Runs are shared with the other studies of the folder.

    Args:
        study: the study.
        scale: small, medium or full.
        place: the folders.
        jobs: number of processes, each with one thread.
        progress: called as runs begin and end.

    Raises:
        InputError: if another process works in the folder, or data are missing.
    """
    engine: Engine = Local() if jobs == 1 else Processes(jobs)
    results, decided = list[tuple[Setting, Values, tuple[Run, ...]]](), []
    with locked(place.out):
        for setting in study.settings[scale]:
            runs = tuple(_chosen(setting, network, place, engine, progress) for network in study.networks)
            _complete([_seeded(run, seed) for run in runs for seed in range(setting.seeds)], study.measures, place,
                      engine, progress)  # fmt: skip
            values = _values(study, setting, runs, place)
            results.append((setting, values, runs))
            decided += [(claim, values) for claim in study.claims]
    verdicts = decide_all(decided)
    of_setting = [setting for setting, _, _ in results for _ in study.claims]
    return Result(study, scale, tuple(zip(of_setting, verdicts, strict=True)), tuple(results))


def progress_of(study: Study, scale: Scale, place: Place) -> tuple[int, int]:
    """Return the number of runs with all their values, and the number of runs in all."""
    finished = total = 0
    for setting in study.settings[scale]:
        for network in study.networks:
            method = _stored_choice(setting, network, place)
            for seed in range(setting.seeds):
                total += 1
                run = Run(setting, network, method or network.methods[0], seed)
                finished += method is not None and _lacking(run, study.measures, place.store) is None
    return finished, total


def _seeded(run: Run, seed: int) -> Run:
    return replace(run, seed=seed)


def _chosen(setting: Setting, network: Network, place: Place, engine: Engine, progress: Progress) -> Run:
    """Train the runs that choose the method of a network; return the run with the chosen method."""
    if len(network.methods) > 1:
        _complete([Run(setting, network, method, CHOICE) for method in network.methods], (), place, engine, progress)
    method = _stored_choice(setting, network, place)
    assert method is not None
    return Run(setting, network, method, 0)


def _stored_choice(setting: Setting, network: Network, place: Place) -> Method | None:
    """Return the method with the highest robust accuracy on held-out examples; None while its runs are missing."""
    if len(network.methods) == 1:
        return network.methods[0]
    scores = []
    for method in network.methods:
        values = place.store.read(Run(setting, network, method, CHOICE).key, CHOICE, TRAINING)
        if values is None:
            return None
        scores.append((values["held-out robust"][0] or 0.0, values["held-out clean"][0] or 0.0))
    return network.methods[max(range(len(scores)), key=lambda number: scores[number])]


def _lacking(run: Run, measures: Sequence[Measure], store: Store) -> tuple[Measure, ...] | None:
    """Return the missing measurements of a run; None for a trained run with all measurements."""
    lacking = tuple(
        measure for measure in measures if store.read(run.key, run.seed, measure.question(run.setting)) is None
    )
    return lacking if lacking or store.read(run.key, run.seed, TRAINING) is None else None


def _complete(
    runs: Sequence[Run], measures: Sequence[Measure], place: Place, engine: Engine, progress: Progress
) -> None:
    """Train and measure what is missing of these runs, and store the values of each run as it ends."""
    store, distinct = place.store, {(run.key, run.seed): run for run in runs}
    works = [
        Work(run, lacking, place.out / "runs" / run.key / f"seed={run.seed}", place.data)
        for run in distinct.values()
        if (lacking := _lacking(run, measures, store)) is not None
    ]
    done = len(distinct) - len(works)
    units = [Unit(number, 1, work) for number, work in enumerate(works)]
    for number, values in engine.map(units, lambda n, text: progress(done + n, len(distinct), text)):
        run = works[number].run
        store.write(run.key, run.seed, TRAINING, values[TRAINING])
        for measure in works[number].measures:
            store.write(run.key, run.seed, measure.question(run.setting), values[measure.name])


def _values(study: Study, setting: Setting, runs: Sequence[Run], place: Place) -> Values:
    """Return the stored values of a setting's runs, after the measurement of times if that is missing."""
    measured, training = dict[tuple[str, str], torch.Tensor](), dict[str, torch.Tensor]()
    for run in runs:
        seeds, store = range(setting.seeds), place.store
        of_training = [store.read(run.key, seed, TRAINING) or {} for seed in seeds]
        training[run.network.name] = stack([values["seconds"] for values in of_training])[:, 0]
        for measure in study.measures:
            rows = [store.read(run.key, seed, measure.question(setting)) or {} for seed in seeds]
            for quantity in rows[0]:
                lengths = {len(row.get(quantity, ())) for row in rows}
                if len(lengths) > 1:
                    raise InputError(
                        f"{quantity} of {run.network.name} was measured on {sorted(lengths)} examples: delete "
                        f"{store.folder / run.key}.jsonl, and its runs are measured again."
                    )
                measured[run.network.name, quantity] = stack([row[quantity] for row in rows])
    return Values(measured, _times(study, setting, runs, place), training)


def _times(study: Study, setting: Setting, runs: Sequence[Run], place: Place) -> dict[str, torch.Tensor]:
    """Return the seconds of the timed networks by repeat; they are measured once."""
    timed = {run.network.name: run for run in runs if run.network.name in study.timed}
    if not timed:
        return {}
    keys = " ".join(run.key for run in timed.values())
    key = f"{setting.data}-time-{sha256(keys.encode()).hexdigest()[:10]}"
    if place.store.read(key, 0, TIME) is None:
        measured = {name: list[float | None](row) for name, row in step_seconds(timed, place.data).items()}
        place.store.write(key, 0, TIME, measured)
    values = place.store.read(key, 0, TIME) or {}
    return {name: stack([row])[0] for name, row in values.items()}
