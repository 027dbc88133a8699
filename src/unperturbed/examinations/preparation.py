"""From a network and data in any form to what is examined: the same for diagnostics and explanations."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from unperturbed.data.check import check
from unperturbed.data.selection import choose, parse
from unperturbed.data.split import Split, select
from unperturbed.errors import InputError
from unperturbed.evaluation.batch_size import physical_batch_size
from unperturbed.evaluation.checked_model import CheckedModel, check_model, given_split, measured_split
from unperturbed.examinations.subject import Subject
from unperturbed.networks.logits import Output
from unperturbed.threat import Threat
from unperturbed.types import Batch


@dataclass(frozen=True, eq=False)
class Prepared:
    """The subject of an examination, with the splits of its examples."""

    subject: Subject
    model: CheckedModel
    test: Split
    train: Split | None


def prepare(
    name: str,
    model: nn.Module,
    test: Any,
    threat: Threat,
    train: Any,
    examples: tuple[int | str | None, int | str | None],
    seed: int,
    batch_size: int | Literal["auto"],
    output: Output,
) -> Prepared:
    """Return the network and its examples, `examples` of the test and of the training split, checked.

    Raises:
        InputError: where model and data do not fit each other or the threat's box.
    """
    of_test, of_training = examples
    test = chosen(measured_split(test), of_test, "test")
    train = None if train is None else chosen(once(given_split(train)), of_training, "training")
    looked = check_model(model, test, threat, seed, output)
    if train is not None:
        if train.shape != test.shape:
            raise InputError(f"Examples have shape {train.shape} in training and {test.shape} in the test split.")
        check(train, threat.bounds, looked.classes)

    def batch(split: Split) -> Batch:
        return looked.batch(split, torch.arange(len(split)), threat)

    size, training = physical_batch_size(batch_size, looked, len(test)), None if train is None else batch(train)
    subject = Subject(name, looked.classifier, batch(test), training, threat, looked.classes, seed, size)
    return Prepared(subject, looked, test, train)


def once(split: Split) -> Split:
    """Return the first example of every id, with a note on others: findings pair values by ids.

    Training sets may repeat examples, such as those of a rare class.
    """
    first = {name: row for row, name in reversed([*enumerate(split.names().tolist())])}
    if len(first) == len(split):
        return split
    examples = select(split, torch.tensor(sorted(first.values())))
    examples.notes = (
        *split.notes,
        f"{len(split) - len(first)} of the {len(split)} training examples have the id of another one (an oversampled "
        "class?): of each id, the first is examined.",
    )
    return examples


def chosen(split: Split, examples: int | str | None, what: str, seed: int | None = None) -> Split:
    """Return the examined examples of a split; all if it has fewer than requested."""
    if examples is None:
        return split
    selection = parse(examples, seed, "examples")
    return split if selection.count >= len(split) else choose(split, selection, kind=what)[0]
