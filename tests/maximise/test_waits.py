"""Attacks and training steps do not wait for the device: no value is read from it within the inner loop.

On the device "meta", which holds no values, reading one raises an error. On the processor, a dispatch mode counts the
reads: `item`, `bool`, `nonzero`, and comparisons of whole tensors.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from support.examples import make_batch, network, noise_for
from unperturbed.losses import cross_entropy
from unperturbed.maximise.adam import Adam
from unperturbed.maximise.apgd import APGD
from unperturbed.maximise.ascent import Ascent, search
from unperturbed.maximise.frank_wolfe import FrankWolfe
from unperturbed.maximise.langevin import Langevin
from unperturbed.maximise.pgd import PGD
from unperturbed.maximise.slopes import noticing, usable
from unperturbed.methods.at import AT
from unperturbed.methods.trades import TRADES
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training.step import optimisation_step
from unperturbed.types import Inputs, Norm, PerExample, Rows

READS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "unique")
ASCENTS: dict[str, Callable[[int], Ascent]] = {
    "pgd": lambda steps: PGD(steps=steps),
    "apgd": lambda steps: APGD(steps=steps),
    "frank-wolfe": lambda steps: FrankWolfe(steps=steps),
    "langevin": lambda steps: Langevin(steps=steps),
    "adam": lambda steps: Adam(steps=steps),
}


class Reads(TorchDispatchMode):
    """Count the operations that read values, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        name = func.name().removeprefix("aten::").partition(".")[0]
        by_mask = name in ("index", "index_put", "index_put_") and any(
            isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1]
        )
        if name in READS or by_mask:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def score_of(model: nn.Module, y: Tensor) -> Callable[[Inputs, Rows], PerExample]:
    return lambda z, rows: cross_entropy(model(z), y[rows])


@pytest.mark.slow
@pytest.mark.parametrize("name", ASCENTS)
def test_no_value_is_read_in_the_loop_of_training_in_linf(name: str) -> None:
    """Twenty steps pass the checkpoints of apgd."""
    model, batch = network("plain").eval(), make_batch(6)
    away, x, y, keys = model.to("meta"), batch.x.to("meta"), batch.y.to("meta"), noise_for(batch).keys.to("meta")
    z = ASCENTS[name](20)(score_of(away, y), x, Threat("Linf", 0.1), Noise(keys))
    assert z.device.type == "meta" and z.shape == x.shape


def test_reading_a_value_from_the_device_raises_an_error() -> None:
    """Else the test above could not fail."""
    with pytest.raises(RuntimeError):
        bool(torch.zeros(1, device="meta").any())
    with pytest.raises(NotImplementedError):
        torch.zeros(3, device="meta")[torch.zeros(3, dtype=torch.bool, device="meta")]


@pytest.mark.parametrize(("norm", "most"), [("L2", 20), ("L1", 20)])
def test_exact_projections_in_l2_and_l1_read_a_value_an_iteration(norm: Norm, most: int) -> None:
    """Their loops end when no example changes, which is read from the device."""
    model, batch = network("plain").eval(), make_batch(6)
    with Reads() as reads:
        PGD(steps=10)(score_of(model, batch.y), batch.x, Threat(norm, 0.5), noise_for(batch))
    assert 10 <= reads.counts.total() <= 10 * most


@pytest.mark.parametrize("method", [AT(PGD(steps=4)), AT(PGD(steps=8)), TRADES(maximiser=PGD(steps=4))])
def test_a_training_step_reads_three_values_whatever_its_inner_steps_are(method: AT | TRADES) -> None:
    """Whether loss and gradient are finite, on any device; on the processor also whether an inner gradient is."""
    model, batch = network("plain"), make_batch(8)
    fabric = Fabric(accelerator="cpu", devices=1)
    wrapped, optimiser = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    noise = noise_for(batch)
    with Reads() as reads:
        optimisation_step(fabric, model, wrapped, optimiser, method, batch, Threat("Linf", 0.1), noise)
    of_processor = method.maximiser.steps if isinstance(method.maximiser, PGD) else 0
    assert reads.counts["_local_scalar_dense"] - of_processor == 2
    assert reads.counts.total() - reads.counts["_local_scalar_dense"] == 0


def test_a_search_reads_a_fixed_number_of_values_a_move() -> None:
    """Its queue lets examples leave; the number does not grow with the examples."""
    totals = []
    for n in (8, 64):
        model, batch = network("plain").eval(), make_batch(n)
        with Reads() as reads:
            search(
                PGD(steps=20),
                score_of(model, batch.y),
                batch.x,
                Threat("Linf", 1e-6),
                noise_for(batch),
                1,
                n,
                torch.inf,
            )
        totals.append(reads.counts.total())
    assert max(totals) <= 21 * 25
    assert abs(totals[0] - totals[1]) <= 21


def test_gradients_are_replaced_alike_on_every_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of GPUs asks nothing; a finite gradient comes out of it with its bits."""
    gradient = torch.randn(5, 7)
    gradient[0, 0] = -0.0
    gradient[1] = 0.0
    with noticing() as replaced:
        other = usable_elsewhere(gradient)
    assert torch.equal(other, gradient) and torch.equal(other.signbit(), gradient.signbit())
    assert not replaced.any
    gradient[2, 3], gradient[3, 1], gradient[4, 4] = torch.nan, torch.inf, -torch.inf
    with noticing() as replaced:
        other = usable_elsewhere(gradient)
    assert torch.equal(other, usable(gradient)) and replaced.any


def usable_elsewhere(gradient: Tensor) -> Tensor:
    """Return `usable` of a tensor that says that it is on a GPU."""
    return usable(Elsewhere(gradient)).as_subclass(Tensor)


class Elsewhere(Tensor):
    """A tensor of the processor under the name of another device."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda")

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))
