"""The state of a model: evaluated in eval mode (S3, S11), and restored (S4), also after a failure (S5)."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from support.examples import same, snapshot, untouched, with_gradients
from support.shares import first
from support.toys import QUICK, Quitting, blobs, equal, mlp, state
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method
from unperturbed.methods.erm import ERM
from unperturbed.methods.fgsm import RS_FGSM
from unperturbed.methods.free import Free
from unperturbed.methods.trades import TRADES
from unperturbed.threat import Threat
from unperturbed.training.loop import train
from unperturbed.training.recipe import Recipe

THREAT = Threat("Linf", 0.1)


def trained_with_norm() -> nn.Sequential:
    """Return a network whose running statistics are far from those of a batch."""
    model = mlp(6, 3, norm=True)
    train(model, blobs(120), THREAT, ERM(), Recipe(epochs=2, seed=1))
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm1d)
    norm.running_mean += 0.3
    return model.train()


def mixed_modes() -> nn.Module:
    """Return a network in train mode with a frozen batch norm in it, some weights without gradient."""
    model = nn.Sequential(mlp(6, 3, norm=True, dropout=0.2), nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
    model[1][0].weight.data, model[1][0].bias.data = torch.eye(3), torch.zeros(3)
    model.train()
    model[1][1].eval().requires_grad_(False)
    model[0][0].weight.requires_grad_(False)
    return with_gradients(model)


@pytest.mark.slow
def test_a_model_in_train_mode_is_evaluated_in_eval_mode_s3() -> None:
    data, model = blobs(150, seed=3), trained_with_norm()
    with untouched(model):
        in_train_mode = evaluate(model, data, THREAT, QUICK)
    in_eval_mode = evaluate(model.eval(), data, THREAT, QUICK)
    assert in_train_mode.examples == in_eval_mode.examples
    assert 0 < in_train_mode.counts["broken"] and 0 < in_train_mode.counts["survived"]


@pytest.mark.long
@pytest.mark.slow
def test_batch_norm_does_not_make_the_result_depend_on_the_batch_size_s3() -> None:
    data, model = blobs(150, seed=3), trained_with_norm()
    outcomes = [evaluate(model, data, THREAT, QUICK, batch_size=size) for size in (256, 32, 4)]
    assert not any(outcome.ties for outcome in outcomes)
    assert outcomes[0].examples["verdict"] == outcomes[1].examples["verdict"] == outcomes[2].examples["verdict"]


def test_every_submodule_comes_back_in_its_own_mode_s4() -> None:
    model = mixed_modes()
    with untouched(model):
        evaluate(model, blobs(20), THREAT, QUICK)
    assert model.training and not model[1][1].training


@pytest.mark.parametrize("last", [2, 3, 10, 20])
def test_an_interruption_midway_changes_nothing_s5(last: int) -> None:
    """The forwards are: a look at the outputs (2), the clean logits (3), and then the attacks."""
    inner, data = mixed_modes(), blobs(20)
    model = Quitting(inner, last, KeyboardInterrupt)
    with untouched(inner), pytest.raises(KeyboardInterrupt, match="quit"):
        evaluate(model, data, THREAT, QUICK, batch_size=4)
    assert model.calls == last
    assert evaluate(inner, data, THREAT, QUICK).examples == evaluate(mixed_modes(), data, THREAT, QUICK).examples


@pytest.mark.slow
@pytest.mark.parametrize("last", [5, 10, 18])
def test_a_single_failure_midway_changes_nothing_s5(last: int) -> None:
    """A failed forward is repeated on fewer examples, in case one of them is the cause.

    From forward 19 on a single example is left.
    """
    inner, data = mixed_modes(), blobs(20)
    with untouched(inner):
        outcome = evaluate(Quitting(inner, last, RuntimeError), data, THREAT, QUICK, batch_size=4)
    assert outcome.counts["unknown"] == 0
    assert outcome.examples["verdict"] == evaluate(inner, data, THREAT, QUICK).examples["verdict"]


def test_the_first_failure_of_all_changes_nothing_s5() -> None:
    inner = mixed_modes()
    with untouched(inner), pytest.raises(ValueError, match="the model fails on an input of shape"):
        evaluate(Quitting(inner, 1), blobs(20), THREAT, QUICK)


def test_no_submodule_ever_runs_in_train_mode_on_test_data_s11() -> None:
    model, modes = mixed_modes(), []
    for module in model.modules():
        module.register_forward_pre_hook(lambda m, _: modes.append(m.training))
    before = snapshot(model)
    evaluate(model, blobs(40), THREAT, QUICK)
    assert len(modes) > 100 and not any(modes)
    assert same(before, snapshot(model))


@pytest.mark.slow
@pytest.mark.parametrize("make", first(2, [AT, Free, ERM, RS_FGSM, TRADES]))
def test_training_ends_in_eval_mode_s11(make: Callable[[], Method]) -> None:
    model, test = mlp(6, 3, norm=True, dropout=0.2), blobs(60, seed=9)
    trained = train(model, blobs(90), THREAT, make(), Recipe(epochs=2))
    assert trained.model is model and not any(module.training for module in model.modules())
    assert all(weight.requires_grad for weight in model.parameters())
    before = state(model)
    first, second = evaluate(model, test, THREAT, QUICK), evaluate(model, test, THREAT, QUICK)
    assert equal(before, state(model)) and first.examples == second.examples
    assert first.examples == evaluate(model.eval(), test, THREAT, QUICK).examples


def test_running_statistics_see_one_training_batch_a_step_and_nothing_else_s11() -> None:
    x, y = blobs(90)
    model = mlp(6, 3, norm=True)
    steps: list[float] = []
    train(model, (x, y), THREAT, AT(), Recipe(epochs=1), progress=lambda done, *_: steps.append(done))
    assert int(model[1].num_batches_tracked) == len(steps) > 0
