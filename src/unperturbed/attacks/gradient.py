"""Attacks that climb a loss along its gradient."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from unperturbed.attacks.base import Attack, AttackResult
from unperturbed.attacks.eot import averaged
from unperturbed.checks import ANY, AT_LEAST_ONE, NOT_MORE, POSITIVE, SHARE, check_fields, is_file_name
from unperturbed.errors import InputError
from unperturbed.losses import margin
from unperturbed.maximise.ascent import Ascent, search
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Loss, Model, Norm, PerExample, Rows


@dataclass(frozen=True)
class GradientAttack(Attack):
    """Climb `loss` from every example, restart until it breaks, and keep the iterate of largest margin.

    Attributes:
        label: name of the attack in tables.
        loss: the loss to climb.
        ascent: the step rule.
        restarts: the largest number of climbs per example.
        draws: forwards over which loss and margin are averaged, for networks that draw random numbers (see `eot.py`).
        enough: the margin above which an example's search ends; with infinity every climb runs to its end, for points
            of the largest margin.
    """

    bears_rounding: ClassVar[bool] = True
    needs_gradient: ClassVar[bool | None] = True
    label: str
    loss: Loss
    ascent: Ascent
    restarts: int = 1
    draws: int = 1
    enough: float = 0.0

    def __post_init__(self) -> None:
        """Refuse numbers that leave nothing to do."""
        check_fields(self, enough=ANY, restarts=NOT_MORE, draws=NOT_MORE)
        check_climbs(self.label, self.restarts, self.draws, self.enough)

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        """Attack every example; iterates are ranked by margin, for every loss."""

        def score(z: Inputs, rows: Rows) -> tuple[PerExample, PerExample]:
            y = batch.y[rows]
            logits = model(z)
            return self.loss(logits, y), margin(logits, y).detach()

        mean = averaged(score, self.draws)
        best = search(self.ascent, mean, batch.x, threat, noise, self.restarts, batch_size, self.enough)
        passes, queries = self.draws * best.passes, self.draws * best.queries
        return AttackResult(best.z, best.rank, best.finite, best.restart, passes, queries=queries)

    def to_the_end(self) -> "GradientAttack":
        """Return the attack in which every climb runs to its end."""
        return replace(self, enough=math.inf)


def check_climbs(label: str, restarts: int, draws: int, enough: float) -> None:
    """Raise InputError if an attack would not run on some examples, which would then count as robust."""
    if restarts < 1 or draws < 1 or not enough >= 0:
        raise InputError(
            f"{label} with restarts {restarts}, draws {draws}, enough {enough}: at least 1, 1 and 0, or nothing is "
            "attacked and all would seem robust."
        )


@dataclass(frozen=True)
class Suite:
    """Attacks that run one after the other, each on the examples that no earlier one has broken.

    Attributes:
        name: name on the command line.
        attacks: in order.
        note: a remark on the meaning of the robust accuracy.
        l1: the attacks for L1 threats, if they differ.
        l2: the attacks for L2 threats, if they differ.
        few_classes: an addition to the note for fewer than four classes.
        gate: the check of a sample of the survivors; None: no check.
    """

    name: str
    attacks: tuple[Attack, ...]
    note: str
    l1: tuple[Attack, ...] = ()
    l2: tuple[Attack, ...] = ()
    few_classes: str = ""
    gate: "Gate | None" = None

    def __post_init__(self) -> None:
        """Refuse a suite without an attack, which would call everything robust."""
        check_fields(self)
        if not is_file_name(self.name):
            raise InputError(
                f"The suite is called {self.name!r:.80}, but its results have a folder of this name: use letters."
            )
        for name, attacks in (("attacks", self.attacks), ("l1", self.l1), ("l2", self.l2)):
            for attack in attacks:
                if not isinstance(attack, Attack):
                    raise InputError(f"{name} holds {attack!r:.80}, which is no Attack: put it into one.")
        if not self.attacks:
            raise InputError(f"The suite {self.name!r} has no attacks, and would call everything robust: give one.")

    def against(self, norm: Norm, classes: int) -> "Suite":
        """Return the suite for this norm and this number of classes.

        Raises:
            InputError: if an attack does not search in this norm.
        """
        attacks = {"L1": self.l1, "L2": self.l2}.get(norm, ()) or self.attacks
        wrong = [attack.label for attack in attacks if not attack.supports(norm)]
        if wrong:
            raise InputError(
                f"The suite {self.name!r} does not attack in {norm}: {', '.join(wrong)} cannot. "
                + {"L0": "Take the suite 'sparse'.", "Patch": "Take the suite 'patch'."}.get(
                    norm, "Its attacks are for another norm."
                )
            )
        return replace(self, attacks=attacks, note=self.note + (self.few_classes if classes < 4 else ""))


@dataclass(frozen=True)
class Gate:
    """A stronger suite for a sample of the survivors; if it breaks too many of them, it attacks all survivors.

    Attributes:
        suite: the stronger suite.
        share: of the survivors that are in the sample.
        least: size of the sample, where there are so many survivors.
        half_width: of the 95% interval of the estimate, as a share of all examples: the sample, of any share, grows
            until it is reached, and the estimate is that of the stronger suite alone. None: the sample grows only
            while the nearest survivors break.
    """

    suite: Suite
    share: float = 0.05
    least: int = 16
    half_width: float | None = None

    def __post_init__(self) -> None:
        """Raise InputError for a sample without examples."""
        check_fields(self, share=SHARE, least=AT_LEAST_ONE, half_width=POSITIVE)
