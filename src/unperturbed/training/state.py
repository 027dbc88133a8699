"""The state of a run that changes from step to step, the weights aside."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class State:
    """What changes during a run, the weights aside; all of it is in the checkpoint."""

    step: int = 0
    seconds: float = 0.0
    probes: list[dict[str, Any]] = field(default_factory=list)
    training_losses: list[float] = field(default_factory=list)
    best_epoch: int = -1
    best_feasible: bool | None = False
    """Whether that epoch has met the method's limit; None if it has none, or cannot know."""
    best_examined: dict[str, float] = field(default_factory=dict)
    """What the method measured of itself after that epoch."""
    strengthened: int = 0
    stopped: bool = False
    warnings: list[str] = field(default_factory=list)
