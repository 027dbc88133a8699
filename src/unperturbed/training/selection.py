"""The choice of a run's weights: the probe of every epoch, the best epoch so far, and the alarm."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from unperturbed import runs
from unperturbed.errors import NotResumableError
from unperturbed.methods.base import EpochEnd
from unperturbed.networks.guard import running
from unperturbed.networks.logits import unwrapped
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.noise import Noise
from unperturbed.runs.tensors import DamagedError, read_tensors
from unperturbed.training.alarm import Probe, probe, recognise
from unperturbed.training.engine import Engine
from unperturbed.training.journal import Journal
from unperturbed.training.prepare import Examples
from unperturbed.training.same_gradient import on_cpu
from unperturbed.training.state import State
from unperturbed.types import Batch
from unperturbed.weights.files import load_weights, save_weights

log = logging.getLogger("unperturbed")
PROBED = 512
"""Number of held-out examples of the probe."""
EXAMINED = 128
"""Number of the probe's examples, from the first, for the quantities of a method."""
STRONGER = 2
"""Doublings of the inner steps that the alarm may make: if four times the steps fail, more will not help."""


class Selection:
    """The probe of every epoch, and the weights with the best result."""

    def __init__(self, engine: Engine, journal: Journal, state: State, examples: Examples, folder: Path | None) -> None:
        self.engine, self.journal, self.state, self.folder = engine, journal, state, folder
        self.held_out = len(examples.held_out) > 0
        self.best: dict[str, Tensor] = {}
        """The best weights, in a run without a folder."""
        ids = examples.probed
        ids = ids[Noise.of(engine.recipe.seed, ids).keys.argsort()[:PROBED]]
        split, device = engine.batches.split, engine.fabric.device
        self.probed = Batch(engine.inputs(split.inputs(ids)), split.labels[ids].to(device), ids.to(device))

    def look(self, training_loss: float) -> dict[str, float]:
        """Probe the weights, keep them if they are the best so far, raise the alarm; return the epoch's metrics."""
        engine, state, method = self.engine, self.state, self.engine.method
        epoch = state.step // len(engine.batches)
        noise = Noise.of(engine.recipe.seed, self.probed.ids).fold(-2)
        engine.gather()
        share = state.step / engine.steps
        with running(f"measuring the accuracy at the end of epoch {epoch}", self.probed.ids, self.probed.x):
            result = engine.agreed(probe(engine.weighed, self.probed, engine.threat, noise))
            examined = self.examine()
            method.after_epoch(EpochEnd(result.clean, result.n, share, averaged=engine.average is not None))
        state.probes.append(asdict(result))
        state.training_losses.append(training_loss)
        feasible = method.feasible()
        if state.best_epoch < 0 or _rank(feasible, asdict(result)) > _rank(
            state.best_feasible, state.probes[state.best_epoch - 1]
        ):
            state.best_epoch, state.best_feasible, state.best_examined = epoch, feasible, examined
            self.keep_best()
        if engine.recipe.alarm != "off" and share > engine.ramp:
            self.raise_alarm()
        patience, since = engine.recipe.patience, max(state.best_epoch, int(engine.ramp * engine.recipe.epochs))
        if patience is not None and state.best_feasible is not False and epoch - since >= patience:
            state.stopped = True
        return {f"probe/{name}": value for name, value in asdict(result).items()} | {
            f"method/{name}": value for name, value in examined.items()
        }

    def examine(self) -> dict[str, float]:
        """Return the means of the method's quantities, in the precision of the inputs."""
        engine, probed = self.engine, self.probed
        sample = Batch(probed.x[:EXAMINED], probed.y[:EXAMINED], probed.ids[:EXAMINED])
        noise, network = Noise.of(engine.recipe.seed, sample.ids).fold(-4), engine.weighed
        if network is not engine.whole and engine.average is None:  # shards have no second derivative
            sample, noise, network = on_cpu(sample), Noise(noise.keys.cpu()), engine.whole
        with under_attack(network), as_reported(sample.x.device):
            examined = engine.method.examine(network, sample, engine.threat, noise)
        return {name: float(value.mean()) for name, value in examined.items()}

    def raise_alarm(self) -> None:
        """Issue the alarm's warnings, and react as the recipe sets."""
        engine, state, warn = self.engine, self.state, self.journal.warn
        alarm = recognise([Probe(**values) for values in state.probes], state.training_losses)
        if alarm is None:
            return
        warn(f"Epoch {len(state.probes)}: {alarm.text}")
        if engine.recipe.alarm == "stop":
            state.stopped = True
        if engine.recipe.alarm == "add-steps" and alarm.too_weak and state.step < engine.steps:
            stronger = engine.method.stronger()
            if state.strengthened == STRONGER:
                warn(f"The method already has {2**STRONGER} times its inner steps: no more are added.")
            elif stronger is None:
                warn(f"{type(engine.method).__name__} has no inner steps to add.")
            else:
                engine.method = stronger
                state.strengthened += 1
                warn(f"From epoch {len(state.probes) + 1} on the method is {stronger}.")

    def keep_best(self) -> None:
        """Store the present weights as the best ones."""
        if self.folder is None:
            self.best = {name: value.detach().clone() for name, value in self.engine.bare.state_dict().items()}
        elif self.engine.is_first:
            save_weights(self.engine.bare, self.folder / runs.BEST, self.journal.about(self.state.best_epoch))

    def load_best(self) -> None:
        """Load the best weights into the caller's network."""
        if self.folder is None:
            unwrapped(self.engine.model).load_state_dict(self.best)
        else:
            load_weights(self.engine.model, self.folder / runs.BEST)

    def check_best(self) -> None:
        """Verify the best weights; write them again from the checkpoint if they are damaged.

        Raises:
            RunError: if they are lost.
        """
        assert self.folder is not None
        state, path = self.state, self.folder / runs.BEST
        if state.best_epoch < 0:
            return
        try:
            about = read_tensors(path)[1] or {}
            if about.get("config") != self.journal.note or about.get("epoch", 0) < state.best_epoch:
                raise DamagedError("it is of another run or epoch")
        except DamagedError as error:
            if state.best_epoch * len(self.engine.batches) != state.step:
                raise NotResumableError(
                    f"{path} is damaged or missing ({error}), and with it the weights of the best epoch, "
                    f"{state.best_epoch}: put back a copy, or start the run again in another folder."
                ) from error
            log.warning("%s was damaged or missing (%s): it is written anew from the checkpoint.", path, error)
            self.engine.gather()
            self.keep_best()

    def conclusions(self) -> tuple[str, ...]:
        """Return the method's conclusions on the last epoch, with a remark on the kept weights."""
        return tuple(text + self._kept() for text in self.engine.method.conclude())

    def _kept(self) -> str:
        """Return sentences on the kept weights and the method's quantities for them."""
        state, epochs, text = self.state, len(self.state.probes), ""
        if state.best_epoch != epochs:
            was = {None: "", True: ", which met the limit", False: ", which did not meet the limit"}
            text += f" This is of the last epoch, {epochs}; the weights kept are those of epoch {state.best_epoch}"
            text += f"{was[state.best_feasible]}."
        if state.best_examined:
            measured = ", ".join(f"{name} {value:.4g}" for name, value in state.best_examined.items())
            where = f"{min(EXAMINED, len(self.probed.x))} {'held-out' if self.held_out else 'training'} examples"
            text += f" The weights kept have, on {where}: {measured}."
        return text


def _rank(feasible: bool | None, probed: Mapping[str, float]) -> tuple[bool, float, float]:
    """Return the criteria of `best` in order: the method's limit, accuracy under ten steps, clean accuracy."""
    return feasible is not False, probed["many_steps"], probed["clean"]
