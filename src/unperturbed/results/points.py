"""Stored adversarial examples with their originals, and a network's predictions on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from unperturbed.data.sources import load_data
from unperturbed.data.split import Data, Split
from unperturbed.errors import InputError
from unperturbed.evaluation.quantize import adversarial_points
from unperturbed.findings import Outcome
from unperturbed.imports import user_trust
from unperturbed.networks.modes import under_attack
from unperturbed.results.stored import StoredEvaluation, StoredRun, norm_of
from unperturbed.runs import CONFIG
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Labels
from unperturbed.weights.rebuild import load_run

AT_A_TIME = 256
SLACK = 1e-4
"""Largest relative difference between a stored distance and that measured on the data."""
MEASURED = ("Linf", "L2", "L1")
"""The norms whose stored distances are compared."""


@dataclass(frozen=True, eq=False)
class Points:
    """Adversarial examples of one evaluation, one row each.

    Attributes:
        ids: of the examples.
        labels: their classes.
        z: perturbed inputs.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    z: Inputs


def stored_points(stored: StoredEvaluation) -> Points:
    """Return the perturbed inputs of the broken examples.

    Raises:
        InputError: if none are stored, or the files do not fit the table.
    """
    outcome = stored.outcome
    if not outcome.examples:
        raise InputError("the table of examples cannot be read")
    try:
        parts = list(adversarial_points(outcome, stored.path.parent))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"the perturbed inputs cannot be read ({error})") from error
    labels = dict(zip(outcome.examples["id"], outcome.examples["label"], strict=True))
    ids = [name for part, z in parts for name in part.tolist()]
    if any(len(part) != len(z) for part, z in parts) or any(name not in labels for name in ids):
        raise InputError("the perturbed inputs do not fit the table of examples")
    if not ids:
        raise InputError("no attack broke an example")
    return Points(tuple(ids), tuple(labels[name] for name in ids), torch.cat([z for _, z in parts]))


def answers(run: StoredRun, points: Points) -> Labels:
    """Return the predictions of a run's network on adversarial examples, int64 (n,).

    Raises:
        InputError: if the network cannot be built without code from the folder, or does not misclassify the points.
    """
    model = load_run(run.folder).float()
    try:
        predictions = _argmax(model, points.z.float())
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"the network cannot be evaluated on the stored inputs ({error})") from error
    correct = int((predictions == torch.tensor(points.labels)).sum())
    if correct:
        raise InputError(f"the stored weights classify {correct} of {len(points.ids)} adversarial examples correctly")
    return predictions


def _argmax(model: nn.Module, z: Inputs) -> Labels:
    with under_attack(model), torch.no_grad():
        return torch.cat([model(part).argmax(dim=1) for part in torch.split(z, AT_A_TIME)])


def originals(run: StoredRun, outcome: Outcome, points: Points, rows: Sequence[int], data: str | None = None) -> Inputs:
    """Return the originals of adversarial examples, (len(rows), *shape).

    They are read from `data` or, without it, from the recorded place of the run's data, and compared with the stored
    labels and distances.

    Raises:
        InputError: if the data cannot be loaded, or are not those of the evaluation.
    """
    split = _test_split(load_data(data)) if data is not None else _recorded(run)
    ids = torch.tensor([points.ids[row] for row in rows])
    labels = torch.tensor([points.labels[row] for row in rows])
    position = {name: row for row, name in enumerate(split.names().tolist())}
    if any(name not in position for name in ids.tolist()):
        raise InputError("the data hold fewer examples than were evaluated")
    positions = torch.tensor([position[name] for name in ids.tolist()])
    x, z = split.inputs(positions), points.z[list(rows)]
    if x.shape != z.shape or not torch.equal(split.labels[positions], labels):
        raise InputError("the data have changed since the evaluation")
    stored = dict(zip(outcome.examples["id"], outcome.examples["distance"], strict=True))
    if norm_of(outcome.threat) in MEASURED:
        threat = Threat.parse(outcome.threat.partition(" ")[0], None)
        measured = threat.distance(x.double(), z.double())
        expected = torch.tensor([stored[name] for name in ids.tolist()], dtype=torch.float64)
        if not torch.allclose(measured, expected, rtol=SLACK, atol=1e-6):
            raise InputError("the data have changed since the evaluation")
    return x


def _test_split(data: Data) -> Split:
    return data.train if data.test is None else data.test


def _recorded(run: StoredRun) -> Split:
    record = run.record
    if record is None or record.data is None:
        raise InputError("the run folder has no place of the data")
    trust = user_trust().of_file(run.folder / CONFIG, [record.data])
    if Path(record.data).is_absolute() and not Path(record.data.partition("?")[0]).exists():
        raise InputError(f"the data are not at {record.data}")
    return _test_split(load_data(record.data, trust))
