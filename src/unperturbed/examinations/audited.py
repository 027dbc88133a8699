"""The input of audit checks: a network, examples, and measurements shared between checks."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unperturbed.attacks.base import Attack, padded_logits
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.evaluation.gradient_check import lead, rivals
from unperturbed.examinations.behaviour import Behaviour, behaviour_of, drawn
from unperturbed.examinations.remedies.candidates import Candidate, candidates_for
from unperturbed.examinations.remedies.deployed import OneByOne, Reachable, Reset, state_restored
from unperturbed.examinations.remedies.layers import LayerCheck, check_layers
from unperturbed.findings import Finding, Number, Outcome, typed
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD
from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Logits, PerExample, Rows

Result = Literal["pass", "fail", "not run"]
Reason = Literal["", "budget", "error", "not applicable"]
FEW = 32
"""The number of examples of most checks."""


@dataclass(frozen=True)
class Grid:
    """A function over a square: `values[i][j]` at `along[i]` on the first axis and `along[j]` on the second.

    Attributes:
        along: the places on both axes, rising.
        values: the function there.
        caption: a sentence on the axes and the values.
    """

    along: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]
    caption: str

    @classmethod
    def of(cls, value: dict[str, Any]) -> "Grid":
        """Return the grid that JSON holds; raises TypeError or KeyError for other values."""
        rows = tuple(map(tuple, value["values"]))
        grid = typed(cls, {"along": value["along"], "values": rows, "caption": value["caption"]})
        if len(rows) != len(grid.along) or any(len(row) != len(grid.along) for row in rows):
            raise TypeError("the grid is no square of its positions")
        return grid


@dataclass(frozen=True)
class CheckResult:
    """The finding of one audit check.

    Attributes:
        name: of the check and its file.
        question: the question of the check, for a newcomer.
        verdict: pass, fail, or not run.
        measured: the measurement in words, with numbers and counts.
        expected: the result for an undefended network.
        causes: names of the causes of a failure.
        where: the layer where the gradient vanishes or is wrong, if found.
        numbers: the measured numbers, for tables and comparisons.
        seconds: processor time of the check.
        reason: why it was not run; "" where it was.
        broke: ids of examples that it broke, verified on the network inside the threat set.
        surface: a loss over a square, to be drawn; None where the check has none.
    """

    name: str
    question: str
    verdict: Result
    measured: str
    expected: str
    causes: tuple[str, ...] = ()
    where: str = ""
    numbers: tuple[Number, ...] = ()
    seconds: float = 0.0
    reason: Reason = ""
    broke: tuple[int, ...] = ()
    surface: Grid | None = None

    def finding(self) -> Finding:
        """Return the result as a finding, for the report page."""
        return Finding(self.question, f"{self.verdict}: {self.measured} (expected: {self.expected})", self.numbers)

    def json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def of(cls, value: dict[str, Any]) -> "CheckResult":
        """Return the result from the output of `json`; raises TypeError or KeyError for other values."""
        result = typed(cls, {name: entry for name, entry in value.items() if name not in ("numbers", "surface")})
        surface = None if value["surface"] is None else Grid.of(value["surface"])
        return replace(result, numbers=tuple(map(Number.of, value["numbers"])), surface=surface)


def broken_in(outcome: Outcome) -> list[int]:
    """Return the ids of the examples that an evaluation broke."""
    rows = zip(outcome.examples["id"], outcome.examples["verdict"], strict=True)
    return [number for number, verdict in rows if verdict == "broken"]


def share(name: str, count: int, n: int) -> Number:
    """Return count / n as a number of an audit check; 0 if n is 0."""
    return Number(name, count / n if n else 0.0, n, unit="%")


@dataclass(frozen=True, eq=False)
class Audited:
    """A network under audit, in eval mode with frozen weights.

    Attributes:
        model: the original network, returns logits.
        batch: the examples.
        threat: the threat set.
        classes: number of classes.
        seed: of all random numbers.
        batch_size: examples in a batch.
        suite: of the evaluation in question.
        evaluate: runs a suite on a network and these examples, or loads a finished evaluation.
        stored: evaluations of the same network and threat in the run folder.
        unlabelled: further inputs, from which a stand-in learns the network's labels; None: the examples alone.
        peers: other networks by name, whose adversarial examples are tried on this one.
    """

    model: nn.Module
    batch: Batch
    threat: Threat
    classes: int
    seed: int
    batch_size: int
    suite: Suite
    evaluate: Callable[[nn.Module, Suite, str], Outcome]
    stored: tuple[Outcome, ...] = field(default=())
    unlabelled: Inputs | None = None
    peers: Mapping[str, nn.Module] = field(default_factory=dict)

    @cached_property
    def behaviour(self) -> Behaviour:
        """Whether the network is random, keeps state, or depends on the batch."""
        return behaviour_of(self.model, self.batch.x, self.seed, self.batch_size)

    @cached_property
    def steady(self) -> nn.Module:
        """The network with the same state in every call: the original one, or that after a pass over the examples if
        better.

        The outputs of a network with averages over calls may be meaningless before the first calls.
        """
        if not self.behaviour.stateful:
            return self.model
        with state_restored(self.model):
            fresh = self._accuracy_from_here()
            self._warm_up()
            warm = self._accuracy_from_here()
        if warm > fresh + 0.02:
            self._warm_up()
        return Reset(self.model)

    def _warm_up(self) -> None:
        for _ in range(3):
            for x in torch.split(self.batch.x, self.batch_size):
                with torch.no_grad(), drawn(self.seed, x.device):
                    self.model(x)

    def _accuracy_from_here(self) -> float:
        network = Reset(self.model)
        logits = self.answers_of(OneByOne(network) if self.behaviour.coupled else network, self.batch.x[:64])
        return float((logits.argmax(1) == self.batch.y[:64]).float().mean())

    @cached_property
    def deployed(self) -> nn.Module:
        """The network as a function of one example: from the same state, and alone if the batch has an effect."""
        return OneByOne(self.steady) if self.behaviour.coupled else self.steady

    @cached_property
    def reachable(self) -> nn.Module:
        """The same, with a gradient of 0 if none reaches the inputs."""
        return Reachable(self.deployed)

    @cached_property
    def logits(self) -> Logits:
        """The logits of all examples."""
        return self.answers(self.batch.x)

    @cached_property
    def few(self) -> Batch:
        """A few correctly classified examples, evenly spread; any examples if none is correct."""
        correct = (self.logits.argmax(1) == self.batch.y).nonzero()[:, 0]
        rows = correct if len(correct) else torch.arange(len(self.batch.y), device=self.batch.y.device)
        return self._spread(rows)

    @cached_property
    def standing_batch(self) -> Batch:
        """Some of the examples that the evaluation in question and the stored ones leave standing, evenly spread."""
        broken = {number for outcome in (self.baseline, *self.stored) for number in broken_in(outcome)}
        stands = torch.tensor([int(number) not in broken for number in self.batch.ids], device=self.batch.y.device)
        return self._spread((stands & (self.logits.argmax(1) == self.batch.y)).nonzero()[:, 0])

    def _spread(self, rows: Rows) -> Batch:
        most = min(FEW, len(rows))
        chosen = rows[torch.arange(most, device=rows.device) * len(rows) // max(most, 1)]
        return Batch(self.batch.x[chosen], self.batch.y[chosen], self.batch.ids[chosen])

    @cached_property
    def white_box(self) -> Tensor:
        """Of each of the few examples, whether two climbs of 40 steps along the network's gradient break it."""
        attack = GradientAttack("PGD", margin, PGD(steps=40), restarts=2)
        return self.wrong(self.few, self.climbed(attack, self.few, 31))

    @cached_property
    def layers(self) -> tuple[LayerCheck, ...]:
        """The checks of the gradient at every layer, from the output to the input."""
        with own_randomness(self.seed, self.batch.x.device):
            return check_layers(self.steady, self.few, self.seed)

    @cached_property
    def candidates(self) -> list[Candidate]:
        """Surrogates for attacking the network, the strongest first."""
        return candidates_for(self)

    @cached_property
    def baseline(self) -> Outcome:
        """The evaluation in question: the suite on the original network."""
        ids = {*self.batch.ids.tolist()}
        stored = [o for o in self.stored if o.suite == self.suite.name and ids <= {*o.examples["id"]}]
        return stored[0] if stored else self.evaluate(self.deployed, self.suite, "baseline")

    @property
    def standing(self) -> int:
        """Examples classified correctly without an attack."""
        return int((self.logits.argmax(1) == self.batch.y).sum())

    def answers(self, x: Inputs, draw: int = 0) -> Logits:
        """Return the deployed network's logits at any number of inputs, in a draw of this number."""
        return self.answers_of(self.deployed, x, draw)

    def answers_of(self, network: nn.Module, x: Inputs, draw: int = 0) -> Logits:
        """Return the logits of a network derived from this one."""
        with as_reported(x.device), under_attack(network), drawn(self.seed + draw, x.device):
            return padded_logits(network, x, self.batch_size)

    def mean_leads(self, batch: Batch, z: Inputs) -> PerExample:
        """Return the lead of the best wrong class at z; for networks that draw random numbers, a mean over draws."""
        draws = range(1, 9) if self.behaviour.is_random else range(1)
        leads = [lead(logits, batch.y, rivals(logits, batch.y)) for logits in (self.answers(z, draw) for draw in draws)]
        return torch.stack(leads).mean(0)

    def leads(self, batch: Batch, z: Inputs) -> PerExample:
        """Return max_{j != y} f_j - f_y at z: positive where the network is wrong."""
        logits = self.answers(z)
        return lead(logits, batch.y, rivals(logits, batch.y))

    def wrong(self, batch: Batch, z: Inputs) -> Tensor:
        """Tell per example whether z, which lies in the threat set, is misclassified."""
        return self.leads(batch, z) >= 0

    def climbed(self, attack: Attack, batch: Batch, stream: int, network: nn.Module | None = None) -> Inputs:
        """Return the points that an attack finds on the network, or on a stand-in, with random numbers of a stream."""
        target = self.reachable if network is None else network
        noise = Noise.of(self.seed, batch.ids).fold(stream)
        with under_attack(target), drawn(self.seed, batch.x.device):
            return attack(target, batch, self.threat, noise, self.batch_size).z

    def broke(self, batch: Batch, z: Inputs) -> tuple[int, ...]:
        """Return the ids of the examples that are misclassified at z inside the threat set.

        None of a network that draws random numbers: one forward proves nothing there.
        """
        if self.behaviour.is_random:
            return ()
        rows = (self.leads(batch, z) > 0) & self.threat.contains(batch.x, z)
        return tuple(batch.ids[rows].tolist())


Check = Callable[[Audited], CheckResult]
PLACE = Path(__file__).with_name("audits")
