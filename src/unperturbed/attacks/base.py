"""What an attack is, and what it gives back."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Model, PerExample, Rows


@dataclass(frozen=True, eq=False)
class Found:
    """An attack's result for each example of a batch."""

    z: Inputs
    """The best point found."""
    margin: PerExample
    """max_{j != y} f_j - f_y there, as the attack saw it: positive is a break, still to be verified."""
    finite: Tensor
    """Bool: whether everything that the attack computed for the example was finite."""
    restart: Rows
    """How many restarts were begun."""
    passes: int
    """Examples through the network, forward; as many again backward."""


class Attack(ABC):
    """Looks for a misclassified point of the threat set, for each example."""

    label: str
    """How tables name the attack."""
    restarts: int
    """Climbs an example at most; 1 where the attack has no restarts."""

    @abstractmethod
    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, places: int) -> Found:
        """Attack every example of the batch; the network sees `places` examples at a time."""
