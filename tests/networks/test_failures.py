"""A failure on some examples costs those examples alone; batches too large for memory become smaller."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from support.shares import first
from support.toys import QUICK, Function, blobs, linear
from unperturbed.attacks.base import AttackResult
from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.errors import InputError, RunError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.curve import NEAREST, minimum_norm
from unperturbed.evaluation.transfer import FURTHER, transfer
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD
from unperturbed.networks.failures import carefully, failed_on, isolate, within_memory
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Logits

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
    with pytest.raises(RunError, match="20 examples, which fail even alone: ValueError: cannot do") as caught:
        isolate(raising_on(set(range(20))), torch.arange(20))  # type: ignore[arg-type]
    assert isinstance(caught.value.__cause__, ValueError)
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

    def run(batch_size: int) -> str:
        seen.append(batch_size)
        if batch_size > 8:
            raise error
        return "done"

    assert within_memory(run, 64) == ("done", 8) and seen == [64, 32, 16, 8]
    with pytest.raises(type(error)):
        within_memory(lambda batch_size: run(99), 4)


def test_other_errors_do_not_shrink_the_batch() -> None:
    seen = []

    def run(batch_size: int) -> None:
        seen.append(batch_size)
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        within_memory(run, 64)
    assert seen == [64]


class Seen:
    batch_size = 16


def test_what_memory_does_not_hold_and_what_fails_are_told_apart() -> None:
    """One row fails, and no more than four fit."""

    def run(rows: Tensor, batch_size: int) -> int:
        if batch_size > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        if 3 in rows:
            raise ValueError("three")
        return batch_size

    seen = Seen()
    results, failures = carefully(run, torch.arange(10), seen)
    assert seen.batch_size == 4 and {value for _, value in results} == {4} and set(failures) == {3}
    assert failed_on(failures, 10 * torch.arange(10), "it") == [
        "On 1 examples it failed, even alone; on number 30 with: ValueError('three')"
    ]
    assert failed_on({}, torch.arange(0), "it") == []


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


@pytest.mark.long
@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [True, False])
def test_means_over_draws_in_little_memory(gradient: bool) -> None:
    x, y = blobs(60)
    models = cramped(linear(6, 3), 8, gradient), linear(6, 3)
    outcome, plain = (evaluate(model, (x, y), THREAT, MEANS, batch_size=32) for model in models)
    assert outcome.examples["verdict"] == plain.examples["verdict"] and outcome.counts["unknown"] == 0
    assert any("Memory ran out" in text and "8 examples" in text for text in outcome.warnings)


@pytest.mark.slow
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


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("correct", [True, False])
def test_memory_for_fewer_than_eight_is_enough(correct: bool) -> None:
    """Also for the clean forward, and where there is nothing to attack: no example is tried in company then."""
    x, _ = blobs(60)
    y = (linear(6, 3)(x).argmax(1) + (not correct)) % 3
    models = cramped(linear(6, 3), 3, gradient=False), linear(6, 3)
    outcome, plain = (evaluate(model, (x, y), THREAT, QUICK, batch_size=16) for model in models)
    assert outcome.examples["verdict"] == plain.examples["verdict"] and outcome.counts["unknown"] == 0


# The curve


CURVE = replace(NEAREST, attacks=(MEANS.attacks[0], FAB("FAB", steps=5)))


@pytest.mark.long
@pytest.mark.slow
def test_the_curve_leaves_out_what_fails_alone() -> None:
    x, y, bad = apart(40)
    model, inner = poisoned(linear(6, 3), x[bad], 1e-6), linear(6, 3)
    found, plain = (minimum_norm(each, (x, y), THREAT, CURVE, radii=[0.02]) for each in (model, inner))
    rows = [row for row in range(40) if row not in bad]
    assert [found.examples["distance"][row] for row in rows] == [plain.examples["distance"][row] for row in rows]
    assert [found.examples["doubt"][row] for row in bad] == [0.0, 0.0] and found.counts["unknown"] == 2
    assert found.at(0.02).low < plain.at(0.02).low and found.at(0.02).value <= plain.at(0.02).value
    assert any("On 2 examples the forward failed" in text for text in found.warnings)


@pytest.mark.long
@pytest.mark.slow
def test_the_curve_where_searches_alone_fail() -> None:
    """At x nothing fails, but where a gradient is asked for."""
    x, y, bad = apart(40)
    correct = [row for row in bad if linear(6, 3)(x[row]).argmax() == y[row]]
    assert correct

    def logits(z: Inputs) -> Logits:
        if z.requires_grad and ((z[:, None] - x[bad]).abs().amax(2) < 1e-6).any():
            raise ValueError("not here")
        out: Logits = linear(6, 3)(z)
        return out

    found = minimum_norm(Function(logits), (x, y), THREAT, CURVE, radii=[0.02])
    assert all(found.examples["doubt"][row] == 0.0 for row in correct) and found.counts["unknown"] == len(correct)
    assert any("FAB failed" in text for text in found.warnings)


@pytest.mark.slow
def test_a_later_look_that_fails_leaves_a_doubt_where_it_was() -> None:
    """The second forward, at the points of the attack, fails."""
    x, y, bad = apart(40)
    correct = [row for row in bad if linear(6, 3)(x[row]).argmax() == y[row]]
    found_there = []

    def logits(z: Inputs) -> Logits:
        away = (z[:, None] - x[correct]).abs().amax(2)
        if not z.requires_grad and ((away > 0) & (away < 2 * THREAT.eps)).any():
            found_there.append(True)
            raise ValueError("not here")
        out: Logits = linear(6, 3)(z)
        return out

    quick = replace(NEAREST, attacks=MEANS.attacks)
    found, plain = (
        minimum_norm(model, (x, y), THREAT, quick, radii=[THREAT.eps]) for model in (Function(logits), linear(6, 3))
    )
    assert found_there and any("the forward failed" in text for text in found.warnings)
    for row in correct:
        assert found.examples["doubt"][row] <= THREAT.eps * 1.01 and found.examples["distance"][row] == math.inf
    assert found.at(THREAT.eps).value <= plain.at(THREAT.eps).value


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [True, False])
def test_the_curve_in_little_memory(gradient: bool) -> None:
    x, y = blobs(60)
    models = cramped(linear(6, 3), 8, gradient), linear(6, 3)
    found, plain = (minimum_norm(model, (x, y), THREAT, CURVE, batch_size=32) for model in models)
    assert found.examples["distance"] == pytest.approx(plain.examples["distance"], rel=1e-3)
    assert found.counts == plain.counts and found.counts["unknown"] == 0 and found.counts["broken"] > 2
    assert any("Memory ran out" in text and "8 examples" in text for text in found.warnings)


# Transfer


@pytest.mark.long
@pytest.mark.slow
def test_transfer_leaves_out_what_fails_alone() -> None:
    """One model fails on an example and on what is found near it, also on the other's points."""
    x, y, bad = apart(40)
    inner, other = linear(6, 3), linear(6, 3, seed=2)
    broken = poisoned(inner, x[bad], THREAT.eps + 1e-3)
    found, plain = (transfer({"a": model, "b": other}, (x, y), THREAT, QUICK) for model in (broken, inner))
    assert found.accuracy[1][1] == plain.accuracy[1][1]
    for i, j in ((0, 0), (1, 0)):
        one, whole = found.accuracy[i][j], plain.accuracy[i][j]
        assert whole.value - 2 / 40 <= one.value <= whole.value and one.low <= whole.low <= whole.high <= one.high
    assert any(text.startswith("a: On 2 examples the forward on another's points failed") for text in found.warnings)
    assert any(text.startswith("a: On 2 examples the forward failed") for text in found.warnings)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("most", "gradient"), first(1, [(8, True), (8, False), (4, False)]))
def test_transfer_in_little_memory(most: int, gradient: bool) -> None:
    x, y = blobs(60)
    models = cramped(linear(6, 3), most, gradient), linear(6, 3)
    found, plain = (
        transfer({"a": model, "b": linear(6, 3, seed=2)}, (x, y), THREAT, QUICK, batch_size=32) for model in models
    )
    assert [each.value for row in found.accuracy for each in row] == [
        each.value for row in plain.accuracy for each in row
    ]
    assert any(text.startswith("a: Memory ran out") and f"{most} examples" in text for text in found.warnings)


@pytest.mark.long
@pytest.mark.slow
def test_a_climb_to_its_end_that_fails_costs_nothing_else() -> None:
    x, y, bad = apart(40)
    model, poison = linear(6, 3), x[bad]

    class Failing(GradientAttack):
        def __call__(self, model: object, batch: Batch, *rest: object) -> AttackResult:
            if (batch.x[:, None] == poison).all(2).any():
                raise ValueError("not this one")
            return super().__call__(model, batch, *rest)  # type: ignore[arg-type]

    y = torch.where(torch.isin(torch.arange(40), torch.tensor(bad)), (model(x).argmax(1) + 1) % 3, y)
    failing = Failing(FURTHER.label, FURTHER.loss, FURTHER.ascent, enough=FURTHER.enough)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("unperturbed.evaluation.transfer_block.FURTHER", failing)
        found = transfer({"a": model, "b": linear(6, 3, seed=2)}, (x, y), THREAT, QUICK)
    plain = transfer({"a": model, "b": linear(6, 3, seed=2)}, (x, y), THREAT, QUICK)
    assert found.accuracy[0][0] == plain.accuracy[0][0] and found.accuracy[1][1] == plain.accuracy[1][1]
    assert any(text.startswith("a: On 2 examples the climb to its end failed") for text in found.warnings)
