"""The curve: exact on linear networks, the same as evaluations at fixed radii, and never above known distances."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from safetensors.torch import load_file
from torch import Tensor, nn

from support import attack_laws as laws
from support.examples import NORMS, Counted, untouched
from support.rounding import round_alike
from support.shares import first
from support.toys import Function, blobs, linear, mlp, uniform, wavy
from unperturbed.attacks.base import Attack, AttackResult
from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.data.split import array_split, select
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.curve import NEAREST, SUITES, minimum_norm
from unperturbed.evaluation.distances import Distances
from unperturbed.evaluation.hashes import data_hash
from unperturbed.evaluation.nearest import Search
from unperturbed.evaluation.store import Store
from unperturbed.findings import Interval
from unperturbed.losses import cross_entropy, margin
from unperturbed.maximise.apgd import APGD
from unperturbed.maximise.pgd import PGD
from unperturbed.noise import Noise
from unperturbed.runs.verify import read_verified
from unperturbed.statistics.intervals import wilson
from unperturbed.threat import Threat
from unperturbed.types import Batch, Bounds, Inputs, Model, Norm

CE = GradientAttack("APGD-CE", cross_entropy, APGD(steps=20))
QUICK = Suite("quick", (FAB(steps=20), CE), "a test")
SHORT = Suite("short", (FAB(steps=3), GradientAttack("APGD-CE", cross_entropy, APGD(steps=6))), "a test")
BY_RADIUS = Suite("by radius", (GradientAttack("PGD", margin, PGD(steps=20), restarts=2),), "a test")


def exact(model: laws.Linear, x: Inputs, y: Tensor, norm: Norm, bounds: Bounds) -> Tensor:
    """Return the distance of each example from the boundary, by bisection over the radius."""
    low, high = torch.zeros(len(x)).double(), torch.full((len(x),), 60.0).double()
    for _ in range(40):
        middle = (low + high) / 2
        broken = torch.stack(
            [
                model.worst(Batch(x[[i]], y[[i]], y[[i]]), Threat(norm, float(middle[i]), bounds))[0] > 0
                for i in range(len(x))
            ]
        )
        low, high = torch.where(broken, low, middle), torch.where(broken, middle, high)
    return high


# Truths


@pytest.mark.slow
@pytest.mark.parametrize("bounds", first(1, [(0.0, 1.0), None]))
@pytest.mark.parametrize("norm", NORMS)
def test_on_linear_networks_the_distance_is_exact_within_a_hundredth(norm: Norm, bounds: Bounds) -> None:
    """A third of the pixels lie at their bounds; two examples are misclassified to begin with."""
    model, x = laws.Linear(4, seed=4), laws.inputs(8)
    y = laws.batch_for(model, x).y
    y[:2] = (y[:2] + 1) % 4
    x, model = x.float(), model
    found = minimum_norm(model, (x, y), Threat(norm, 3 * laws.EPS[norm], bounds), QUICK)
    distance, truth = torch.tensor(found.examples["distance"]).double(), exact(model, x.double(), y, norm, bounds)
    assert distance[:2].tolist() == [0.0, 0.0] and (truth[2:] > 0).all()
    assert ((distance[2:] / truth[2:] > 0.9999) & (distance[2:] / truth[2:] < 1.01)).all(), distance / truth
    assert_verified(found, model, x, y, Threat(norm, 1.0, bounds))
    assert found.counts["misclassified"] == 2 and found.counts["unknown"] == 0


def assert_verified(found: Distances, model: nn.Module, x: Inputs, y: Tensor, threat: Threat) -> None:
    """Each distance is that of a stored point in the box, which the network misclassifies strictly."""
    table = found.examples
    rows = [row for row, name in enumerate(table["attack"]) if name]
    assert len(rows) == len(found.nearest) > 0
    with torch.no_grad():
        margins = margin(model(found.nearest), y[rows].long())
    assert (margins > 0).all()
    low, high = threat.limits(x)
    assert ((found.nearest >= low) & (found.nearest <= high)).all()
    distance = threat.distance(x[rows].to(found.nearest), found.nearest)
    assert distance.tolist() == [table["distance"][row] for row in rows]
    others = [table["distance"][row] for row in range(len(x)) if row not in rows]
    assert set(others) <= {0.0, math.inf}


@pytest.mark.slow
@pytest.mark.parametrize("norm", first(1, NORMS))
def test_without_fab_the_distance_is_less_than_a_step_of_the_radii_too_large(norm: Norm) -> None:
    """The steps go down until one is withstood; two classes leave PGD nothing to miss but its own step size."""
    model, x = laws.Linear(2, seed=2), laws.inputs(12)
    y = laws.batch_for(model, x).y
    truth = exact(model, x, y, norm, (0.0, 1.0))
    eps = 1.2 * float(truth.max())
    found = minimum_norm(model, (x.float(), y), Threat(norm, eps), replace(BY_RADIUS, attacks=(CE,)))
    distance = torch.tensor(found.examples["distance"]).double()
    assert ((distance >= 0.9999 * truth) & (distance <= 1.02 * truth + eps / 10)).all()
    for radius, value in found.curve():
        clear = (truth / radius - 1).abs() > 0.02
        assert torch.equal(distance[clear] > radius, truth[clear] > radius)
        assert value.value == float((distance > radius).double().mean())


@pytest.mark.long
@pytest.mark.slow
def test_the_nearer_of_the_two_counts() -> None:
    """FAB with one step overshoots; what APGD finds closer replaces it, and the other way round."""
    x, model = uniform(60, 8, seed=6), wavy()
    y, threat = model(x).argmax(1), Threat("L2", 0.6)
    fab, both = (
        minimum_norm(model, (x, y), threat, replace(QUICK, attacks=attacks))
        for attacks in ((FAB(steps=1),), (FAB(steps=1), CE))
    )
    alone, together = (torch.tensor(found.examples["distance"]) for found in (fab, both))
    assert (together <= alone).all() and (together < alone).sum() > 5
    assert {"FAB", "APGD-CE"} == set(both.examples["attack"]) - {""}
    assert [each.nearest for each in both.searches] == [both.examples["attack"].count(n) for n in ("FAB", "APGD-CE")]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("norm", first(1, NORMS))
def test_the_curve_agrees_with_evaluations_at_fixed_radii(norm: Norm) -> None:
    """Of a small trained network: five radii, each within the interval."""
    x, y = blobs(200, seed=3)
    model = trained(x, y)
    eps = {"Linf": 0.2, "L2": 0.45, "L1": 1.0}[norm]
    found = minimum_norm(model, (x, y), Threat(norm, eps), QUICK, radii=[eps * k / 5 for k in (1, 2, 3, 4)])
    assert found.radii == (*(eps * k / 5 for k in (1, 2, 3, 4)), eps)
    seen = []
    for radius, value in found.curve():
        fixed = evaluate(model, (x, y), Threat(norm, radius), BY_RADIUS)
        assert value.low <= fixed.robust_accuracy.value <= value.high, f"{norm}:{radius}"
        assert value.value <= fixed.robust_accuracy.high
        assert fixed.clean_accuracy == found.clean_accuracy
        seen.append(value.value)
    assert seen[0] - seen[-1] > 0.5, "the radii cover the fall of the curve"


def trained(x: Inputs, y: Tensor) -> nn.Module:
    model = mlp(x.shape[1], 3)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        cross_entropy(model(x), y).mean().backward()
        optimiser.step()
    return model


# The unknown


@pytest.mark.slow
def test_values_that_are_not_finite_are_unknown_at_every_radius() -> None:
    x = uniform(30, 4, low=0.3, high=0.4)
    x[:7, 0] = 0.9
    inner = linear(4)
    model = Function(lambda z: inner(z).masked_fill(z[:, :1] > 0.8, torch.nan))
    y = inner(x).argmax(1)
    found = minimum_norm(model, (x, y), Threat("Linf", 0.05), QUICK)
    assert found.clean_accuracy.value == 23 / 30 and found.clean_accuracy.high == wilson(30, 30).high
    for eps in (0.0, 0.02, 0.05):
        value = found.at(eps)
        standing = sum(distance > eps for distance in found.examples["distance"])
        assert value == wilson(standing - 7, 30, standing)
    assert found.examples["doubt"][:7] == [0.0] * 7 and found.examples["distance"][:7] == [math.inf] * 7
    assert found.examples["doubt"][7:] == [math.inf] * 23
    assert found.counts["unknown"] == 7 and any("7 examples are in doubt" in text for text in found.warnings)
    assert found.quantile(7 / 30) == 0.0


def test_a_network_of_nan_is_unknown_through_and_through() -> None:
    x = uniform(10, 4)
    model = Function(lambda z: z[:, :2] * torch.nan)
    found = minimum_norm(model, (x, torch.zeros(10, dtype=torch.int64)), Threat("L2", 0.5), QUICK)
    assert found.at(0.25) == Interval(0.0, wilson(0, 10).low, wilson(10, 10).high, 10)
    assert found.counts == {"misclassified": 0, "broken": 0, "survived": 0, "unknown": 10}
    assert all(name == "" for name in found.examples["attack"]) and len(found.nearest) == 0


@pytest.mark.parametrize("attack", [FAB(steps=10), CE])
def test_values_that_are_not_finite_on_the_way_count_as_well(attack: Attack) -> None:
    """Every break lies behind a wall of NaN, which the clean example does not show."""
    x = uniform(12, 4, low=0.3, high=0.4)
    model = Function(lambda z: torch.stack([0.7 - z[:, 0], z[:, 0] - 0.7], 1).masked_fill(z[:, :1] > 0.5, torch.nan))
    suite = Suite("one", (attack,), "a test")
    found = minimum_norm(model, (x, torch.zeros(12, dtype=torch.int64)), Threat("Linf", 0.4), suite)
    assert found.at(0.0).value == found.at(0.05).value == 0.0 and found.counts["unknown"] == 12


@pytest.mark.slow
def test_a_tie_is_no_success_and_leaves_a_doubt_from_its_distance_on() -> None:
    """The logits tie between x_0 = 0.5 and 0.75, and are wrong beyond; examples lie at 0.25."""
    model = Function(lambda z: torch.stack([(0.5 - z[:, 0]).relu(), (z[:, 0] - 0.75).relu()], 1))
    x = torch.full((16, 2), 0.25)
    x[:, 1] = uniform(16, 1)[:, 0]
    suite = Suite("pgd", (GradientAttack("PGD", margin, PGD(steps=20)),), "a test")
    found = minimum_norm(model, (x, torch.zeros(16, dtype=torch.int64)), Threat("Linf", 0.4), suite)
    table = found.examples
    assert all(distance == math.inf for distance in table["distance"]) and len(found.nearest) == 0
    assert all(0.25 <= doubt <= 0.2801 for doubt in table["doubt"]), "the last radius at which a tie is found"
    assert found.at(0.24).value == 1.0 and found.at(0.29).value == 0.0 and found.at(0.29).high == 1.0
    assert found.counts["unknown"] == 16


def test_a_tie_is_drawn_in_as_well() -> None:
    model = Function(lambda z: torch.stack([(0.5 - z[:, 0]).relu(), (z[:, 0] - 0.75).relu()], 1))
    data = torch.full((4, 2), 0.25), torch.zeros(4, dtype=torch.int64)
    found = minimum_norm(model, data, Threat("Linf", 0.4), Suite("one", (Liar(0.4),), ""), radii=[0.4])
    assert all(0.25 <= doubt <= 0.2505 for doubt in found.examples["doubt"])


@pytest.mark.slow
def test_what_is_in_doubt_is_still_attacked_further_in() -> None:
    """A lie at 0.05 leaves a doubt there, and the distance is nevertheless found to a step of the radii."""
    x = uniform(20, 2, low=0.2, high=0.3)
    data = x, torch.zeros(20, dtype=torch.int64)
    found = minimum_norm(Function(half), data, Threat("Linf", 0.4), Suite("two", (Liar(0.05), CE), ""))
    distance, doubt = (torch.tensor(found.examples[name]) for name in ("distance", "doubt"))
    assert (distance <= 0.5 - x[:, 0] + 0.04).all() and ((doubt - 0.05).abs() < 1e-6).all()
    assert found.at(0.04).value == 1.0 and found.at(0.1).value == 0.0 and found.counts["broken"] == 20


def test_an_example_that_ties_itself_is_misclassified() -> None:
    x, y = uniform(30, 3), torch.arange(30) % 3
    model = Function(lambda x: torch.zeros(len(x), 3) + 0 * x.sum(1, keepdim=True))
    found = minimum_norm(model, (x, y), Threat("L2", 1.0), QUICK)
    assert found.examples["distance"] == [0.0] * 30 and found.at(0.0).value == 0.0
    assert found.counts["misclassified"] == 30


@dataclass(frozen=True)
class Liar(Attack):
    """Claims that x + shift breaks every example."""

    shift: float = 0.0
    label: str = "liar"
    restarts: int = 1

    def __post_init__(self) -> None:
        """Take any shift, NaN too."""

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        n = len(batch.x)
        z = batch.x + self.shift
        return AttackResult(z, torch.ones(n), torch.ones(n, dtype=torch.bool), torch.ones_like(batch.y), n)


def half(z: Inputs) -> Tensor:
    """Return logits that say 1 where x_0 > 0.5."""
    return torch.stack([torch.full_like(z[:, 0], 0.5), z[:, 0]], dim=1)


def test_a_claim_that_a_fresh_forward_refutes_is_in_doubt_from_its_distance_on() -> None:
    x = uniform(20, 2, low=0.2, high=0.3)
    data = x, torch.zeros(20, dtype=torch.int64)
    found = minimum_norm(Function(half), data, Threat("Linf", 0.19), Suite("liar", (Liar(0.1),), ""))
    assert all(distance == math.inf for distance in found.examples["distance"])
    torch.testing.assert_close(torch.tensor(found.examples["doubt"]), torch.full((20,), 0.1))
    assert found.at(0.09).value == 1.0 and found.at(0.11).value == 0.0 and found.at(0.11).high == 1.0


@pytest.mark.parametrize(("shift", "broken"), [(0.3, True), (0.6, True), (torch.nan, False)])
def test_what_is_claimed_is_measured_not_believed(shift: float, broken: bool) -> None:
    """A point outside the ball or the box gives the distance of what it is cut and drawn in to; NaN gives none."""
    x = uniform(20, 1, low=0.4, high=0.45).repeat(1, 2)
    data = x, torch.zeros(20, dtype=torch.int64)
    found = minimum_norm(Function(half), data, Threat("Linf", 0.2), Suite("liar", (Liar(shift),), ""))
    distance, doubt = (torch.tensor(found.examples[name]) for name in ("distance", "doubt"))
    if broken:
        gap = 0.5 - x[:, 0]
        assert ((distance >= gap - 1e-7) & (distance <= gap + 0.001)).all() and doubt.isinf().all()
    else:
        assert distance.isinf().all() and (doubt == 0).all()


# The curve


STEPS = some.integers(0, 24).map(lambda k: k / 16)


@settings(max_examples=25)
@given(
    pairs=some.lists(some.tuples(*[STEPS | some.just(math.inf)] * 2), min_size=1, max_size=20),
    radii=some.lists(some.integers(0, 32).map(lambda k: k / 32), min_size=2, max_size=4),
    share=some.floats(0.01, 1),
)
def test_the_curve_never_rises_and_its_intervals_hold_the_unknown(
    pairs: list[tuple[float, float]], radii: list[float], share: float
) -> None:
    found, n = of(pairs), len(pairs)
    values = [found.at(eps) for eps in sorted(radii)]
    for before, after in zip(values, values[1:], strict=False):
        assert before.value >= after.value and before.low >= after.low and before.high >= after.high
    for eps, value in zip(sorted(radii), values, strict=True):
        robust = sum(distance > eps and doubt > eps for distance, doubt in pairs)
        broken = sum(distance <= eps for distance, _ in pairs)
        assert value == wilson(robust, n, n - broken)
    ends = [min(pair) for pair in pairs]
    assert found.quantile(share) == min(end for end in ends if sum(other <= end for other in ends) / n >= share)


def of(pairs: list[tuple[float, float]]) -> Distances:
    distance, doubt = (list(column) for column in zip(*pairs, strict=True))
    table = {"distance": distance, "doubt": doubt, "rounding": [0.0] * len(pairs), "attack": [""] * len(pairs)}
    clean = wilson(len(pairs), len(pairs))
    return Distances(
        suite="s",
        note="note",
        threat="L2:1",
        eps=1.0,
        radii=(0.5, 1.0),
        n=len(pairs),
        clean_accuracy=clean,
        counts={},
        searches=(),
        seconds=0.0,
        warnings=(),
        environment={},
        examples=table,
    )


def test_what_lies_within_float32_rounding_of_a_radius_is_within_it() -> None:
    """As in evaluations: x + eps may be stored a little further away than eps."""
    x = torch.full((4, 1), 1000.3)
    model = Function(lambda z: torch.stack([torch.zeros_like(z[:, 0]), (z - x[0])[:, 0] - 0.25], 1))
    threat, y = Threat("Linf", 0.25, None), torch.zeros(4, dtype=torch.int64)
    suite = Suite("liar", (Liar(0.25006),), "")
    found = minimum_norm(model, (x, y), threat, suite)
    fixed = evaluate(model, (x, y), threat, suite)
    assert min(found.examples["distance"]) > 0.25 and fixed.counts["broken"] == 4
    assert found.at(0.25).value == fixed.robust_accuracy.value == 0.0


@pytest.mark.parametrize("eps", [-0.1, 1.1, math.nan])
def test_no_accuracy_is_given_where_the_attacks_have_not_looked(eps: float) -> None:
    with pytest.raises(InputError, match="from 0 to 1"):
        of([(0.5, math.inf)]).at(eps)


def test_a_quantile_of_so_many_percent_is_that_example() -> None:
    """Though 7, 14, 28, 55 and 56 hundredths times 100 are a rounding above the whole number."""
    found = of([(float(k), math.inf) for k in range(1, 101)])
    assert [found.quantile(k / 100) for k in range(1, 101)] == list(range(1, 101))


@pytest.mark.parametrize("share", [0.0, 1.1, -1.0])
def test_a_quantile_needs_a_share(share: float) -> None:
    with pytest.raises(InputError, match="0.5 for the median"):
        of([(0.5, math.inf)]).quantile(share)


def test_the_median_is_infinite_where_it_was_not_found() -> None:
    found = of([(0.5, math.inf), (math.inf, math.inf), (math.inf, math.inf)])
    assert found.quantile(0.5) == math.inf and found.quantile(0.33) == 0.5
    assert found.json()["quantiles"]["0.5"] is None


# The search


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.rounding
@pytest.mark.parametrize("norm", first(1, NORMS))
def test_results_are_the_same_in_any_order_and_company(norm: Norm) -> None:
    """In every bit where the network rounds rows alike; elsewhere distances, nearly, of nearly all examples."""
    x, model = uniform(60, 8, seed=6), wavy().eval()
    y = model(x).argmax(1)
    y[::9] = (y[::9] + 1) % 3
    whole, order = array_split(x, y), torch.randperm(60, generator=torch.Generator().manual_seed(0))
    threat = Threat(norm, {"Linf": 0.1, "L2": 0.3, "L1": 0.6}[norm])

    def table(rows: Tensor) -> dict[int, tuple[Any, ...]]:
        found = minimum_norm(model, select(whole, rows), threat, SHORT, batch_size=16)
        columns = [found.examples[name] for name in ("id", "attack", "margin", "distance", "doubt")]
        return {int(row[0]): row for row in zip(*columns, strict=True)}

    straight, shuffled, part = table(torch.arange(60)), table(order), table(order[:25])
    assert len({row[1] for row in straight.values()}) == 3 and table(order) == shuffled
    if all(round_alike(model, x, places, 60) for places in (1, 2, 4, 8, 16)):
        assert straight == shuffled and part == {row: straight[row] for row in order[:25].tolist()}
    else:
        assert_nearly_the_same(shuffled, straight)
        assert_nearly_the_same(part, straight)


def assert_nearly_the_same(found: dict[int, tuple[Any, ...]], whole: dict[int, tuple[Any, ...]]) -> None:
    """Assert distances within a hundredth for nine examples in ten: a search that turns elsewhere may end elsewhere."""
    pairs = [(found[row][3], whole[row][3]) for row in found]
    near = [one == other or abs(one - other) <= 0.01 * other for one, other in pairs]
    assert sum(near) >= 0.9 * len(near), pairs


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.rounding
def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    x, model = uniform(300, 8, seed=6), wavy()
    y, threat = model(x).argmax(1), Threat("L2", 0.2)
    whole = minimum_norm(model, (x, y), threat, SHORT, batch_size=16, radii=[0.1])
    monkeypatch.setattr("unperturbed.evaluation.curve.HELD", 0)  # then blocks have 256 examples
    parts = minimum_norm(model, (x, y), threat, SHORT, batch_size=16, radii=[0.1])
    if all(round_alike(model, x, places, 300) for places in (1, 2, 4, 8, 16)):
        assert parts.examples == whole.examples and torch.equal(parts.nearest, whole.nearest)
    else:
        names = ("id", "attack", "margin", "distance")
        columns = [[each.examples[name] for name in names] for each in (parts, whole)]
        assert_nearly_the_same(*(dict(enumerate(zip(*each, strict=True))) for each in columns))


@pytest.mark.long
@pytest.mark.slow
def test_each_example_withstands_the_attacks_at_one_radius_only() -> None:
    """The largest below its distance; nothing is attacked where it is known to break."""
    asked: list[tuple[float, list[int]]] = []

    @dataclass(frozen=True)
    class Watched(Attack):
        label: str = "watched"
        restarts: int = 1

        def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
            asked.append((threat.eps, batch.ids.tolist()))
            found: AttackResult = CE(model, batch, threat, noise, batch_size)
            return found

    x, model = uniform(40, 8, seed=6), wavy()
    y = model(x).argmax(1)
    for suite in (Suite("a", (FAB(steps=10), Watched()), ""), Suite("b", (Watched(),), "")):
        asked.clear()
        found = minimum_norm(model, (x, y), Threat("L2", 0.5), suite)
        radii = [radius for radius, _ in asked]
        assert radii == sorted(radii, reverse=True) and len(set(radii)) == len(radii)
        for row, distance in enumerate(found.examples["distance"]):
            at = [radius for radius, ids in asked if row in ids]
            below = [radius for radius in found.radii if radius * (1 + 1e-6) + 1e-7 < distance]
            assert sum(radius in below for radius in at) == len(below[:1])
            assert not below or min(at) == max(below)
    assert any(len([radius for radius, ids in asked if row in ids]) > 2 for row in range(40))


@pytest.mark.slow
def test_the_model_is_left_alone_and_the_passes_are_counted() -> None:
    x, y = blobs(32, seed=2)
    model = Counted(mlp(6, 3, norm=True)).requires_grad_(False)
    with untouched(model, x, y):
        found = minimum_norm(model, (x, y), Threat("Linf", 0.1), QUICK)
    counted = sum(each.forwards for each in found.searches)
    assert model.training_calls == 0 and 0 < counted <= model.forwards
    assert all(each.backwards > 0 for each in found.searches)


@pytest.mark.slow
def test_a_network_in_float64_is_searched_in_float64() -> None:
    x, y = blobs(20, seed=2)
    found = minimum_norm(mlp(6, 3).double(), (x, y), Threat("L2", 0.3), QUICK)
    assert found.environment["precision"] == "float64" and found.nearest.dtype == torch.float64
    assert found.environment["data"] == data_hash(array_split(x, y))


def test_where_nothing_breaks_nothing_is_found() -> None:
    x = uniform(10, 4)
    model = Function(lambda z: torch.stack([1e4 + z[:, 0], z[:, 0]], 1))
    found = minimum_norm(model, (x, torch.zeros(10, dtype=torch.int64)), Threat("L2", 0.5), QUICK)
    assert found.at(0.5).value == 1.0 and found.quantile(0.5) == math.inf and found.counts["survived"] == 10
    assert "median distance inf" in str(found)


@pytest.mark.slow
def test_a_network_that_draws_random_numbers_is_told() -> None:
    x, y = blobs(20)
    noisy = Function(lambda z: linear(6, 3)(z) + 0.1 * torch.randn(len(z), 3))
    for model, told in ((noisy, True), (linear(6, 3), False)):
        found = minimum_norm(model, (x, y), Threat("L2", 0.1), QUICK, radii=[0.05])
        assert any("draws random numbers" in text for text in found.warnings) == told


# What is refused, and what is written


def test_the_suites_are_those_of_evaluations_with_fab_for_the_nearest() -> None:
    gradients = ["APGD-CE", "APGD-T", "FAB-T"]
    assert [attack.label for attack in NEAREST.attacks] == [*gradients, "PDPGD", "PDPGD-T1", "PDPGD-T2"]
    assert [attack.label for attack in NEAREST.l1] == [*gradients, "ALMA", "FMN", "PDPGD"]
    assert [attack.label for attack in NEAREST.l2] == [*gradients, "ALMA", "ALMA-0.1", "ALMA-0.2", "PDPGD", "PDPGD-T2"]
    assert set(SUITES) == {"nearest", "pgd", "standard", "plus", "sparse", "patch"} and "without Square" in NEAREST.note


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"threat": Threat("L2", 0.0)}, "eps is 0"),
        ({"radii": [0.0]}, "radius 0 does not lie"),
        ({"radii": [0.1, 0.3]}, "radius 0.3 does not lie"),
        ({"radii": [math.nan]}, "is nan, but must be finite"),
        ({"suite": "rand"}, "no suite 'rand'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"data": (torch.full((3, 4), 2.0), torch.zeros(3, dtype=torch.int64))}, "outside the bounds"),
        ({"data": (torch.zeros(3, 4), torch.full((3,), 9))}, "9"),
    ],
)
def test_bad_input_is_refused(change: dict[str, object], part: str) -> None:
    given = {"data": (uniform(4, 4), torch.zeros(4, dtype=torch.int64)), "threat": Threat("L2", 0.2), "suite": QUICK}
    with pytest.raises(InputError, match=part):
        minimum_norm(linear(4), **given | change)  # type: ignore[arg-type]


@pytest.mark.slow
def test_everything_is_written(tmp_path: Path) -> None:
    x, y = blobs(40, seed=2)
    model, threat = trained(x, y), Threat("Linf", 0.2)
    (tmp_path / "curve-Linf").mkdir()
    (tmp_path / "curve-Linf" / "part-00007.parquet").touch()
    found = minimum_norm(model, (x, y), threat, QUICK, out=tmp_path)
    assert found.nearest is None
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == [
        "curve-Linf.json", "job.json", "part-00000.json", "part-00000.parquet", "part-00000.safetensors"
    ]  # fmt: skip
    summary = read_verified(tmp_path / "curve-Linf.json")
    assert summary == json.loads(json.dumps(found.json()))
    assert [point["eps"] for point in summary["curve"]] == list(found.radii)
    assert [point["robust_accuracy"] for point in summary["curve"]] == [each.value for _, each in found.curve()]
    table = pyarrow.parquet.read_table(tmp_path / "curve-Linf" / "part-00000.parquet").to_pydict()
    assert table == found.examples
    points = load_file(tmp_path / "curve-Linf" / "part-00000.safetensors")["adversarial"]
    assert_verified(replace(found, nearest=points), model, x, y, threat)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("written", [True, False])
def test_an_interrupted_search_goes_on_where_it_stopped(
    written: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After FAB, after a radius, after a block, or with a step lost: also with the examples in another order."""
    x, model = uniform(300, 8, seed=6), wavy()
    whole, order = array_split(x, model(x).argmax(1)), torch.randperm(300, generator=torch.Generator().manual_seed(0))
    threat, write, calls = Threat("L2", 0.2), Store.keep, [0]
    monkeypatch.setattr("unperturbed.evaluation.curve.HELD", 0)  # then blocks have 256 examples

    def found(rows: Tensor) -> Distances:
        return minimum_norm(model, select(whole, rows), threat, SHORT, radii=[0.1], batch_size=16, out=tmp_path / "out")

    def stop(*given: Any) -> None:
        calls[0] += 1
        if written or calls[0] % 2:
            write(*given)
        if calls[0] % 2 == 0:
            raise KeyboardInterrupt

    straight = minimum_norm(model, whole, threat, SHORT, radii=[0.1], batch_size=16, out=tmp_path / "straight")
    monkeypatch.setattr(Store, "keep", stop)
    stops = 0
    while True:
        try:
            resumed = found(order if stops % 2 else torch.arange(300))
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops == (3 if written else 5)
    rows = order if stops % 2 else torch.arange(300)
    assert resumed.examples == {name: [column[row] for row in rows] for name, column in straight.examples.items()}
    assert [replace(each, seconds=0.0) for each in resumed.searches] == [
        replace(each, seconds=0.0) for each in straight.searches
    ]
    assert resumed.warnings == straight.warnings and resumed.counts == straight.counts
    for name in ("part-00000.safetensors", "part-00001.safetensors"):
        kept = [load_file(tmp_path / run / "curve-L2" / name)["adversarial"] for run in ("straight", "out")]
        assert torch.equal(*kept)
    assert not list(tmp_path.rglob("*.unfinished"))
    monkeypatch.setattr(Search, "__call__", None)
    again = found(rows).json()
    assert again["warnings"].pop().startswith("Loaded from")
    assert again | {"seconds": 0.0} == resumed.json() | {"seconds": 0.0}


@pytest.mark.slow
def test_other_distances_are_refused_or_replaced(tmp_path: Path) -> None:
    words = linear(6, 3), blobs(20), Threat("L2", 0.2), QUICK
    minimum_norm(*words, radii=[0.1], out=tmp_path)
    with pytest.raises(InputError, match=r"radii was \[0.1, 0.2\], now \[0.05, 0.2\]"):
        minimum_norm(*words, radii=[0.05], out=tmp_path)
    other = minimum_norm(*words, radii=[0.05], out=tmp_path, overwrite=True)
    assert (
        other.radii == (0.05, 0.2) == tuple(json.loads((tmp_path / "curve-L2/job.json").read_text())["is_of"]["radii"])
    )


@pytest.mark.slow
def test_progress_is_told_radius_by_radius(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unperturbed.maximise.climb_queue.PAUSE", 1e6)
    x, y = blobs(40, seed=2)
    told: list[tuple[float, float, str]] = []
    minimum_norm(mlp(6, 3), (x, y), Threat("Linf", 0.2), QUICK, progress=lambda *words: told.append(words))
    assert len(told) == 11 and [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1][:2] == (40, 40) and "robust at 0.02 at most" in told[-1][2]


@pytest.mark.slow
def test_progress_moves_within_the_radii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unperturbed.maximise.climb_queue.PAUSE", -1.0)
    told: list[float] = []
    suite = replace(QUICK, attacks=(FAB("FAB", steps=5), *QUICK.attacks))
    words = mlp(6, 3), blobs(40, seed=2), Threat("Linf", 0.2), suite
    minimum_norm(*words, progress=lambda done, total, text: told.append(round(done / total, 9)))
    assert told == sorted(told) and len(set(told)) > 30 and told[-1] == 1.0
