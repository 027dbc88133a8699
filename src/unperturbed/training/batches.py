"""Which examples a step sees: a function of seed, step and process alone, so that any step can be the first again."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from unperturbed.data.split import Split
from unperturbed.noise import Noise
from unperturbed.types import Inputs, Labels, Rows


@dataclass(frozen=True, eq=False)
class Batches:
    """Shuffled batches of the training data, each with its share of the extra data.

    Ids are positions in the training split; those of extra examples follow after them.

    Attributes:
        split: the training data.
        ids: the examples of it that train (the others are held out).
        extra: more data, or None.
        batch_size: examples a step over all processes.
        extra_size: how many of them are extra.
        seed: of the shuffling.
        rank: of this process.
        world: how many processes share each batch.
    """

    split: Split
    ids: Rows
    extra: Split | None
    batch_size: int
    extra_size: int
    seed: int
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        """Return the batches of an epoch; examples that do not fill one wait for another epoch's shuffle."""
        return len(self.ids) // (self.batch_size - self.extra_size)

    def at(self, number: int) -> Rows:
        """Return the ids of batch `number`, counted from the first epoch's first; this process's part."""
        size = self.batch_size - self.extra_size
        epoch, place = divmod(number, len(self))
        order = _shuffled(len(self.ids), self.seed, epoch)
        ids = self.ids[order[place * size : (place + 1) * size]]
        if self.extra is not None and self.extra_size > 0:
            ids = torch.cat([ids, len(self.split) + self._extra_at(number)])
        return ids[self.rank :: self.world]

    def _extra_at(self, number: int) -> Rows:
        """Return the next `extra_size` places of an endless series of shuffles of the extra data."""
        assert self.extra is not None
        places = number * self.extra_size + torch.arange(self.extra_size)
        rounds, within = places // len(self.extra), places % len(self.extra)
        turns = set(rounds.tolist())
        shuffles = {turn: _shuffled(len(self.extra), self.seed + 1, turn) for turn in turns}
        return torch.stack([shuffles[int(turn)][place] for turn, place in zip(rounds, within, strict=True)])

    def read(self, ids: Rows) -> tuple[Inputs, Labels]:
        """Return the inputs and labels of these ids."""
        own = ids < len(self.split)
        if self.extra is None or bool(own.all()):
            return self.split.inputs(ids), self.split.labels[ids]
        more = ids[~own] - len(self.split)
        x = torch.cat([self.split.inputs(ids[own]), self.extra.inputs(more)])
        y = torch.cat([self.split.labels[ids[own]], self.extra.labels[more]])
        order = torch.cat([own.nonzero()[:, 0], (~own).nonzero()[:, 0]]).argsort()
        return x[order], y[order]

    def load(self, number: int) -> tuple[Rows, Inputs, Labels]:
        """Return the ids, inputs and labels of batch `number`."""
        ids = self.at(number)
        return ids, *self.read(ids)

    def read_ahead(self, numbers: Iterable[int]) -> Iterator[tuple[Rows, Inputs, Labels]]:
        """Yield ids, inputs and labels of these batches, the next one being read while one is worked on.

        Data in memory is read without a second thread, whose own pool of workers would slow the training down.
        """
        if self.split.in_memory and (self.extra is None or self.extra.in_memory):
            yield from map(self.load, numbers)
            return
        with ThreadPoolExecutor(1) as reader:
            waiting = None
            for number in numbers:
                following = reader.submit(self.load, number)
                if waiting is not None:
                    yield waiting.result()
                waiting = following
            if waiting is not None:
                yield waiting.result()


@lru_cache(maxsize=4)
def _shuffled(n: int, seed: int, turn: int) -> Tensor:
    """Return a random order of n things."""
    return Noise.of(seed, torch.arange(n)).fold(turn).keys.argsort()
