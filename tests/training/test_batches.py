from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from support.toys import blobs, uniform
from unperturbed.data.split import array_split, hold_out
from unperturbed.networks.device import pins
from unperturbed.training.batches import Batches


def make(n: int = 50, size: int = 8, extra: int = 0, extra_size: int = 0, seed: int = 0) -> Batches:
    split = array_split(*blobs(n, classes=2))
    ids, _ = hold_out(split.labels, 0.2)
    more = array_split(uniform(extra, 6, seed=9), torch.full((extra,), 2)) if extra else None
    return Batches(split, ids, more, size, extra_size, seed)


def epoch(batches: Batches, number: int) -> Tensor:
    return torch.cat([batches.at(number * len(batches) + place) for place in range(len(batches))])


def test_an_epoch_visits_every_example_that_trains_at_most_once_and_no_other() -> None:
    batches = make()
    for number in range(5):
        ids = epoch(batches, number)
        assert len(ids) == len(ids.unique()) == 40 and torch.equal(ids.sort().values, batches.ids)


def test_what_does_not_fill_a_batch_waits_for_another_epoch() -> None:
    batches = make(size=7)
    assert len(batches) == 5 and all(len(epoch(batches, k).unique()) == 35 for k in range(4))
    assert len(torch.cat([epoch(batches, k) for k in range(8)]).unique()) == 40


def test_epochs_and_seeds_are_shuffled_apart() -> None:
    orders = [epoch(make(seed=seed), k).tolist() for seed in (0, 1, 2) for k in range(3)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])
    assert orders[0] != sorted(orders[0])


def test_a_step_is_the_same_wherever_the_run_began() -> None:
    late = make()
    last = late.at(23)
    early = make()
    assert torch.equal([early.at(number) for number in range(24)][23], last)
    numbers = iter(range(20, 24))
    assert torch.equal(list(make().read_ahead(numbers))[3][0], last)


@pytest.mark.parametrize(("world", "extra_size"), [(2, 0), (4, 0), (2, 4), (4, 2)])
def test_processes_share_each_batch_evenly(world: int, extra_size: int) -> None:
    batches = make(extra=11, extra_size=extra_size)
    for number in range(12):
        parts = [replace(batches, rank=rank, world=world).at(number) for rank in range(world)]
        assert {len(part) for part in parts} == {8 // world}
        assert torch.equal(torch.cat(parts).sort().values, batches.at(number).sort().values)


def test_each_batch_has_its_share_of_the_extra_data_which_is_used_evenly() -> None:
    batches = make(extra=11, extra_size=3)
    own, more = [], []
    for number in range(22):
        ids = batches.at(number)
        assert len(ids) == 8 and (ids >= 50).sum() == 3
        own.append(ids[ids < 50])
        more.append(ids[ids >= 50] - 50)
    counts = torch.cat(more).bincount(minlength=11)
    assert counts.tolist() == [6] * 11
    assert [sorted(part.tolist()) for part in torch.cat(more).split(11)] == [list(range(11))] * 6
    assert len(batches) == 40 // 5 and torch.cat(own[:8]).sort().values.tolist() == batches.ids.tolist()


def test_ids_lead_to_their_inputs_and_labels() -> None:
    batches = make(extra=11, extra_size=3)
    ids = batches.at(4)[torch.randperm(8, generator=torch.Generator().manual_seed(0))]
    x, y = batches.read(ids)
    own, own_labels = blobs(50, classes=2)
    every, labels = torch.cat([own, uniform(11, 6, seed=9)]), torch.cat([own_labels, torch.full((11,), 2)])
    assert torch.equal(x, every[ids]) and torch.equal(y, labels[ids])


def test_reading_ahead_keeps_the_order() -> None:
    batches = make(extra=11, extra_size=3)
    numbers = [3, 3, 4, 0, 17]
    for number, (ids, x, y) in zip(numbers, batches.read_ahead(iter(numbers)), strict=True):
        expected_x, expected_y = batches.read(ids)
        assert torch.equal(ids, batches.at(number)) and torch.equal(x, expected_x) and torch.equal(y, expected_y)


def test_reading_ahead_reads_one_batch_ahead_and_no_more() -> None:
    asked: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(5):
            asked.append(number)
            yield number

    stream = make().read_ahead(numbers())
    next(stream)
    assert len(asked) <= 2
    stream.close()


def test_reading_nothing() -> None:
    assert list(make().read_ahead(iter(()))) == []


def test_a_failure_to_read_is_seen() -> None:
    batches = make()

    def broken(ids: Tensor) -> Tensor:
        raise OSError("disk")

    batches.split.inputs = broken
    with pytest.raises(OSError, match="disk"):
        next(batches.read_ahead(iter([1, 2])))


def test_batches_are_pinned_for_cuda_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {kind: pins(torch.device(kind)) for kind in ("cpu", "cuda", "mps")} == {
        "cpu": False, "cuda": True, "mps": False,
    }  # fmt: skip
    pinned = list[torch.Tensor]()
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    split = array_split(torch.rand(12, 3), torch.arange(12) % 2)
    plain = Batches(split, torch.arange(12), None, 4, 0, 0)
    _, x, y = plain.load(1)
    assert pinned == []
    _, same_x, same_y = replace(plain, pinned=True).load(1)
    assert pinned[0] is same_x and pinned[1] is same_y and torch.equal(x, same_x) and torch.equal(y, same_y)
