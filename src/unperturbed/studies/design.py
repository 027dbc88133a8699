"""The parts of a study: settings, networks, measures, claims."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal

from matplotlib.figure import Figure
from torch import nn

from unperturbed.data.split import Data, Split
from unperturbed.evaluation.hashes import version
from unperturbed.methods.base import Method
from unperturbed.specs.model_for import model_for
from unperturbed.specs.spec import describe
from unperturbed.studies.rule import Claim
from unperturbed.studies.values import Values
from unperturbed.threat import Threat
from unperturbed.training.recipe import Recipe

Scale = Literal["small", "medium", "full"]
SCALES: tuple[Scale, ...] = ("small", "medium", "full")


@dataclass(frozen=True)
class Setting:
    """Data, network, threat and recipe that the networks of a study share.

    Attributes:
        data: name of the data set.
        threat: of training and evaluation.
        recipe: of every run, with its seed replaced.
        model: name of the architecture.
        options: of the architecture.
        suite: name of the strongest attacks.
        seeds: number of seeds.
        train: number of training examples, the first; None: all.
        test: number of test examples, the first; None: all.
        protocol: recipe by name, which fills in what neither `recipe` nor a network changes.
    """

    data: str
    threat: Threat
    recipe: Recipe
    model: str = "small-cnn"
    options: Mapping[str, Any] = field(default_factory=dict)
    suite: str = "standard"
    seeds: int = 5
    train: int | None = None
    test: int | None = 1000
    protocol: Literal["default", "strong"] = "default"

    @property
    def name(self) -> str:
        """A short description for tables."""
        return f"{self.data}, {self.threat}, {self.model}, {self.recipe.epochs} epochs"

    def network(self, data: Data, seed: int) -> nn.Module:
        """Return the network before training."""
        return model_for(data, self.model, seed=seed, **self.options)


@dataclass(frozen=True)
class Network:
    """A network of a study, up to its seed.

    Attributes:
        name: in tables and claims.
        methods: the training method; of several, the one with the highest robust accuracy on held-out training
            examples is chosen, by a run with a separate seed.
        strength: eps of its training, in units of the setting's.
        changes: fields of the recipe that differ.
        epochs: of its run, in units of the setting's, for comparisons at equal time.
    """

    name: str
    methods: tuple[Method, ...]
    strength: float = 1.0
    changes: Mapping[str, Any] = field(default_factory=dict)
    epochs: float = 1.0


@dataclass(frozen=True)
class Run:
    """One training run, without its place: equal runs of several studies are trained once."""

    setting: Setting
    network: Network
    method: Method
    seed: int

    @property
    def threat(self) -> Threat:
        """The threat set of training."""
        return replace(self.setting.threat, eps=self.network.strength * self.setting.threat.eps)

    @property
    def recipe(self) -> Recipe:
        """The recipe with its seed."""
        epochs = round(self.network.epochs * self.setting.recipe.epochs)
        return replace(self.setting.recipe, **self.network.changes, epochs=epochs, seed=self.seed)

    @property
    def key(self) -> str:
        """The name of the folder of all seeds: the data, the method, and a hash of everything that decides a run."""
        content = {
            "data": self.setting.data,
            "train": self.setting.train,
            "protocol": self.setting.protocol,
            "model": [self.setting.model, dict(self.setting.options)],
            "threat": str(self.threat),
            "method": describe(self.method),
            "recipe": {name: value for name, value in asdict(self.recipe).items() if name != "seed"},
        }
        text = json.dumps(content, sort_keys=True, default=str)
        return f"{self.setting.data}-{self.method.name}-{sha256(text.encode()).hexdigest()[:10]}"


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network, as measures get it."""

    model: nn.Module
    train: Split
    test: Split
    run: Run
    folder: str

    @property
    def threat(self) -> Threat:
        """The threat set of the evaluation."""
        return self.run.setting.threat


Measured = Mapping[str, list[float | None]]
"""Values by the name of their quantity, one a test example, or one for the network."""


@dataclass(frozen=True)
class Measure:
    """A measurement of a trained network.

    Attributes:
        name: in files.
        take: from the network to its values, a function of a module.
    """

    name: str
    take: Callable[[Trained], Measured]

    def question(self, setting: Setting) -> str:
        """Return what a stored value depends on, apart from the network."""
        return f"{self.name}, {setting.suite}, {setting.threat}, {setting.test} examples, unperturbed {version()}"


@dataclass(frozen=True)
class Study:
    """A claim of a paper as an experiment.

    Attributes:
        name: such as "LLR-1".
        claim: one sentence.
        source: the paper, and where it makes the claim.
        networks: trained in every setting.
        measures: taken of every network.
        claims: the decided statements.
        settings: by scale.
        timed: names of the networks whose steps are timed, alternating in one process.
        draw: the figure of one setting; None: the differences with their intervals.
    """

    name: str
    claim: str
    source: str
    networks: tuple[Network, ...]
    measures: tuple[Measure, ...]
    claims: tuple[Claim, ...]
    settings: Mapping[Scale, tuple[Setting, ...]]
    timed: tuple[str, ...] = ()
    draw: Callable[[Setting, Values], Figure] | None = None
