"""The batches of a run: a function of seed, step and process, so that a run can resume at any step."""

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
    """Shuffled batches of the training data, with a share of extra data.

    Ids are positions in the training split; those of extra examples follow after them.

    Attributes:
        split: the training data.
        ids: its training examples (the others are held out).
        extra: more data, or None.
        batch_size: examples per step over all processes.
        extra_size: number of extra examples among them.
        seed: of the shuffling.
        rank: of this process.
        world: number of processes that share each batch.
        pinned: whether batches lie in pinned memory, from which a GPU copies them while it computes.
    """

    split: Split
    ids: Rows
    extra: Split | None
    batch_size: int
    extra_size: int
    seed: int
    rank: int = 0
    world: int = 1
    pinned: bool = False

    def __len__(self) -> int:
        """Return the number of batches of an epoch; an incomplete batch is dropped."""
        return len(self.ids) // (self.batch_size - self.extra_size)

    def at(self, number: int) -> Rows:
        """Return this process's ids of batch `number`, counted over all epochs from 0."""
        size = self.batch_size - self.extra_size
        epoch, index = divmod(number, len(self))
        order = _shuffled(len(self.ids), self.seed, epoch)
        ids = self.ids[order[index * size : (index + 1) * size]]
        if self.extra is not None and self.extra_size > 0:
            ids = torch.cat([ids, len(self.split) + self._extra_at(number)])
        return ids[self.rank :: self.world]

    def _extra_at(self, number: int) -> Rows:
        """Return the next `extra_size` positions in an endless series of shuffles of the extra data."""
        assert self.extra is not None
        positions = number * self.extra_size + torch.arange(self.extra_size)
        rounds, within = positions // len(self.extra), positions % len(self.extra)
        turns = set(rounds.tolist())
        shuffles = {turn: _shuffled(len(self.extra), self.seed + 1, turn) for turn in turns}
        return torch.stack([shuffles[int(turn)][position] for turn, position in zip(rounds, within, strict=True)])

    def read(self, ids: Rows) -> tuple[Inputs, Labels]:
        """Return the inputs and labels of these ids."""
        of_training = ids < len(self.split)
        if self.extra is None or bool(of_training.all()):
            return self.split.inputs(ids), self.split.labels[ids]
        extra_ids = ids[~of_training] - len(self.split)
        x = torch.cat([self.split.inputs(ids[of_training]), self.extra.inputs(extra_ids)])
        y = torch.cat([self.split.labels[ids[of_training]], self.extra.labels[extra_ids]])
        order = torch.cat([of_training.nonzero()[:, 0], (~of_training).nonzero()[:, 0]]).argsort()
        return x[order], y[order]

    def load(self, number: int) -> tuple[Rows, Inputs, Labels]:
        """Return the ids, inputs and labels of batch `number`."""
        ids = self.at(number)
        x, y = self.read(ids)
        return (ids, x.pin_memory(), y.pin_memory()) if self.pinned else (ids, x, y)

    def read_ahead(self, numbers: Iterable[int]) -> Iterator[tuple[Rows, Inputs, Labels]]:
        """Yield ids, inputs and labels of these batches, with the next batch read in the background.

        Data in memory are read without a second thread, whose pool of workers would slow the training down.
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
    """Return a random permutation of n positions."""
    return Noise.of(seed, torch.arange(n)).fold(turn).keys.argsort()
