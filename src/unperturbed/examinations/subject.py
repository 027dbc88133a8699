"""The input of diagnostics: a network, training and test examples, and the size of perturbations."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import nn

from unperturbed.attacks.base import padded_logits
from unperturbed.findings import Finding
from unperturbed.maximise.ascent import search
from unperturbed.maximise.pgd import PGD
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.noise import Noise
from unperturbed.statistics.per_example import loss_of
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Logits, Norm, PerExample, Rows

STEPS = 20
"""Steps of the search for worst-case points."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A network in eval mode, with examples and settings of an examination.

    Attributes:
        name: its name in tables and figures.
        classifier: returns logits, in float32 or float64.
        test: examples outside its training set; ids are their positions in the test split.
        train: its training examples, without augmentation, or None.
        threat: the size of perturbations, the same for all compared models, whatever the eps of their training.
        classes: number of classes.
        seed: of random directions and starts.
        batch_size: examples in a batch.
        judge: a second network that classifies synthesised inputs, or None.
        distances: upper bounds on the distance to the nearest misclassified input, by norm and id, from earlier curves.
    """

    name: str
    classifier: nn.Module
    test: Batch
    train: Batch | None
    threat: Threat
    classes: int
    seed: int = 0
    batch_size: int = 128
    judge: nn.Module | None = None
    distances: Mapping[Norm, Mapping[int, float]] = field(default_factory=dict)

    def logits(self, x: Inputs) -> Logits:
        """Return the logits of any number of inputs, without a graph."""
        with as_reported(x.device), under_attack(self.classifier):
            return padded_logits(self.classifier, x, self.batch_size)

    @cached_property
    def test_logits(self) -> Logits:
        """The logits of the test examples."""
        return self.logits(self.test.x)

    @cached_property
    def train_logits(self) -> Logits:
        """The logits of the training examples."""
        return self.logits(self._training.x)

    @cached_property
    def worst_test(self) -> Inputs:
        """A worst-case point of S(x) for each test example."""
        return self.worst_case(self.test)

    @cached_property
    def worst_train(self) -> Inputs:
        """A worst-case point of S(x) for each training example."""
        return self.worst_case(self._training)

    def worst_case(self, batch: Batch) -> Inputs:
        """Return, for each example, the iterate of highest cross-entropy in 20 steps of PGD."""

        def score(z: Inputs, rows: Rows) -> PerExample:
            # in float32 it is 0 at margins above 17, where all iterates would tie
            return loss_of(self.classifier(z), batch.y[rows]).to(z.dtype)

        noise = Noise.of(self.seed, batch.ids)
        with as_reported(batch.x.device), under_attack(self.classifier):
            return search(PGD(steps=STEPS), score, batch.x, self.threat, noise, 1, self.batch_size, torch.inf).z

    @property
    def _training(self) -> Batch:
        assert self.train is not None, "this subject has no training examples"
        return self.train


Diagnostic = Callable[[Subject], Finding]
"""The first line of its docstring is its description."""
