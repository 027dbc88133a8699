"""The laws of every attack, as functions that raise AssertionError: for attacks, and for sabotaged ones."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from support.examples import NORMS, Counted, untouched
from unperturbed.attacks.base import Attack, AttackResult
from unperturbed.losses import margin
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Logits, Norm, Rows

SHAPE = (1, 5, 5)
EPS: dict[Norm, float] = {"Linf": 0.1, "L2": 0.5, "L1": 2.0}
LAWS: list[Callable[..., None]] = []


def law(check: Callable[..., None]) -> Callable[..., None]:
    LAWS.append(check)
    return check


# Networks whose truth is known


class Linear(nn.Module):
    """f = W x + b, with `lead` added to the label's logit, so that nothing breaks unless it is small."""

    def __init__(self, classes: int = 2, shape: tuple[int, ...] = SHAPE, lead: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        weight = torch.randn(classes, torch.Size(shape).numel(), generator=draw, dtype=torch.float64)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(-weight.sum(1) / 2, requires_grad=False)
        self.bias[0] += lead

    def forward(self, x: Inputs) -> Logits:
        return x.flatten(1) @ self.weight.T + self.bias

    def worst(self, batch: Batch, threat: Threat) -> Tensor:
        """Return the largest margin over S(x): each other class's linear score at its maximum (see test_threat)."""
        worst = []
        for j in range(len(self.weight)):
            slope = (self.weight[j] - self.weight[batch.y]).view_as(batch.x)
            logits = self(threat.maximise_linear(batch.x, slope))
            lead = logits[:, j] - logits.gather(1, batch.y[:, None])[:, 0]
            worst.append(lead.masked_fill(batch.y == j, -torch.inf))
        return torch.stack(worst).amax(0)


LEAD = 100.0


class Led(nn.Module):
    """Another network, with so much added to the logit of the label that nothing breaks."""

    def __init__(self, inner: nn.Module, batch: Batch) -> None:
        super().__init__()
        self.inner, self.batch = inner, batch

    def forward(self, x: Inputs) -> Logits:
        nearest = (x.flatten(1)[:, None] - self.batch.x.flatten(1)).abs().sum(2).argmin(1)
        logits: Logits = self.inner(x)
        return logits + LEAD * torch.eye(logits.shape[1], dtype=logits.dtype)[self.batch.y[nearest]]


def distance(model: Linear, one: Batch, norm: Norm) -> float:
    """Return the distance of the boundary, by bisection over the radius."""
    low, high = 0.0, 40.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if bool(model.worst(one, Threat(norm, middle)) > 0) else (middle, high)
    return high


class Wavy(nn.Module):
    """A smooth network with many local maxima; `lead` is added to the logit of class 0."""

    def __init__(self, classes: int = 3, lead: float = 0.0, seed: int = 1, shape: tuple[int, ...] = SHAPE) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        d = torch.Size(shape).numel()
        self.first = nn.Parameter(torch.randn(d, 12, generator=draw, dtype=torch.float64), requires_grad=False)
        self.last = nn.Parameter(torch.randn(12, classes, generator=draw, dtype=torch.float64), requires_grad=False)
        self.dropout, self.lead = nn.Dropout(0.5), lead

    def forward(self, x: Inputs) -> Logits:
        hidden = (2 * x.flatten(1)[:, :, None] * self.first).sum(1).sin()  # no matrix product: they round by place
        logits: Logits = (self.dropout(hidden)[:, :, None] * self.last).sum(1)
        return logits + self.lead * torch.eye(logits.shape[1], dtype=logits.dtype)[0]


def inputs(n: int = 6, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Inputs:
    """Return inputs in [0, 1], a third of the pixels at the bounds."""
    draw = torch.rand((n, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (draw * 1.6 - 0.3).clamp(0, 1)


def batch_for(model: nn.Module, x: Inputs, y: Tensor | None = None) -> Batch:
    """Return the inputs with these labels, or the network's own."""
    with torch.no_grad():
        labels = model(x).argmax(1) if y is None else y
    return Batch(x, labels, torch.arange(len(x)) * 7 + 3)


def zeros(x: Inputs) -> Tensor:
    return torch.zeros(len(x), dtype=torch.int64)


def run(
    attack: Attack, model: nn.Module, batch: Batch, threat: Threat, batch_size: int = 0, seed: int = 0
) -> AttackResult:
    return attack(model.eval(), batch, threat, Noise.of(seed, batch.ids), batch_size or max(len(batch.x), 1))


@contextmanager
def seen_by(model: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collect the inputs and logits that pass the network."""
    seen: list[tuple[Tensor, Tensor]] = []
    hook = model.register_forward_hook(lambda _, args, out: seen.append((args[0].detach().clone(), out.detach())))
    try:
        yield seen
    finally:
        hook.remove()


# The laws


@law
def reaches_the_worst_margin(attack: Attack, share: float = 0.999, classes: int = 2) -> None:
    """On linear networks, in every norm, whichever the label is; more classes have more local maxima."""
    for norm in NORMS:
        threat = Threat(norm, EPS[norm])
        model = Linear(classes)
        batch = batch_for(model, inputs(), torch.arange(6) % classes)
        start = margin(model(batch.x), batch.y)
        found = run(attack, Led(model, batch), batch, threat)
        drop = (found.margin + LEAD - start) / (model.worst(batch, threat) - start)
        assert (drop >= share).all() and (drop <= 1 + 1e-6).all(), f"{norm}: {drop.tolist()}"


@law
def breaks_what_can_be_broken(attack: Attack, slack: float = 1.02, classes: int = 2) -> None:
    """Just above the distance of the boundary, and not just below it."""
    for norm in NORMS:
        model = Linear(classes, seed=2)
        batch = batch_for(model, inputs(2))
        for row in range(len(batch.x)):
            one = Batch(batch.x[[row]], batch.y[[row]], batch.ids[[row]])
            near = distance(model, one, norm)
            above, below = (run(attack, model, one, Threat(norm, near * by)).margin for by in (slack, 0.999))
            assert (above > 0).all(), f"{norm}: example {row} breaks at {near:.4f}"
            assert (below <= 0).all(), f"{norm}: example {row} cannot break below {near:.4f}"


@law
def stays_inside(attack: Attack) -> None:
    """Returned points lie in S(x), and their stated margins are those of the network at these points."""
    for norm in NORMS:
        for eps, bounds in [(EPS[norm], (0.0, 1.0)), (3 * EPS[norm], (0.0, 1.0)), (EPS[norm], None), (0.0, (0.0, 1.0))]:
            for lead in (0.0, 20.0) if eps == EPS[norm] else (20.0,):
                threat, model = Threat(norm, eps, bounds), Wavy(lead=lead)
                batch = batch_for(model, inputs())
                found = run(attack, model, batch, threat)
                assert threat.contains(batch.x, found.z).all(), f"{norm}, eps {eps}"
                torch.testing.assert_close(margin(model(found.z), batch.y), found.margin)
                assert found.finite.all() and not found.z.requires_grad


@law
def keeps_the_best_of_all_it_saw(attack: Attack) -> None:
    """The largest margin among all the points of S(x) that passed the network: of all steps, restarts and targets."""
    for norm in NORMS:
        threat = Threat(norm, EPS[norm])
        model = Wavy(lead=30.0)
        x = inputs()
        batch = batch_for(model, x, zeros(x))
        with seen_by(model) as seen:
            found = run(attack, model, batch, threat)
        for row in range(len(x)):
            best = -torch.inf
            for z, logits in seen:
                near = threat.contains(x[row].expand_as(z), z)
                if near.any():
                    best = max(best, float(margin(logits[near], torch.zeros(int(near.sum()), dtype=torch.int64)).max()))
            assert float(found.margin[row]) >= best - 1e-9, f"{norm}: {float(found.margin[row])} < {best}"


@law
def leaves_the_network_alone(attack: Attack) -> None:
    """No mode, weight, buffer or random state changes, and no forward runs in train mode, nor with another input."""
    model = Counted(Wavy(lead=10.0)).eval()
    x = inputs()
    batch = batch_for(model, x, zeros(x))
    with untouched(model, batch.x, batch.y, batch.ids):
        run(attack, model, batch, Threat("Linf", 0.1))
    assert model.training_calls == 0


@law
def counts_its_passes(attack: Attack) -> None:
    """Forward and backward, where every place is busy to the end."""
    model = Counted(Wavy(lead=30.0)).eval()
    x = inputs()
    batch = batch_for(model, x, zeros(x))
    model.forwards = model.to_inputs = 0
    found = run(attack, model, batch, Threat("Linf", 0.1))
    assert model.forwards == found.passes, f"{model.forwards} forwards, not {found.passes}"
    assert found.queries is not None and int(found.queries.sum()) == found.passes, f"{found.queries} for the examples"
    backwards = found.passes if found.backwards is None else found.backwards
    assert model.to_inputs == backwards, f"{model.to_inputs} backwards, not {backwards}"


@law
def does_not_depend_on_order_or_company(attack: Attack) -> None:
    for norm in NORMS:
        model, threat = Wavy(lead=1.0), Threat(norm, EPS[norm])
        whole = batch_for(model, inputs(12))
        order = torch.randperm(12, generator=torch.Generator().manual_seed(3))

        def at(rows: Rows, whole: Batch = whole) -> Batch:
            return Batch(whole.x[rows], whole.y[rows], whole.ids[rows])

        straight, shuffled, part = (run(attack, model, at(r), threat, 4) for r in (torch.arange(12), order, order[:7]))
        for rows, other in ((order, shuffled), (order[:7], part)):
            assert torch.equal(straight.z[rows], other.z) and torch.equal(straight.margin[rows], other.margin), norm
            assert torch.equal(straight.restart[rows], other.restart)
            assert straight.queries is not None and other.queries is not None
            assert torch.equal(straight.queries[rows], other.queries)


@law
def leaves_what_is_broken(attack: Attack) -> None:
    """An example that breaks at once costs next to nothing, and one that is misclassified from the start no more."""
    model = Linear(3, lead=60.0)
    x = inputs()
    batch = batch_for(model, x, torch.ones_like(zeros(x)))  # class 0 leads everywhere: all are misclassified
    found = run(attack, model, batch, Threat("Linf", 0.1))
    assert (found.margin > 0).all() and (found.restart == 1).all()
    assert found.passes <= 4 * len(x), f"{found.passes} passes"


class Poisoned(nn.Module):
    """A network without a finite value, or gradient, where the first pixel is bright; that pixel does nothing else."""

    def __init__(self, inner: Wavy, gradient: bool) -> None:
        super().__init__()
        self.inner, self.gradient = inner, gradient
        self.inner.first[0] = 0

    def forward(self, x: Inputs) -> Logits:
        wrong = x.flatten(1)[:, :1] > 0.5
        logits: Logits = self.inner(x)
        if self.gradient:  # the root has an infinite slope at 0
            root = torch.where(wrong, 0 * x.flatten(1).sum(1, keepdim=True), 1.0).sqrt()
            return logits + root * torch.arange(logits.shape[1])
        return logits.masked_fill(wrong, torch.nan)


@law
def never_calls_the_unknown_robust_or_broken(attack: Attack, gradient: bool = True) -> None:
    """NaN logits, or gradients, are flagged, and no example suffers for its neighbour."""
    x = inputs()
    x[:, 0, 0, 0] = 0.1
    healthy = run(attack, Poisoned(Wavy(lead=30.0), False), batch_for(nn.Identity(), x, zeros(x)), Threat("Linf", 0.1))
    bad = torch.tensor([True, False, False, True, False, False])
    x[bad, 0, 0, 0] = 0.9
    for through_gradient in (False, True) if gradient else (False,):
        model = Poisoned(Wavy(lead=30.0), through_gradient)
        found = run(attack, model, batch_for(model, x, zeros(x)), Threat("Linf", 0.1))
        assert torch.equal(found.finite, ~bad) and not (found.margin[bad] > 0).any()
        if not through_gradient:
            assert torch.equal(found.z[~bad], healthy.z[~bad]) and healthy.finite.all()


@law
def begins_each_climb_at_random(attack: Attack) -> None:
    """Other noise leads elsewhere, and the same noise to the same point, whatever torch's generator says."""
    model = Wavy(lead=30.0)
    x = inputs()
    batch = batch_for(model, x, zeros(x))
    first, again, other = (run(attack, model, batch, Threat("L2", 0.5), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.z, again.z) and not torch.equal(first.z, other.z)


@law
def tries_every_restart(attack: Attack, least: float = 0.9) -> None:
    """An example that stands has begun all of them, and no two climbs look at the same points."""
    model = Wavy(lead=30.0)
    x = inputs(2)
    batch = batch_for(model, x, zeros(x))
    with seen_by(model) as seen:
        found = run(attack, model, batch, Threat("L2", 0.5))
    assert (found.restart == attack.restarts).all()
    once = run(replace(attack, restarts=1), model, batch, Threat("L2", 0.5))
    assert found.passes >= (attack.restarts - 0.2) * once.passes, f"{found.passes} passes, and {once.passes} for one"
    points = torch.cat([z for z, _ in seen]).flatten(1)
    away = points[(points[:, None] - x.flatten(1)).abs().amax(2).amin(1) > 1e-9]
    assert len(away.unique(dim=0)) >= least * len(away), f"{len(away.unique(dim=0))} of {len(away)} points differ"
