"""Square: what it reaches, and shapes of every kind."""

from dataclasses import replace

import pytest
import torch

from support import attack_laws as laws
from support.examples import NORMS
from unperturbed.attacks.patches import _HALVINGS, Patches, _bumps, _patch_size
from unperturbed.attacks.square import LocalSearch, Square
from unperturbed.errors import InputError
from unperturbed.losses import margin
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Norm


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps", "share"), [("Linf", 0.1, 0.75), ("L2", 2.0, 0.55), ("L1", 12.0, 0.55)])
def test_the_exact_drop_of_linear_networks_is_nearly_reached(norm: Norm, eps: float, share: float) -> None:
    """In 5,000 queries on 1 x 28 x 28 inputs."""
    model, threat = laws.Linear(2, (1, 28, 28), lead=1e4), Threat(norm, eps)
    x = 0.3 + 0.4 * laws.inputs(8, (1, 28, 28))
    batch = laws.batch_for(model, x, laws.zeros(x))
    start, worst = margin(model(x), batch.y), model.worst(batch, threat)
    found = laws.run(Square(), model, batch, threat)
    reached = (found.margin - start) / (worst - start)
    print(norm, reached.mean(), reached.min())
    assert reached.min() >= share and threat.contains(x, found.z).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (3, 4, 4), (1, 2, 9), (2, 2, 5, 6), (3, 1, 1)])
def test_inputs_of_any_shape(norm: Norm, shape: tuple[int, ...]) -> None:
    model = laws.Wavy(lead=30.0, shape=shape)
    x = laws.inputs(3, shape)
    batch = laws.batch_for(model, x, laws.zeros(x))
    threat = Threat(norm, 0.5)
    found = laws.run(Square(queries=15), model, batch, threat)
    assert threat.contains(x, found.z).all() and found.z.shape == x.shape and found.z.isfinite().all()
    assert found.passes == 45 and found.backwards == 0 and not torch.equal(found.z, x)


@pytest.mark.slow
def test_the_margin_never_falls() -> None:
    model = laws.Wavy(lead=30.0)
    x = laws.inputs()
    batch = laws.batch_for(model, x, laws.zeros(x))
    for norm in NORMS:
        ends = [laws.run(Square(queries=q), model, batch, Threat(norm, 0.3)).margin for q in (1, 5, 20, 60)]
        assert all((later >= earlier).all() for earlier, later in zip(ends, ends[1:], strict=False))
        assert (ends[-1] > ends[0]).all()


@pytest.mark.parametrize("norm", ["L2", "L1"])
@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 9, 9), (90,)])
def test_a_proposal_depends_on_its_own_example_alone(norm: Norm, shape: tuple[int, ...]) -> None:
    """To the last bit, also where the other examples are at an earlier query, whose squares are larger."""
    x, threat, ids = laws.inputs(40, shape).float(), Threat(norm, 2.0), torch.arange(40)
    patches, k = Patches(threat, x, 0.8), torch.arange(40) ** 2
    noise = Noise.of(1, ids)
    z = patches.first(x, noise)
    together = patches.change(x, z, patches.ends(x), patches.plan(noise, k)[-1])
    for row in range(40):
        one = torch.tensor([row])
        draw = patches.plan(noise.rows(one), k[one])[-1]
        alone = Patches(threat, x[one], 0.8).change(x[one], z[one], patches.ends(x[one]), draw)
        assert alone.equal(together[one])
    assert not together.equal(z)


@pytest.mark.parametrize(("norm", "power", "channels"), [("L2", 2, 2), ("L1", 1, 1)])
def test_a_proposal_spends_the_budget_of_both_squares(norm: Norm, power: int, channels: int) -> None:
    """Without a box that is met: the length of the change stays eps, and pixels outside of both squares keep theirs."""
    x, ids = torch.zeros(6, channels, 15, 15), torch.arange(6)
    threat = Threat(norm, 3.0, bounds=(-100.0, 100.0))
    patches, noise = Patches(threat, x, 0.8), Noise.of(0, ids)
    z = threat.extend(x, patches.first(x, noise))
    draw = patches.plan(noise, torch.tensor([1, 30, 100, 300, 600, 4000]))[-1]
    assert draw.bumps is not None
    new = patches.change(x, z, patches.ends(x), draw)
    torch.testing.assert_close(threat.distance(x, new), torch.full((6,), 3.0))
    touched = (
        torch.zeros(6, channels, 225).scatter(2, draw.pixels, 1.0).scatter(2, draw.bumps.other, 1.0).view_as(x) > 0
    )
    kept = (z * ~touched).abs().pow(power).sum((2, 3))
    torch.testing.assert_close((new * ~touched).abs().pow(power).sum((2, 3)), kept)
    in_square = torch.zeros(6, channels, 225).scatter(2, draw.pixels, 1.0).view_as(x) > 0
    assert not (new * (touched & ~in_square)).any(), "the other square is reset"


def test_the_schedule_is_autoattacks() -> None:
    """0.8 of the image, halved after 10, 50, 200, ... queries, whatever their number."""
    assert _HALVINGS == (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
    assert [_patch_size(28, 28, 0.8 / 2**level, "Linf")[0] for level in range(8)] == [25, 18, 13, 9, 6, 4, 3, 2]
    assert [_patch_size(28, 28, 0.8 / 2**level, "L2")[0] for level in range(8)] == [25, 19, 13, 9, 7, 5, 3, 3]


@pytest.mark.parametrize("power", [1, 2])
def test_bumps_are_the_papers(power: int) -> None:
    """Two opposite pyramids of height sum 1 / c^2 over the squares that hold a pixel (eq. 2), of length 1 together."""
    bumps = _bumps((5, 5), 8, 9, power)
    exponent = 2 if power == 2 else 4
    upper = torch.zeros(2, 5)
    for r in range(2):
        for s in range(5):
            upper[r, s] = sum(1 / (c + 1) ** exponent for c in range(max(abs(r - 1), abs(s - 2)), 3))
    upper /= upper.pow(power).sum() ** (1 / power)
    torch.testing.assert_close(bumps[0, :2, :5] * 2 ** (1 / power), upper)
    assert (bumps[0, 2:5, :5] < 0).all() and (bumps[:, 5:] == 0).all() and (bumps[:, :, 5:] == 0).all()
    torch.testing.assert_close(bumps.abs().pow(power).sum((1, 2)), torch.ones(2))
    assert (bumps[1, :5, :2] > 0).all() and (bumps[1, :5, 2:5] < 0).all()


@pytest.mark.parametrize("settings", [{"queries": 0}, {"share": 0.0}, {"share": 1.5}, {"restarts": 2}])
def test_settings_without_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Square(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", NORMS)
def test_a_local_search_begins_at_the_best_point_so_far(norm: Norm) -> None:
    model, threat = laws.Wavy(lead=30.0), Threat(norm, 0.3)
    x = laws.inputs()
    batch = laws.batch_for(model, x, laws.zeros(x))
    best = laws.run(Square(queries=60), model, batch, threat)
    onward = replace(batch, z=best.z)
    first = laws.run(LocalSearch(queries=1), model, onward, threat)
    assert torch.equal(first.z, best.z) and first.passes == len(x) and first.backwards == 0
    later = laws.run(LocalSearch(queries=60, skipped=10), model, onward, threat)
    assert (later.margin >= best.margin).all() and (later.margin > best.margin).any()
    assert threat.contains(x, later.z).all()
    torch.testing.assert_close(later.margin, margin(model(later.z), batch.y))
