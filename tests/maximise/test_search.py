"""The search over a queue: its result belongs to the example, and what it costs is known."""

import itertools
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

import unperturbed.maximise
from support.examples import NORMS, brief, bumpy_score, classes_in, inputs_within, make, modules_of
from support.rounding import round_alike, round_by_place
from support.shares import first
from unperturbed.attacks.multi_targeted import _Towards
from unperturbed.losses import cross_entropy, margin, targeted_dlr_or_margin
from unperturbed.maximise import ascent as ascent_module
from unperturbed.maximise.adam import Adam
from unperturbed.maximise.apgd import APGD
from unperturbed.maximise.ascent import Ascent, Best, Memory, search
from unperturbed.maximise.frank_wolfe import FrankWolfe
from unperturbed.maximise.pgd import PGD
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Norm, PerExample, Rows, Score

SHAPE = (1, 4, 4)
ASCENTS = [found for module in modules_of(unperturbed.maximise) for found in classes_in(module, Ascent)]


@pytest.fixture(autouse=True)
def no_endless_climb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail rather than hang where a climb never ends."""
    looks, climb = itertools.count(), ascent_module.climb

    def limited(score: Score, z: Inputs, rows: Rows) -> tuple[PerExample, PerExample, Inputs]:
        assert next(looks) < 10000
        return climb(score, z, rows)

    monkeypatch.setattr(ascent_module, "climb", limited)


def problem(n: int = 37, norm: Norm = "Linf", eps: float = 0.05) -> tuple[nn.Module, Inputs, Tensor, Threat, Noise]:
    """Return a random network of three classes, inputs with labels that it mostly gives, a threat, noise."""
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 3)).requires_grad_(False)
        model[1].weight.mul_(4)
    threat = Threat(norm, eps * {"Linf": 1.0, "L2": 3.0, "L1": 8.0}[norm])
    x = inputs_within(threat, n, SHAPE, torch.float32, 1)
    y = model(x).argmax(1)
    y[::11] = (y[::11] + 1) % 3  # these are broken before the first step
    return model, x, y, threat, Noise.of(0, torch.arange(n) * 7 + 3)


def attack(ascent: Ascent, places: int, rows: Tensor, restarts: int = 2, norm: Norm = "Linf") -> Best:
    """Search for misclassified points of these examples, climbing the cross-entropy and ranking by margin."""
    model, x, y, threat, noise = problem(norm=norm)
    labels = y[rows]

    def score(z: Inputs, at: Rows) -> tuple[PerExample, PerExample]:
        logits = model(z)
        return cross_entropy(logits, labels[at]), margin(logits, labels[at])

    return search(ascent, score, x[rows], threat, noise.rows(rows), restarts, places)


@dataclass(frozen=True)
class Watched(Ascent):
    """Another ascent, whose starts are written down."""

    ascent: Ascent
    starts: list[Inputs] = field(default_factory=list)

    @property
    def steps(self) -> int:  # type: ignore[override]
        return self.ascent.steps

    def start(self, x: Inputs, threat: Threat, noise: Noise) -> Inputs:
        self.starts.append(self.ascent.start(x, threat, noise))
        return self.starts[-1]

    def memory(self, x: Inputs, noise: Noise) -> Memory:
        return self.ascent.memory(x, noise)

    def step(
        self,
        x: Inputs,
        z: Inputs,
        value: PerExample,
        gradient: Inputs,
        k: int | Tensor,
        memory: Memory,
        threat: Threat,
    ) -> Inputs:
        return self.ascent.step(x, z, value, gradient, k, memory, threat)


def assert_same_verdicts(ranks: PerExample, others: PerExample) -> None:
    """Assert the same examples broken, but for ties, and where none is broken ranks that are close.

    Of those broken, in other rounding another climb may be the first to break one.
    """
    ties = torch.stack([ranks, others]).abs().amin(0) <= 1e-4
    assert torch.equal((ranks > 0)[~ties], (others > 0)[~ties]) and ties.sum() < len(ranks) / 4
    standing = (ranks <= 0) & (others <= 0)
    torch.testing.assert_close(ranks[standing], others[standing], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.rounding
@pytest.mark.parametrize("kind", ASCENTS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("norm", first(1, NORMS))
def test_the_result_is_the_same_in_any_order(kind: type, norm: Norm) -> None:
    """At one number of places; though other examples then finish earlier and others take their places.

    In every bit where the network rounds rows alike; elsewhere verdicts, except for ties.
    """
    model, x, *_ = problem(norm=norm)
    alike = round_alike(model, x, 8)
    rows, order = torch.arange(37), torch.randperm(37, generator=torch.Generator().manual_seed(2))
    first, second = (attack(brief(kind), 8, r, norm=norm) for r in (rows, order))
    broken = first.rank > 0
    assert 5 < broken.sum() < 32, "both kinds must occur"
    part = attack(brief(kind), 8, order[:20], norm=norm)
    for found, rows in ((second, order), (part, order[:20])):
        if alike:
            assert torch.equal(found.z, first.z[rows]) and torch.equal(found.rank, first.rank[rows])
            assert torch.equal(found.restart, first.restart[rows])
        else:
            assert_same_verdicts(found.rank, first.rank[rows])
    assert second.passes == first.passes or not alike


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.rounding
@pytest.mark.parametrize("kind", first(2, ASCENTS), ids=lambda kind: kind.__name__)
def test_verdicts_agree_at_any_number_of_places(kind: type) -> None:
    """Except where the final margin is within 1e-4 of a tie: those are counted and shown."""
    found = {places: attack(brief(kind), places, torch.arange(37)) for places in (1, 8, 64)}
    for best in found.values():
        assert_same_verdicts(best.rank, found[1].rank)


@pytest.mark.rounding
@pytest.mark.parametrize("kind", ASCENTS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("norm", NORMS)
def test_the_best_iterate_is_kept_and_lies_inside(kind: type, norm: Norm) -> None:
    """The best of all those that were looked at, the start among them; and its rank is its own."""
    model, x, y, threat, noise = problem(6, norm, 0.3)
    score, seen = bumpy_score(x, 4), []

    def recorded(z: Inputs, rows: Rows) -> PerExample:
        assert torch.equal(rows, torch.arange(6))
        seen.append(score(z, rows).detach() - 1e3)  # type: ignore[arg-type, operator]
        return score(z, rows) - 1e3  # type: ignore[no-any-return, operator]

    ascent = Watched(make(kind))
    best = search(ascent, recorded, x, threat, noise, 1, batch_size=6)
    assert len(seen) == ascent.steps + 1
    assert torch.equal(best.rank, torch.stack(seen).amax(0))
    assert (best.rank >= seen[-1]).all(), "whether it is more, on a climb that has converged, rounding decides"
    assert torch.equal(score(best.z, torch.arange(6)) - 1e3, best.rank)  # type: ignore[operator]
    assert (best.rank >= score(ascent.starts[0], torch.arange(6)) - 1e3).all()  # type: ignore[operator]
    assert threat.contains(x, best.z).all() and not best.z.requires_grad and not best.rank.requires_grad
    assert best.finite.all() and torch.equal(best.restart, torch.ones(6, dtype=torch.int64))


@pytest.mark.long
@pytest.mark.slow
def test_alone_and_in_company_100_steps_of_apgd_differ_by_rounding_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, where rounding cannot decide, at 16 places and at 8, and though rows are rounded by their place."""
    round_by_place(monkeypatch)
    model, x, y, threat, noise = problem(norm="L2", eps=0.1)
    model, x = model.double(), x.double()
    targets = torch.stack([(y + 1) % 3, (y + 2) % 3], 1)

    def climbed(rows: Tensor) -> Best:
        score = _Towards(model, y[rows], targets[rows], targeted_dlr_or_margin, torch.zeros_like(rows))
        return search(APGD(steps=100), score, x[rows], threat, noise.rows(rows), 2, 16, enough=torch.inf)

    together, some = climbed(torch.arange(16)), torch.tensor([1, 4, 8, 13])
    alone = [climbed(some[[k]]) for k in range(len(some))]
    ranks, z = torch.cat([best.rank for best in alone]), torch.cat([best.z for best in alone])
    assert (ranks > 0).any() and (ranks <= 0).any()
    assert not torch.equal(z, together.z[some]), "rounding must differ, or this shows nothing"
    torch.testing.assert_close(ranks, together.rank[some], rtol=0, atol=1e-9)
    torch.testing.assert_close(z, together.z[some], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ASCENTS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("norm", NORMS)
def test_an_iterate_on_the_way_is_kept_and_not_the_last_one(kind: type, norm: Norm) -> None:
    """The rank makes the fourth look the best for every second example and the second look for the others."""
    model, x, y, threat, noise = problem(6, norm, 0.3)
    score, seen = bumpy_score(x, 4), list[Inputs]()
    middle = torch.tensor([3, 1, 3, 1, 3, 1])

    def recorded(z: Inputs, rows: Rows) -> tuple[PerExample, PerExample]:
        rank = -1.0 - (middle[rows] - len(seen)).abs().float()
        seen.append(z.detach().clone())
        return score(z, rows) - 1e3, rank  # type: ignore[operator]

    best = search(brief(kind), recorded, x, threat, noise, 1, batch_size=6)
    assert len(seen) > 5 and best.rank.tolist() == [-1.0] * 6
    assert torch.equal(best.z, torch.stack(seen)[middle, torch.arange(6)])


def test_the_rank_decides_not_the_score() -> None:
    """A score may bring a second value: the first is climbed, the second ranks and ends the climb."""
    model, x, y, threat, noise = problem(4, eps=0.3)
    up = torch.ones_like(x)

    def score(z: Inputs, rows: Rows) -> tuple[PerExample, PerExample]:
        height = (z * up[rows]).flatten(1).sum(1)
        return height, -height.detach()

    best = search(PGD(steps=5), score, x, threat, noise, 1, batch_size=4)
    ends = PGD(steps=5)(score, x, threat, noise)
    assert torch.allclose(best.z, threat.sample(x, noise.fold(0))), "the start is the lowest point on the way up"
    assert (ends.flatten(1).sum(1) > best.z.flatten(1).sum(1)).all()


def test_the_best_of_all_restarts_is_kept_for_each_example_s10() -> None:
    """Not the last, and not one restart for the whole batch."""
    model, x, y, threat, noise = problem(12, eps=0.3)
    score = bumpy_score(x, 4)

    def below(z: Inputs, rows: Rows) -> PerExample:
        return score(z, rows) - 1e3  # type: ignore[no-any-return, operator]

    best = search(PGD(steps=3), below, x, threat, noise, restarts=5, batch_size=12)
    apart = [search(PGD(steps=3), below, x, threat, _Ahead(noise.keys, k), 1, batch_size=12).rank for k in range(5)]
    ranks = torch.stack(apart)
    assert torch.equal(best.rank, ranks.amax(0))
    assert len(ranks.argmax(0).unique()) > 1 and (best.rank > ranks[-1]).any() and (best.rank > ranks[0]).any()
    assert torch.equal(best.restart, torch.full((12,), 5))


@dataclass(frozen=True, eq=False)
class _Ahead(Noise):
    """Noise whose first restart is restart number `skipped` of the original."""

    skipped: int = 0

    def rows(self, rows: Rows) -> Noise:
        return _Ahead(self.keys[rows], self.skipped)

    def fold(self, draw: int | Tensor) -> Noise:
        return Noise(self.keys).fold(draw + self.skipped)


def test_restarts_begin_at_different_points() -> None:
    """As many as asked for, for each example, and none alike."""
    model, x, y, threat, noise = problem(2, eps=0.3)
    ascent = Watched(PGD(steps=2))
    search(ascent, lambda z, rows: z.flatten(1).sum(1) - 1e3, x, threat, noise, restarts=6, batch_size=2)
    starts = torch.stack(ascent.starts)
    assert starts.shape == (6, 2, *SHAPE)
    for example in starts.unbind(1):
        assert len(example.unique(dim=0)) == 6
        assert torch.pdist(example.flatten(1)).min() > 0.1
    assert torch.equal(starts[1], threat.sample(x, noise.fold(1)))


def test_an_example_that_breaks_leaves_at_once() -> None:
    """Passes count the examples that are still climbing."""
    model, x, y, threat, noise = problem(6, eps=0.3)
    after = torch.tensor([0, 1, 3, 99, 0, 99])  # moves until the score is above 0
    counts = torch.zeros(6, dtype=torch.int64)

    def score(z: Inputs, rows: Rows) -> PerExample:
        first = torch.stack([(rows[: k + 1] == row).sum() for k, row in enumerate(rows)]) == 1  # not the padding
        broken = counts[rows] >= after[rows]
        counts[rows[first]] += 1
        return broken.float() - 0.5 + 0 * z.flatten(1).sum(1)

    best = search(PGD(steps=4), score, x, threat, noise, restarts=1, batch_size=6)
    assert torch.equal(best.rank > 0, after < 99)
    assert best.passes == 1 + 2 + 4 + 5 + 1 + 5 and best.queries.tolist() == [1, 2, 4, 5, 1, 5]


@pytest.mark.parametrize("short", [-1e-3, -1e-6, 0.0])
def test_an_example_just_short_of_a_break_climbs_on(short: float) -> None:
    """A tie is no break either: the third look is one."""
    _, x, _, threat, noise = problem(2, eps=0.3)
    looks: list[int] = []

    def score(z: Inputs, rows: Rows) -> tuple[PerExample, PerExample]:
        looks.append(len(rows))
        rank = torch.full((len(rows),), short if len(looks) < 3 else 1.0)
        return z.flatten(1).sum(1), rank

    best = search(PGD(steps=4), score, x, threat, noise, restarts=1, batch_size=2)
    assert best.rank.tolist() == [1.0, 1.0] and len(looks) == 3


@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("short", [-1e-3, -1e-6, 0.0])
def test_a_climb_just_short_of_a_break_does_not_hide_the_break_of_a_later_one(short: float, together: int) -> None:
    _, x, _, threat, noise = problem(1, eps=0.3)

    class ByClimb:
        def __call__(self, z: Inputs, rows: Rows) -> tuple[PerExample, PerExample]:
            raise AssertionError("the climbs have scores of their own")

        def of_climb(self, numbers: Tensor, moves: Tensor) -> Score:
            ranks = torch.where(numbers == 0, short, 1.0)
            return lambda z, rows: (z.flatten(1).sum(1), ranks)

    best = search(PGD(steps=4), ByClimb(), x, threat, noise, restarts=2, batch_size=together)
    assert best.rank.tolist() == [1.0] and best.restart.tolist() == [2]


def test_restarts_fill_free_places_and_end_with_the_first_success() -> None:
    """Three examples with four climbs each in eight places; which climb breaks an example is set."""
    model, x, y, threat, noise = problem(3, eps=0.3)
    starts = torch.stack([threat.sample(x, noise.fold(climb)) for climb in range(4)])
    lucky, held = torch.tensor([2, 9, 0]), []  # no climb breaks the second example

    def score(z: Inputs, rows: Rows) -> tuple[PerExample, PerExample]:
        climb = (starts[:, rows] - z.detach()).flatten(2).abs().amax(2).argmin(0)  # it stays where it starts
        held.append(rows.tolist())
        return 0 * z.flatten(1).sum(1), torch.where(climb == lucky[rows], 1.0, -1.0 - climb)

    best = search(PGD(steps=4), score, x, threat, noise, restarts=4, batch_size=8)
    assert sorted(held[0]) == [0, 0, 0, 1, 1, 1, 2, 2], "first the first climbs, then the second ones, ..."
    assert best.restart.tolist() == [3, 4, 1] and best.rank.tolist() == [1.0, -1.0, 1.0]
    assert best.passes == (5 + 5 + 1) + 4 * 5 + (1 + 1), "what breaks an example ends its later climbs, no earlier ones"
    assert best.queries.tolist() == [11, 20, 1], "as if the climbs had waited for each other"
    assert torch.equal(best.z[0], starts[2, 0]) and torch.equal(best.z[1], starts[0, 1])


@pytest.mark.parametrize("places", [1, 3, 8])
def test_of_climbs_that_tie_the_first_one_counts(places: int) -> None:
    """Ranks of low precision tie often; here a climb ranks -1 from some move on, the later ones sooner."""
    _, x, _, threat, noise = problem(2, eps=0.3)
    starts = torch.stack([threat.sample(x, noise.fold(climb)) for climb in range(3)])
    looks = torch.zeros(3, 2, dtype=torch.int64)

    def score(z: Inputs, rows: Rows) -> tuple[PerExample, PerExample]:
        climb = (starts[:, rows] - z.detach()).flatten(2).abs().amax(2).argmin(0)  # it stays where it starts
        looks[climb.unique(), :] += 1
        late = looks[climb, rows] > 3 - climb
        return 0 * z.flatten(1).sum(1), torch.where(late, -1.0, -2.0)

    best = search(PGD(steps=4), score, x, threat, noise, restarts=3, batch_size=places)
    assert best.rank.tolist() == [-1.0, -1.0] and torch.equal(best.z, starts[0])


@pytest.mark.parametrize("places", [1, 8])
def test_an_infinite_rank_takes_no_ones_place(places: int) -> None:
    """The second climb breaks the example at once; the first one overflows at its third look."""
    _, x, _, threat, noise = problem(1, eps=0.3)
    starts = torch.stack([threat.sample(x, noise.fold(climb)) for climb in range(2)])
    looks = torch.zeros(2, dtype=torch.int64)

    def score(z: Inputs, rows: Rows) -> tuple[PerExample, PerExample]:
        climb = (starts[:, rows] - z.detach()).flatten(2).abs().amax(2).argmin(0)
        looks[climb.unique()] += 1
        rank = torch.where(climb == 1, 0.5, torch.where(looks[0] > 2, torch.inf, -1.0))
        return 0 * z.flatten(1).sum(1), rank

    best = search(PGD(steps=4), score, x, threat, noise, restarts=2, batch_size=places)
    assert not best.finite.item() and best.rank.item() == (-1.0 if places == 1 else 0.5)
    assert torch.equal(best.z[0], starts[0 if places == 1 else 1, 0])


@pytest.mark.parametrize(
    ("n", "places", "restarts", "calls"),
    [(6, 6, 1, 5), (6, 2, 1, 15), (6, 4, 1, 10), (6, 4, 2, 15), (3, 8, 2, 5), (1, 1, 1, 5), (0, 4, 2, 0)],
)
def test_the_network_sees_full_batches_and_no_more_than_needed(n: int, places: int, restarts: int, calls: int) -> None:
    """With four steps, so five looks a climb: n * restarts climbs on so many places. One size, whatever is left."""
    model, x, y, threat, noise = problem(6, eps=0.3)
    sizes = []

    def score(z: Inputs, rows: Rows) -> PerExample:
        sizes.append(len(z))
        assert len(rows) == len(z) and rows.dtype == torch.int64
        return z.flatten(1).sum(1) - 1e3

    best = search(PGD(steps=4), score, x[:n], threat, noise.rows(torch.arange(n)), restarts, places)
    assert sizes == [places] * calls
    assert best.passes == 5 * n * restarts and len(best.z) == n


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("poison", ["gradient", "score", "rank"])
def test_what_is_not_finite_is_flagged_and_kept_apart(norm: Norm, poison: str) -> None:
    model, x, y, threat, noise = problem(9, norm, 0.3)
    smooth = bumpy_score(x, 4)
    poisoned = {2, 7}

    def score(z: Inputs, rows: Rows, bad: set[int] = poisoned) -> tuple[PerExample, PerExample]:
        value = smooth(z, rows) - 1e3  # type: ignore[operator]
        rank = value.detach()
        wrong = torch.tensor([row in bad for row in rows.tolist()])
        if poison == "gradient":  # the root has an infinite slope at 0
            value = value + torch.where(wrong[:, None], (0 * z).flatten(1), 1.0).sqrt().sum(1) * wrong
        elif poison == "score":
            value = value.masked_fill(wrong, torch.nan)
        else:
            rank = rank.masked_fill(wrong, torch.nan)
        return value, rank

    found = search(PGD(steps=3), score, x, threat, noise, restarts=2, batch_size=4)
    healthy = search(PGD(steps=3), lambda z, rows: score(z, rows, set()), x, threat, noise, restarts=2, batch_size=4)
    others = torch.tensor([row for row in range(9) if row not in poisoned])
    assert found.finite[others].all() and torch.equal(found.z[others], healthy.z[others])
    assert not found.finite[2] and not found.finite[7]
    assert threat.contains(x, found.z).all() and healthy.finite.all()


def test_an_example_that_is_never_finite_keeps_its_input() -> None:
    model, x, y, threat, noise = problem(3, eps=0.3)
    best = search(PGD(steps=3), lambda z, rows: z.flatten(1).sum(1) * torch.nan, x, threat, noise, 4, batch_size=2)
    assert torch.equal(best.z, x) and (best.rank == -torch.inf).all() and not best.finite.any()
    assert torch.equal(best.restart, torch.ones(3, dtype=torch.int64)), "a broken network is not asked again"


@pytest.mark.parametrize("ascent", [Adam(steps=4), FrankWolfe(steps=4)], ids=lambda a: a.name)
def test_memory_and_step_count_begin_anew_with_each_climb(ascent: Ascent) -> None:
    """A place that one example leaves gives the next nothing of what it remembers."""
    model, x, y, threat, noise = problem(7, eps=0.3)
    score = bumpy_score(x, 4)
    away = torch.tensor([0, 1e3, 1e3, 0, 1e3, 1e3, 0])  # some are above 0 at once and leave in the middle of others

    def shifted(z: Inputs, rows: Rows) -> PerExample:
        return score(z, rows) - away[rows]  # type: ignore[no-any-return, operator]

    queued = search(ascent, shifted, x, threat, noise, restarts=2, batch_size=2)
    for row in range(7):

        def alone(z: Inputs, rows: Rows, row: int = row) -> PerExample:
            return shifted(z, rows + row)

        best = search(ascent, alone, x[row : row + 1], threat, noise.rows(torch.tensor([row])), 2, batch_size=2)
        assert torch.equal(best.z[0], queued.z[row]) and torch.equal(best.rank[0], queued.rank[row])


def test_the_callers_tensors_are_untouched() -> None:
    model, x, y, threat, noise = problem(5, eps=0.3)
    before, version = x.clone(), x._version
    rng = torch.get_rng_state()
    best = search(Adam(steps=2), lambda z, rows: z.flatten(1).sum(1) - 1e3, x, threat, noise, 2, batch_size=2)
    best.z.zero_()
    assert torch.equal(x, before) and x._version == version and not x.requires_grad
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize("places", [2, 8])
def test_ties_among_slopes_are_broken_alike_in_any_company(places: int) -> None:
    """Frank-Wolfe in L1 gives its budget to the largest slopes, and here all are equal."""
    n = 8
    x = torch.rand((n, 300), generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    slope = torch.randn((n, 300), generator=torch.Generator().manual_seed(1)).sign()
    x[-1], slope[-1] = 0.9, 1.0  # with so little room that it takes many coordinates to spend the budget
    threat, noise = Threat("L1", 20.0), Noise.of(0, torch.arange(n))

    def score(z: Inputs, rows: Rows) -> PerExample:
        return (z * slope[rows]).sum(1) - 1e4

    together = search(FrankWolfe(steps=1), score, x, threat, noise, 1, places)
    rows = torch.arange(n - 1)
    without = search(FrankWolfe(steps=1), score, x[:-1], threat, noise.rows(rows), 1, places)
    assert torch.equal(together.z[:-1], without.z)
