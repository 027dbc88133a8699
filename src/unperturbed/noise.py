"""Random numbers that depend on (seed, example id, draw) alone, so that batch size, order and resumption cannot matter.

A counter-based generator: every example has a 64-bit key, and its k-th 64 random bits are a mix of key and k
(splitmix64; Steele, Lea & Flood 2014, https://doi.org/10.1145/2660193.2660195).
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unperturbed.types import Labels, Rows

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def _signed(number: int) -> int:
    """Return the lowest 64 bits of this number as a signed integer, which wraps around as tensors do."""
    return (number + 2**63) % 2**64 - 2**63


def _shift(v: Tensor, bits: int) -> Tensor:
    """Shift right, filling with zeros (torch's own shift copies the sign bit)."""
    return (v >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(v: Tensor) -> Tensor:
    """Scramble `v`, which is overwritten (fresh memory would cost more than the arithmetic)."""
    v.bitwise_xor_(_shift(v, 30)).mul_(_MIX_1)
    v.bitwise_xor_(_shift(v, 27)).mul_(_MIX_2)
    return v.bitwise_xor_(_shift(v, 31))


@dataclass(frozen=True, eq=False)
class Noise:
    """A stream of random numbers per example.

    `keys` holds one int64 per example. `Noise.of(seed, ids)` starts the streams, `fold` derives independent ones
    (a draw, a restart, a step), and `rows` selects the streams of some rows. Drawing does not advance a stream: it
    gives the same numbers again.
    """

    keys: Labels

    @classmethod
    def of(cls, seed: int, ids: Labels) -> "Noise":
        """Return the streams of the examples `ids` under `seed`, any integer."""
        start = _mix(torch.full_like(ids, _signed(seed + _GOLDEN)))
        return cls(_mix(start + ids * _GOLDEN))

    def fold(self, draw: int | Tensor) -> "Noise":
        """Return independent streams for draw number `draw` (one number, or one an example)."""
        step = (draw + 1) * _GOLDEN
        return replace(self, keys=_mix(self.keys * _MIX_1 + (_signed(step) if isinstance(step, int) else step)))

    def rows(self, rows: Rows) -> "Noise":
        """Return the streams of these rows."""
        return replace(self, keys=self.keys[rows])

    def _bits(self, count: int) -> Tensor:
        counter = torch.arange(1, count + 1, device=self.keys.device, dtype=torch.int64) * _GOLDEN
        return _mix(self.keys[:, None] + counter)

    def uniform(self, shape: torch.Size | tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Return (n, *shape) numbers, uniform in the open interval (0, 1), in float32 or float64."""
        count = math.prod(shape)
        if dtype == torch.float32:  # two numbers from 64 bits
            pairs = (count + 1) // 2
            halves = self._bits(pairs).flatten().view(torch.int32)
            bits, integers = 23, halves.view(len(self.keys), 2 * pairs)[:, :count]
        else:
            bits, integers = 52, self._bits(count)
        width = 8 * integers.element_size()
        # Signed integers with the low bits cleared: every step is exact, and the ends come no nearer than half a step.
        steps = integers.bitwise_and_(-(1 << (width - bits))).to(dtype)
        return steps.mul_(2.0**-width).add_(0.5 + 2.0 ** -(bits + 1)).view(len(self.keys), *shape)

    def normal(self, shape: torch.Size | tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Return (n, *shape) standard normal numbers (by the inverse of the distribution function)."""
        return self.uniform(shape, dtype).mul_(2).sub_(1).erfinv_().mul_(math.sqrt(2))

    def laplacian(self, shape: torch.Size | tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Return (n, *shape) numbers with density exp(-sqrt(2) |v|) / sqrt(2): mean 0, variance 1."""
        centred = self.uniform(shape, dtype).mul_(2).sub_(1)
        return centred.abs().neg_().log1p_().mul_(-math.sqrt(0.5)).copysign_(centred)
