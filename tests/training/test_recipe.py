from typing import Any

import pytest

from unperturbed.errors import InputError
from unperturbed.training.recipe import Recipe


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"epochs": 0}, "epochs is 0, but must be at least 1"),
        ({"batch_size": -3}, "batch_size is -3"),
        ({"patience": 0}, "patience is 0"),
        ({"lr": 0.0}, "lr is 0.0, but must be positive"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"clip_grad_norm": -1.0}, "clip_grad_norm is -1.0"),
        ({"label_smoothing": 1.0}, r"label_smoothing is 1.0, but must lie in \[0, 1\)"),
        ({"validation": -0.1}, "validation is -0.1"),
        ({"averaging": 1.0}, "averaging is 1.0"),
        ({"extra_ratio": 1.5}, "extra_ratio is 1.5"),
        ({"ramp": 1.1}, "ramp is 1.1"),
        ({"weight_decay": -1e-4}, "weight_decay is -0.0001"),
    ],
)
def test_what_cannot_be_meant_is_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe(**setting)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("schedule", "one_cycle", "schedule is 'one_cycle', but must be one of one-cycle, cosine, step, constant"),
        ("optimiser", "SGD", "optimiser is 'SGD'"),
        ("augment", "flips", "augment is 'flips'"),
        ("alarm", "Stop", "alarm is 'Stop'"),
        ("precision", "fp16", "precision is 'fp16'"),
    ],
)
def test_a_word_that_does_not_exist_is_refused(name: str, value: str, message: str) -> None:
    """As a caller sees it, whose annotations nobody checks."""
    recipe = Recipe()
    object.__setattr__(recipe, name, value)
    with pytest.raises(InputError, match=message):
        recipe.__post_init__()


def test_the_limits_themselves_are_fine() -> None:
    Recipe(epochs=1, batch_size=1, patience=1, label_smoothing=0.0, validation=0.0, ramp=1.0, weight_decay=0.0)
