"""The checkpoint of a run: saving and restoring its parts."""

import logging
from dataclasses import asdict
from pathlib import Path
from types import UnionType
from typing import Any, cast, get_origin, get_type_hints

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from unperturbed import runs
from unperturbed.errors import InputError, NotResumableError, RunError
from unperturbed.training import checkpoint, shards
from unperturbed.training.engine import Engine
from unperturbed.training.journal import Journal
from unperturbed.training.processes import is_sharded
from unperturbed.training.selection import STRONGER, Selection
from unperturbed.training.state import State

log = logging.getLogger("unperturbed")


def save(engine: Engine, journal: Journal, state: State) -> None:
    """Write the checkpoint, if the run has a folder."""
    if journal.folder is None:
        return
    fabric = engine.fabric
    state_of_process = {"memory": checkpoint.memory(engine.method), "sums": journal.sums, **engine.random_state()}
    # The perturbations and random numbers of all processes belong into the file.
    gathered = fabric.all_gather(state_of_process) if fabric.world_size > 1 else state_of_process
    path, in_shards = journal.folder / runs.CHECKPOINT, is_sharded(fabric)
    name = shards.save(path.parent, state.step, *_in_shards(engine)) if in_shards else None
    if engine.is_first:
        content = {
            "shards": name,
            "model": None if in_shards else engine.classifier.state_dict(),
            "optimiser": None if in_shards else engine.optimiser.state_dict(),
            "average": None if engine.average is None else engine.average.state_dict(),
            "state": asdict(state),
            "own": gathered,
            "metrics": journal.metrics,
            "config": journal.note,
        }
        checkpoint.save(path, content)
        shards.forget_others(path.parent, 2, state.step)  # those of the last checkpoint and of the one before
    fabric.barrier()


def restore(path: Path, engine: Engine, journal: Journal, selection: Selection, state: State) -> None:
    """Go back to a checkpoint; `state` is overwritten in place.

    Raises:
        RunError: if it or the best weights are damaged or another run's.
    """
    assert journal.folder is not None
    if path.name == Path(runs.PREVIOUS).name:
        log.warning("%s is not there: resumed from %s.", journal.folder / runs.CHECKPOINT, path)
    content = checkpoint.load(path)
    if content.get("config", journal.note) != journal.note:
        raise NotResumableError(checkpoint.damaged(path, "it is of another run"))
    try:
        _check_state(content["state"], engine.steps)
        state_of_process = _of_this_process(content["own"], engine)
        if (content.get("shards") is not None) != is_sharded(engine.fabric):
            raise InputError("The run was begun with the other --strategy (ddp or fsdp): resume it with that one.")
        _put_back(path, content, state_of_process, engine, state)
        selection.check_best()
        journal.restore(state_of_process["sums"], content.get("metrics"))
        before = _processes(content["own"])
    except (InputError, RunError, OSError):
        raise
    except Exception as error:  # a sound file with other contents than `save` writes
        raise NotResumableError(checkpoint.damaged(path, f"{type(error).__name__} in its contents")) from error
    if before != engine.fabric.world_size:
        journal.warn(
            f"Resumed with devices={engine.fabric.world_size} instead of {before}: the batches are the same, but their "
            "gradients are added in another order, and layers that draw random numbers (dropout) draw others, so the "
            "run is not bit-identical to one without interruption."
        )
    log.info("Resumed at step %d of %d.", state.step, engine.steps)


def _check_state(values: dict[str, Any], steps: int) -> None:
    """Raise TypeError or ValueError for a state that is impossible for a run of so many steps."""
    read = State(**values)
    for name, kind in get_type_hints(State).items():
        plain = kind if isinstance(kind, UnionType) else get_origin(kind) or kind
        if not isinstance(getattr(read, name), plain):
            raise TypeError(f"{name} is {getattr(read, name)!r:.80}")
    if not 0 <= read.step <= steps or not 0 <= read.strengthened <= STRONGER:
        raise ValueError(f"step {read.step}, strengthened {read.strengthened}")


def _in_shards(engine: Engine) -> tuple[nn.Module, Optimizer]:
    return engine.attacked, shards.plain(engine.optimiser)


def _put_back(path: Path, content: dict[str, Any], own: dict[str, Any], engine: Engine, state: State) -> None:
    for name, value in content["state"].items():
        setattr(state, name, value)
    if content.get("shards") is not None:
        shards.load(path.parent / content["shards"], *_in_shards(engine))
        engine.gather()
    else:
        engine.classifier.load_state_dict(content["model"])
        engine.optimiser.load_state_dict(content["optimiser"])
    if engine.average is not None:
        engine.average.load_state_dict(content["average"])
    for _ in range(state.strengthened):
        engine.method = engine.method.stronger() or engine.method
    checkpoint.restore_memory(engine.method, own["memory"])
    engine.restore_random_state(own)


def _processes(gathered: dict[str, Any]) -> int:
    """Return the number of processes that have written a checkpoint."""
    return len(gathered["random"]) if gathered["random"].dim() > 1 else 1


def _of_this_process(gathered: dict[str, Any], engine: Engine) -> dict[str, Any]:
    """Return this process's part, also of a run that another number of processes has begun.

    Raises:
        InputError: if the method's memory differs between those processes, so that it cannot be shared out anew.
    """
    before = _processes(gathered)
    processes, rank = engine.fabric.world_size, engine.fabric.global_rank
    if before == processes == 1:
        return gathered
    parts = tree_map(lambda value: value if before > 1 else value[None], gathered)
    if before == processes:
        return cast(dict[str, Any], tree_map(lambda value: value[rank], parts))
    if not all(torch.equal(value[0], other) for value in parts["memory"].values() for other in value[1:]):
        raise InputError(
            f"The run was begun with devices={before}, not {processes}: resume it so, since each process has a part of "
            "the method's memory."
        )
    common = {"memory": tree_map(lambda value: value[0], parts["memory"]), "sums": _means(parts["sums"])}
    random = {name: parts[name][rank] for name in RANDOM} if rank < before else engine.random_state()
    return common | random


RANDOM = ("random", "device_random")
"""The entries of `Engine.random_state`."""


def _means(sums: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the means over the processes, of which the journal takes the mean again."""
    return {name: values.mean(0) for name, values in sums.items()}
