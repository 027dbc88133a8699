from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unperturbed.errors import RunError
from unperturbed.methods.base import Method
from unperturbed.methods.erm import ERM
from unperturbed.methods.free import Free
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training import checkpoint
from unperturbed.types import Batch, Inner, Model, Terms


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    state = {"weights": {"a": torch.arange(3.0)}, "step": 7, "text": "x", "none": None, "list": [1.5, True]}
    checkpoint.save(tmp_path / "sub/last.pt", state)
    loaded = checkpoint.load(tmp_path / "sub/last.pt")
    assert torch.equal(loaded.pop("weights")["a"], torch.arange(3.0))
    assert loaded == {"step": 7, "text": "x", "none": None, "list": [1.5, True]}


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_checkpoint_is_told(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"weights": torch.zeros(1000)})
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "other": b"not a checkpoint"}[damage])
    with pytest.raises(RunError, match=r"last.pt is damaged .*start the run again"):
        checkpoint.load(path)


class Callback:
    ran = False

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return (Callback.run, ())

    @staticmethod
    def run() -> None:
        Callback.ran = True


def test_a_checkpoint_never_runs_code(tmp_path: Path) -> None:
    torch.save({"state": Callback()}, tmp_path / "last.pt")
    with pytest.raises(RunError):
        checkpoint.load(tmp_path / "last.pt")
    assert not Callback.ran


@dataclass(frozen=True)
class Wrapper(Method):
    """A method around another one, with a memory of its own beside it."""

    inner: Method
    weight: nn.Module = field(default_factory=lambda: nn.BatchNorm1d(2))

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        return self.inner.perturb(model, batch, threat, noise)

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        return self.inner.loss(model, batch, inner, threat, noise)


def nested(delta: Tensor) -> Wrapper:
    free = Free()
    free.delta = delta
    return Wrapper(Wrapper(free))


def test_the_memory_of_methods_within_methods_is_found_and_put_back() -> None:
    method = nested(torch.ones(2, 3))
    method.inner.weight.running_mean += 5
    saved = checkpoint.memory(method)
    assert torch.equal(saved["inner.inner.delta"], torch.ones(2, 3))
    assert set(saved) == {"inner.inner.delta"} | {
        f"{path}weight.{name}"
        for path in ("", "inner.")
        for name in ("running_mean", "running_var", "num_batches_tracked")
    }
    fresh = nested(torch.zeros(0))
    checkpoint.restore_memory(fresh, saved)
    assert torch.equal(fresh.inner.inner.delta, torch.ones(2, 3))
    assert fresh.inner.weight.running_mean.tolist() == [5.0, 5.0]
    assert fresh.weight.running_mean.tolist() == [0.0, 0.0]


def test_what_is_saved_does_not_change_with_the_method() -> None:
    free = Free()
    free.delta = torch.ones(2)
    saved = checkpoint.memory(free)
    free.delta.zero_()
    assert saved["delta"].tolist() == [1.0, 1.0]


def test_methods_without_memory_have_none() -> None:
    assert checkpoint.memory(ERM()) == {} and checkpoint.memory(Wrapper(ERM(), nn.Identity())) == {}
