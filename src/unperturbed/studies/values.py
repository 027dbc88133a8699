"""The measured values of a study, by network and quantity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unperturbed.errors import InputError
from unperturbed.findings import Interval
from unperturbed.statistics.intervals import wilson, wilson_over_runs


@dataclass(frozen=True)
class Values:
    """The values of the networks of one setting.

    Attributes:
        measured: by network and quantity, (seeds, examples); NaN where a value is unknown.
        seconds: of an optimisation step times the steps of a run, by network, (repeats,): alternating measurements.
        training: seconds of the training runs, by network, (seeds,).
    """

    measured: Mapping[tuple[str, str], Tensor]
    seconds: Mapping[str, Tensor]
    training: Mapping[str, Tensor]

    def of(self, network: str, quantity: str) -> Tensor:
        """Return a quantity of a network, (seeds, examples)."""
        if (network, quantity) not in self.measured:
            raise InputError(f"The study has no quantity {quantity!r} of the network {network!r}.")
        return self.measured[network, quantity]

    def time_share(self, network: str, reference: str) -> Tensor:
        """Return the time of a network's training as a share of the reference's, (repeats, 1)."""
        return (self.seconds[network] / self.seconds[reference])[:, None]

    def share(self, network: str, quantity: str) -> Interval:
        """Return the mean of a quantity of zeros and ones, with an interval over seeds and examples."""
        rows = self.of(network, quantity)
        unknown = [int(count) for count in rows.isnan().sum(1)]
        right = [int(count) for count in rows.nansum(1)]
        shares = [
            wilson(successes, len(row), successes + lost)
            for row, successes, lost in zip(rows, right, unknown, strict=True)
        ]
        return wilson_over_runs(shares, unknown)


def stack(rows: Sequence[Sequence[float | None]]) -> Tensor:
    """Return values (seeds, examples) in float64, with NaN for None."""
    return torch.tensor(
        [[float("nan") if value is None else value for value in row] for row in rows], dtype=torch.float64
    )
