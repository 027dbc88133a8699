"""A run folder: its network, data, threat, method and results."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from unperturbed.checks import checked
from unperturbed.data.selection import parse_record, positions
from unperturbed.data.sources import keep_place, load_data
from unperturbed.data.split import Data, Split, hold_out, select
from unperturbed.errors import InputError
from unperturbed.evaluation.stored import stored_evaluations
from unperturbed.findings import Outcome, Shown
from unperturbed.hub.pull import as_folder
from unperturbed.imports import Trust, user_trust
from unperturbed.methods.base import Method
from unperturbed.runs.files import CONFIG
from unperturbed.runs.record import UNSAID, RunRecord, read_rows
from unperturbed.specs.spec import bounds_of, build
from unperturbed.specs.trees import Spec
from unperturbed.threat import Threat
from unperturbed.training.prepare import fingerprint
from unperturbed.training.recipe import Recipe
from unperturbed.types import Bounds
from unperturbed.weights.rebuild import load_run


@dataclass(frozen=True, eq=False, repr=False)
class Run(Shown):
    """An open run folder. Each part is read at its first use, and cached.

    Attributes:
        folder: the run folder.
        record: the content of `config.yaml`.
        trust: which import paths in the folder are followed.
    """

    folder: Path
    record: RunRecord
    trust: Trust

    def __str__(self) -> str:
        """Return the folder, and what was trained."""
        model = "a network built in Python" if self.record.model is None else self.record.model.class_path
        return f"{self.folder}: {model} on {self.record.data or 'data from Python'}, threat {self.record.threat}"

    @classmethod
    @checked()
    def open(cls, folder: Path | str, trust: bool | Trust = False) -> "Run":
        """Open a run folder.

        Args:
            folder: a folder of `train`, or one on the Hugging Face hub: `hf://user/name`.
            trust: True follows every import path in the folder: code of the folder's author then runs.

        Raises:
            InputError: if the folder is no run folder, or its record is damaged.
        """
        path = as_folder(folder)
        if path.is_file():
            raise InputError(f"{path} is a file, not a run folder: build the network, and load_weights into it.")
        record = RunRecord.read(path)
        base = trust if isinstance(trust, Trust) else user_trust(trust)
        return cls(path, record, base.of_file(path, record.plain()))

    @cached_property
    def model(self) -> nn.Module:
        """The network with its best weights, in eval mode; raises InputError as `load_run` does."""
        return load_run(self.folder, self.trust)

    @cached_property
    def data(self) -> Data:
        """The data of the training; raises InputError if the record has no place of them."""
        if self.record.data is None:
            raise InputError(
                f"{self.folder / CONFIG} has no place of the data: pass the data, as --data or as an argument. Runs on "
                "data from load_data(...) record its place."
            )
        return load_data(self.record.data, self.trust)

    @cached_property
    def bounds(self) -> Bounds:
        """The box of the inputs: the recorded one, else that of the data."""
        return self.data.bounds if self.record.bounds is UNSAID else bounds_of(self.record.bounds)

    @cached_property
    def threat(self) -> Threat:
        """The threat set of the training."""
        return Threat.parse(self.record.threat, self.bounds)

    @cached_property
    def recipe(self) -> Recipe | None:
        """The recipe of the training; None for a folder of evaluations only."""
        recipe = self.record.recipe
        if recipe is None:
            return None
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in recipe.items()}
        try:
            built: Recipe = Spec(Recipe, values).build()
            return built
        except TypeError as error:
            raise InputError(f"{self.folder / CONFIG}, recipe: {error}. It was written by another version.") from error

    @cached_property
    def method(self) -> Method | None:
        """The training method before the first step; None for a folder of evaluations only."""
        method = self.record.method
        return None if method is None else build(method, Method, self.trust)  # type: ignore[type-abstract]

    @cached_property
    def trained_on(self) -> Split:
        """The training examples of the run in `data`, without held-out ones."""
        examples = training_examples(self.record, self.data, self.folder)
        assert examples is not None  # these are the run's data
        return examples

    @property
    def results(self) -> Mapping[Path, Outcome]:
        """The finished evaluations in the folder by the file of their summary, without their tables of examples."""
        return stored_evaluations(self.folder)


def training_examples(record: RunRecord | None, data: Data, run: object, place: str | None = None) -> Split | None:
    """Return the training examples of a run in `data`, without held-out ones.

    Without a record, or for a folder of evaluations only, it is the training split. None: `place` names other data than
    the run's. Raises `InputError` if the run's examples are not among these data.
    """
    if record is None or record.recipe is None:
        return data.train
    if place is not None and record.data is not None and keep_place(place) != record.data:
        return None
    digest = (record.chosen or {}).get("data")
    for rows in _selections(data.train, record, run):
        examples = select(data.train, torch.tensor(rows))
        if digest is None or fingerprint(examples) == digest:
            training_ids, _ = hold_out(examples.labels, record.recipe["validation"])
            return select(examples, training_ids)
    raise InputError(
        f"{run} was trained on examples that are not among the training examples of {data.name}: give --data "
        "with exactly those, such as an .npz file of x_train, y_train, x_test and y_test (in Python: train=...)."
    )


def _selections(train: Split, record: RunRecord, run: object) -> Iterator[Sequence[int]]:
    """Yield the possible training examples of a run: the recorded ids, all, and the first ones."""
    if record.examples is not None:
        yield positions(train.labels, parse_record(record.examples)).tolist()
    n = len(train)
    if record.trained_on is not None:
        n = record.trained_on.examples
        position_of = {name: position for position, name in enumerate(train.names().tolist())}
        names = read_rows(record.trained_on.rows, run) if record.trained_on.rows else []
        if names and all(name in position_of for name in names):
            yield [position_of[name] for name in names]
    if n <= len(train):
        yield range(n)
