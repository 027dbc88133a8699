"""The end of a random search whose remaining proposals have all been tried."""

import torch
from torch import Tensor

from unperturbed.attacks.patches import Patches
from unperturbed.types import Inputs, PerExample, Rows

MOST = 512
"""Number of proposals of an input up to which their trials are noted; larger inputs are hardly ever exhausted."""
NONE = -1
"""In place of a pixel, for a query that changes no single pixel."""


class Exhaustion:
    """The proposals of single pixels that each slot has tried at its best point, in Linf.

    On small inputs the last squares are single pixels, and each has two ends for every channel. Where all of these are
    tried and none raised the margin, further queries repeat forwards, so that the search can end with the same result.
    Before it ends, the best point itself is evaluated again: if the margin is another one (the network draws random
    numbers), a repeated proposal may succeed, and the search continues.
    """

    def __init__(self, patches: Patches, skipped: int, slots: int, device: torch.device) -> None:
        channels, tall, wide = patches.image
        first, is_small = patches.single_pixels_after(), tall * wide * 2**channels <= MOST
        self._patches, self._after = patches, first - skipped if first is not None and is_small else None
        channel = torch.arange(channels if is_small else 0, device=device)
        self._bits = torch.arange(2 ** len(channel), device=device)[:, None] >> channel & 1 > 0
        shape = (tall * wide if is_small else 0, len(self._bits))
        self._tried = torch.zeros(slots, *shape, dtype=torch.bool, device=device)
        self._pixel = torch.full((slots,), NONE, device=device)
        self._repeats = torch.zeros(slots, dtype=torch.bool, device=device)

    def begin(self, seats: Rows) -> None:
        """Forget the trials in these slots, which begin a search; their first points are no proposals."""
        self._tried[seats], self._pixel[seats], self._repeats[seats] = False, NONE, False

    def shrink(self, remaining: Rows) -> None:
        """Keep these slots."""
        self._tried, self._pixel = self._tried[remaining], self._pixel[remaining]
        self._repeats = self._repeats[remaining]

    def note(self, z: Inputs, margins: PerExample, lead: PerExample, ends: tuple[Inputs, Inputs]) -> Tensor:
        """Note the trial of z in each slot, and tell which searches end; `lead` is the margin of the best point."""
        if self._after is None:
            return torch.zeros_like(margins, dtype=torch.bool)
        finished, raised = self._repeats & (margins == lead), margins > lead
        slots = ((self._pixel != NONE) & ~raised).nonzero()[:, 0]
        pixel = self._pixel[slots]
        at_high = (self._flat(z) == self._flat(ends[1]))[slots, pixel]
        number = (at_high.long() << torch.arange(at_high.shape[1], device=z.device)).sum(1)
        self._tried[slots, pixel, number] = True
        self._tried[raised | (self._repeats & ~finished)] = False
        return finished

    def propose(
        self, z: Inputs, best: Inputs, k: Tensor, corner: Tensor, ends: tuple[Inputs, Inputs], look: bool
    ) -> Inputs:
        """Return z, the proposals with these corners for queries number k, or the best point where all was tried.

        Only if asked to `look`: a look at all trials costs as much as several queries.
        """
        if self._after is None:
            return z
        late = k > self._after
        exhausted = late & self._all_tried(best, ends) if look and bool(late.any()) else torch.zeros_like(late)
        pixel = corner[:, 0] * self._patches.image[2] + corner[:, 1]
        self._pixel = torch.where(late & ~exhausted, pixel, NONE)
        self._repeats = exhausted
        return torch.where(exhausted.view(-1, *[1] * (z.dim() - 1)), best, z) if look else z

    def _all_tried(self, best: Inputs, ends: tuple[Inputs, Inputs]) -> Tensor:
        """Tell for each slot whether every proposal was tried, is the best point, or is the same as another one."""
        best, low, high = (self._flat(part)[:, :, None] for part in (best, *ends))
        is_best = (torch.where(self._bits, high, low) == best).all(3)
        has_twin = ((low == high) & ~self._bits).any(3)
        return (self._tried | is_best | has_twin).flatten(1).all(1)

    def _flat(self, z: Inputs) -> Tensor:
        """Return the values of each pixel: (slots, pixels, channels)."""
        return z.reshape(len(z), self._patches.image[0], -1).transpose(1, 2)
