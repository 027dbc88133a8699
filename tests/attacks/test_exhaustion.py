"""Random search ends where no proposal is left, with the result of all its queries."""

import pytest
import torch
from torch import Tensor

from support import attack_laws as laws
from unperturbed.attacks import exhaustion
from unperturbed.attacks.patches import Patches
from unperturbed.attacks.square import LocalSearch, Square
from unperturbed.losses import margin
from unperturbed.threat import Threat
from unperturbed.types import Batch

SHAPES = [(1, 5, 5), (2, 3, 3), (12,)]


def batch_of(shape: tuple[int, ...]) -> tuple[torch.nn.Module, Batch]:
    model, x = laws.Wavy(lead=30.0, shape=shape), 0.2 + 0.6 * laws.inputs(6, shape)
    return model, laws.batch_for(model, x, laws.zeros(x))


@pytest.mark.slow
@pytest.mark.parametrize("attack", [Square(queries=1500), LocalSearch(queries=600)], ids=["square", "local"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_result_is_that_of_all_queries(
    attack: Square | LocalSearch, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = batch_of(shape)
    threat = Threat("Linf", 0.1)
    short = laws.run(attack, model, batch, threat)
    monkeypatch.setattr(exhaustion, "MOST", 0)
    whole = laws.run(attack, model, batch, threat)
    assert torch.equal(short.z, whole.z) and torch.equal(short.margin, whole.margin)
    assert whole.passes == attack.queries * 6 > 1.2 * short.passes
    assert torch.equal(short.finite, whole.finite) and short.passes == int(short.queries.sum())


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_ends_at_points_that_no_pixel_improves(shape: tuple[int, ...]) -> None:
    model, batch = batch_of(shape)
    threat = Threat("Linf", 0.1)
    found = laws.run(Square(queries=5000), model, batch, threat)
    assert found.passes < 5000 * 6
    low, high = (threat.project(batch.x, batch.x + sign * threat.eps) for sign in (-1, 1))
    channels = shape[0] if len(shape) == 3 else 1
    z, low, high = (part.reshape(6, channels, -1) for part in (found.z, low, high))
    for pixel in range(z.shape[2]):
        for combination in range(2**channels):
            changed = z.clone()
            for channel in range(channels):
                end = high if combination >> channel & 1 else low
                changed[:, channel, pixel] = end[:, channel, pixel]
            assert (margin(model(changed.view(batch.x.shape)), batch.y) <= found.margin + 1e-6).all()


def test_inputs_of_many_channels_are_attacked_to_the_end() -> None:
    model, batch = batch_of((70, 1, 2))
    assert laws.run(Square(queries=30), model, batch, Threat("Linf", 0.1)).passes == 6 * 30


def test_features_that_may_not_change_are_no_obstacle() -> None:
    """Half of the features have equal lower and upper bounds."""
    model, batch = batch_of((12,))
    low = torch.where(torch.arange(12) % 2 == 0, batch.x[0], 0.0)
    batch.x[:, ::2] = batch.x[0, ::2]
    threat = Threat("Linf", 0.1, bounds=(low, torch.where(torch.arange(12) % 2 == 0, batch.x[0], 1.0)))
    assert laws.run(Square(queries=5000), model, batch, threat).passes < 6 * 2500


@pytest.mark.long
@pytest.mark.slow
def test_a_search_on_a_network_that_draws_random_numbers_does_not_end() -> None:
    """A forward that is repeated may succeed there. One draw in 80,000 or so repeats a margin: the draws are fixed."""
    torch.manual_seed(0)

    class Drawing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = laws.Wavy(lead=30.0, shape=(12,))

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) * (1 + 0.01 * torch.rand(len(x), 1))

    model, (_, batch) = Drawing(), batch_of((12,))
    assert laws.run(Square(queries=1500), model, batch, Threat("Linf", 0.1)).passes == 6 * 1500


@pytest.mark.parametrize(
    ("norm", "shape", "after"),
    [
        ("Linf", (1, 8, 8), 1000),
        ("Linf", (1, 28, 28), 8000),
        ("Linf", (1, 64, 64), None),
        ("Linf", (1,), 0),
        ("L2", (1, 8, 8), None),
    ],
)
def test_the_query_after_which_squares_are_pixels(norm: str, shape: tuple[int, ...], after: int | None) -> None:
    patches = Patches(Threat(norm, 0.1), torch.zeros(1, *shape), 0.8)  # type: ignore[arg-type]
    assert patches.single_pixels_after() == after
