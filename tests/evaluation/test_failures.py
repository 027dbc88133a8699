"""What fails on some examples costs those examples alone; what memory does not hold goes in smaller batches."""

import pytest
import torch
from torch import Tensor, nn

from toys import QUICK, Function, blobs, linear
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.failures import carefully, isolate, told, within_memory
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Logits

THREAT = Threat("Linf", 0.05)
MEANS = Suite("rand", (GradientAttack("margin", margin, PGD(steps=4), draws=2),), "a test")


def raising_on(poison: set[int], error: type[Exception] = ValueError) -> object:
    def run(rows: Tensor) -> Tensor:
        if poison & set(rows.tolist()):
            raise error(f"cannot do {rows.tolist()}")
        return rows * 10

    return run


@pytest.mark.parametrize("poison", [set[int](), {0}, {3, 4, 17}, set(range(19))])
def test_what_fails_alone_is_told_from_the_rest(poison: set[int]) -> None:
    results, failures = isolate(raising_on(poison), torch.arange(20))  # type: ignore[arg-type]
    assert set(failures) == poison
    done = torch.cat([rows for rows, _ in results])
    assert sorted(done.tolist()) == sorted(set(range(20)) - poison)
    assert torch.equal(torch.cat([value for _, value in results]), done * 10)


def test_what_fails_on_all_of_many_is_raised_and_on_all_of_a_few_is_kept() -> None:
    with pytest.raises(ValueError, match="cannot do"):
        isolate(raising_on(set(range(20))), torch.arange(20))  # type: ignore[arg-type]
    results, failures = isolate(raising_on({0, 1}), torch.arange(2))  # type: ignore[arg-type]
    assert not results and set(failures) == {0, 1}


def test_bad_input_is_no_matter_of_the_examples() -> None:
    with pytest.raises(InputError):
        isolate(raising_on({3}, InputError), torch.arange(20))  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory."), MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
], ids=lambda error: type(error).__name__)  # fmt: skip
def test_the_batch_is_halved_until_memory_suffices(error: Exception) -> None:
    seen = []

    def run(places: int) -> str:
        seen.append(places)
        if places > 8:
            raise error
        return "done"

    assert within_memory(run, 64) == ("done", 8) and seen == [64, 32, 16, 8]
    with pytest.raises(type(error)):
        within_memory(lambda places: run(99), 4)


def test_other_errors_do_not_shrink_the_batch() -> None:
    seen = []

    def run(places: int) -> None:
        seen.append(places)
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        within_memory(run, 64)
    assert seen == [64]


class Seen:
    places = 16


def test_what_memory_does_not_hold_and_what_fails_are_told_apart() -> None:
    """One row fails, and no more than four fit."""

    def run(rows: Tensor, places: int) -> int:
        if places > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        if 3 in rows:
            raise ValueError("three")
        return places

    seen = Seen()
    results, failures = carefully(run, torch.arange(10), seen)
    assert seen.places == 4 and {value for _, value in results} == {4} and set(failures) == {3}
    assert told(failures, 10 * torch.arange(10), "it") == [
        "On 1 examples it failed, even alone; on number 30 with: ValueError('three')"
    ]
    assert told({}, torch.arange(0), "it") == []


def poisoned(inner: nn.Module, poison: Tensor, room: float) -> Function:
    """Return a network that fails within so much of some points."""

    def logits(z: Inputs) -> Logits:
        if ((z[:, None] - poison).abs().amax(2) < room).any():
            raise ValueError("a value that this network cannot take")
        out: Logits = inner(z)
        return out

    return Function(logits)


def cramped(inner: nn.Module, most: int, gradient: bool) -> Function:
    """Return a network that memory holds for so many examples at a time, with or without a gradient."""

    def logits(z: Inputs) -> Logits:
        if len(z) > most and (z.requires_grad or not gradient):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        out: Logits = inner(z)
        return out

    return Function(logits)


def apart(n: int) -> tuple[Inputs, Tensor, list[int]]:
    """Return examples, and two of them that no other comes near."""
    x, y = blobs(n)
    bad = [5, 23]
    near = ((x[:, None] - x[bad]).abs().amax(2) < 2 * THREAT.eps + 2e-3).any(1)
    assert near.sum() == 2
    return x, y, bad


def test_means_over_draws_leave_out_what_fails_alone() -> None:
    x, y, bad = apart(40)
    model, inner = poisoned(linear(6, 3), x[bad], THREAT.eps + 1e-3), linear(6, 3)
    outcome, plain = (evaluate(each, (x, y), THREAT, MEANS) for each in (model, inner))
    verdicts = outcome.examples["verdict"]
    assert [row for row, verdict in enumerate(verdicts) if verdict == "unknown"] == bad
    assert all(one == other for one, other in zip(verdicts, plain.examples["verdict"], strict=True) if one != "unknown")
    assert {"broken", "survived"} <= set(verdicts)
    robust = outcome.robust_accuracy
    assert robust.low < plain.robust_accuracy.low and robust.high >= robust.value + 1 / 40
    assert any("On 2 examples" in text and "cannot take" in text for text in outcome.warnings)


def test_means_over_draws_where_attacks_alone_fail() -> None:
    """At x nothing fails: what the search did not see is unknown all the same."""
    x, y, bad = apart(40)

    def logits(z: Inputs) -> Logits:
        if z.requires_grad and ((z[:, None] - x[bad]).abs().amax(2) < THREAT.eps + 1e-3).any():
            raise ValueError("no gradient here")
        out: Logits = linear(6, 3)(z)
        return out

    verdicts = evaluate(Function(logits), (x, y), THREAT, MEANS).examples["verdict"]
    clean = linear(6, 3)(x).argmax(1)
    assert [verdicts[row] for row in bad] == ["unknown" if clean[row] == y[row] else "misclassified" for row in bad]
    assert (clean[bad] == y[bad]).any()


@pytest.mark.parametrize("gradient", [True, False])
def test_means_over_draws_in_little_memory(gradient: bool) -> None:
    x, y = blobs(60)
    models = cramped(linear(6, 3), 8, gradient), linear(6, 3)
    outcome, plain = (evaluate(model, (x, y), THREAT, MEANS, batch_size=32) for model in models)
    assert outcome.examples["verdict"] == plain.examples["verdict"] and outcome.counts["unknown"] == 0
    assert any("Memory ran out" in text and "8 examples" in text for text in outcome.warnings)


def test_an_example_that_the_network_fails_on_is_unknown_and_the_others_are_as_without_it() -> None:
    x, y = blobs(40)
    inner, bad = linear(6, 3), [5, 23]
    poison = x[bad].clone()

    def logits(z: Inputs) -> Logits:
        if ((z[:, None] - poison).abs().amax(2) < THREAT.eps + 1e-3).any():
            raise ValueError("a value that this network cannot take")
        out: Logits = inner(z)
        return out

    near = ((x[:, None] - poison).abs().amax(2) < 2 * THREAT.eps + 2e-3).any(1)
    assert near.sum() == 2, "no other example may come near"
    plain = evaluate(inner, (x, y), THREAT, QUICK).examples["verdict"]
    outcome = evaluate(Function(logits), (x, y), THREAT, QUICK)
    verdicts = outcome.examples["verdict"]
    assert [verdicts[row] for row in bad] == ["unknown"] * 2
    assert [v for row, v in enumerate(verdicts) if row not in bad] == [
        v for row, v in enumerate(plain) if row not in bad
    ]
    assert outcome.robust_accuracy.value == verdicts.count("survived") / 40
    assert outcome.robust_accuracy.high > evaluate(inner, (x, y), THREAT, QUICK).robust_accuracy.low
    assert any("2 examples" in text and "a value that this network cannot take" in text for text in outcome.warnings)


def test_little_memory_is_told_and_changes_no_verdict() -> None:
    x, y = blobs(60)
    inner = linear(6, 3)

    def logits(z: Inputs) -> Logits:
        if len(z) > 8 and z.requires_grad:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        out: Logits = inner(z)
        return out

    outcome, plain = (evaluate(model, (x, y), THREAT, QUICK, batch_size=32) for model in (Function(logits), inner))
    assert outcome.examples["verdict"] == plain.examples["verdict"] and outcome.counts["unknown"] == 0
    assert any("Memory ran out" in text and "8 examples" in text for text in outcome.warnings)
