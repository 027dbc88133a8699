"""Messages on errors inside the user's network: kind, place, inputs and remedy."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unperturbed import AT, Recipe, Threat, evaluate, train
from unperturbed.errors import InputError, RunError
from unperturbed.methods.erm import ERM
from unperturbed.networks.guard import described, running, trying

THREAT = Threat("Linf", 0.1)
X = torch.rand(40, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 3


class Raising(nn.Module):
    """Raises where `when` says so: of the inputs, and how many calls there were before."""

    def __init__(self, error: type[BaseException], when: Callable[[Tensor, int], bool]) -> None:
        super().__init__()
        self.layer, self.error, self.when, self.calls = nn.Linear(6, 3), error, when, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.when(x, self.calls):
            raise self.error("here")
        out: Tensor = self.layer(x)
        return out


KINDS = (KeyError, AssertionError, StopIteration, RecursionError, SystemExit, NotImplementedError, ZeroDivisionError)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_any_kind_at_once_is_bad_input(kind: type[BaseException]) -> None:
    model = Raising(kind, lambda x, calls: True)
    with pytest.raises(InputError, match=f"{kind.__name__}.*test_guard.py") as caught:
        evaluate(model, (X, Y), THREAT, "pgd")
    assert isinstance(caught.value.__cause__, kind)
    with pytest.raises(InputError, match=kind.__name__):
        train(model, (X, Y), THREAT, ERM(), Recipe(epochs=1, batch_size=8), device="cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_any_kind_in_a_step_names_the_step_and_its_examples(kind: type[BaseException]) -> None:
    model = Raising(kind, lambda x, calls: calls > 20 and len(x) == 8)
    with pytest.raises(
        RunError, match=rf"Step \d+: .*on examples \d+, .*shape \(8, 6\).*{kind.__name__}.* in Raising"
    ) as caught:
        train(model, (X, Y), THREAT, ERM(), Recipe(epochs=30, batch_size=8), device="cpu")
    assert isinstance(caught.value.__cause__, kind)


def test_what_fails_in_train_mode_alone_is_seen_before_the_folder_is_made(tmp_path: object) -> None:
    from pathlib import Path

    out = Path(str(tmp_path)) / "run"
    model = Raising(ValueError, lambda x, calls: False)
    model.when = lambda x, calls: model.training
    with pytest.raises(InputError, match="in train mode"):
        train(model, (X, Y), THREAT, ERM(), Recipe(epochs=1), device="cpu", out=out)
    assert not out.exists()
    model.when = lambda x, calls: False
    assert train(model, (X, Y), THREAT, ERM(), Recipe(epochs=1), device="cpu", out=out).folder == out


def test_an_evaluation_in_which_every_example_fails_says_where() -> None:
    model = Raising(KeyError, lambda x, calls: calls > 8)
    with pytest.raises((InputError, RunError), match=r"fail even alone.*KeyError.*test_guard.py"):
        evaluate(model, (X, Y), THREAT, "pgd")


def test_the_project_speaks_first_where_it_has_said_what_to_do() -> None:
    with pytest.raises(InputError, match="^a$"), running("b"):
        raise InputError("a")
    with pytest.raises(RunError, match="^a$"), running("b"):
        raise RunError("a")
    with pytest.raises(KeyboardInterrupt), running("b"):
        raise KeyboardInterrupt


def test_the_layer_is_named() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(6, 4), nn.Linear(5, 3)))
    with pytest.raises(InputError, match=r"in layer '1.1' \(Linear\).*Shapes do not fit"), trying("running it"):
        model(X)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (torch.tensor([[0.0, 2.0]]), "shape (1, 2), float32, from 0 to 2"),
        (torch.tensor([1.0, torch.nan]), "shape (2,), float32, from 1 to 1, 1 of them NaN or infinite"),
        (torch.tensor([3], dtype=torch.uint8), "shape (1,), uint8, from 3 to 3"),
        (torch.zeros(0, 2), "shape (0, 2), float32"),
        (torch.ones(1, dtype=torch.complex64), "shape (1,), complex64"),
        (torch.ones(1, dtype=torch.bool), "shape (1,), bool, from 1 to 1"),
    ],
)
def test_inputs_are_described(x: Tensor, text: str) -> None:
    assert described(x) == text


def test_a_method_of_the_users_is_guarded_too() -> None:
    class Broken(AT):
        def loss(self, *arguments: object) -> dict[str, Tensor]:  # type: ignore[override]
            raise LookupError("no such table")

    with pytest.raises(InputError, match="trying a step of at.*LookupError: no such table"):
        train(nn.Linear(6, 3), (X, Y), THREAT, Broken(), Recipe(epochs=1), device="cpu")
