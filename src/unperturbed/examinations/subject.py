"""What a diagnostic is given: a network, examples that it was trained on and others, and the size of perturbations."""

from collections.abc import Callable
from dataclasses import dataclass
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
from unperturbed.types import Batch, Inputs, Logits, PerExample, Rows

STEPS = 20
"""Of the search for worst-case points."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A network in eval mode with what it is examined on.

    Attributes:
        name: what tables and figures call it.
        classifier: returns logits, in float32 or float64.
        test: examples that it was not trained on; ids are their places in the test split.
        train: examples that it was trained on, as they are (not augmented); None: there are none.
        threat: the size of perturbations. Models that are compared share it, even if they were trained at other sizes.
        classes: how many there are.
        seed: of random directions and starts.
        batch_size: examples that the network sees at a time.
        judge: a second network, which says which class a synthesised input shows; None: there is none.
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
        """Return, for each example, the point of highest cross-entropy that 20 steps of PGD pass through."""

        def score(z: Inputs, rows: Rows) -> PerExample:
            # that of float32 is 0 at margins above 17, where no iterate would be worse than another
            return loss_of(self.classifier(z), batch.y[rows]).to(z.dtype)

        noise = Noise.of(self.seed, batch.ids)
        with as_reported(batch.x.device), under_attack(self.classifier):
            return search(PGD(steps=STEPS), score, batch.x, self.threat, noise, 1, self.batch_size, torch.inf).z

    @property
    def _training(self) -> Batch:
        assert self.train is not None, "this subject has no training examples"
        return self.train


Diagnostic = Callable[[Subject], Finding]
"""The first line of its docstring says what it measures."""
