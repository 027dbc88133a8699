"""The state of a run besides the weights."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class State:
    """The mutable state of a run besides the weights; all of it is in the checkpoint."""

    step: int = 0
    seconds: float = 0.0
    probes: list[dict[str, Any]] = field(default_factory=list)
    training_losses: list[float] = field(default_factory=list)
    best_epoch: int = -1
    best_feasible: bool | None = False
    """Whether that epoch met the method's limit; None: no limit, or unknown."""
    best_examined: dict[str, float] = field(default_factory=dict)
    """The method's quantities after that epoch."""
    strengthened: int = 0
    stopped: bool = False
    warnings: list[str] = field(default_factory=list)
