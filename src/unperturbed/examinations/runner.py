"""Run diagnostics on a network, store each finding, and resume an earlier call."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from unperturbed.checks import COUNT, NOT_NEGATIVE, SEED, checked
from unperturbed.errors import InputError, RunError
from unperturbed.evaluation.chance import chance_warnings
from unperturbed.evaluation.hashes import data_hash, version, weights_hash
from unperturbed.examinations.by_name import find_diagnostics, name_of
from unperturbed.examinations.preparation import prepare
from unperturbed.examinations.subject import Diagnostic, Subject
from unperturbed.findings import Examined, Finding, Interval, Progress, silent
from unperturbed.networks.failures import isolate
from unperturbed.networks.fingerprint import describe
from unperturbed.networks.logits import Output
from unperturbed.reading import parse_json, regular
from unperturbed.runs.kept import Kept
from unperturbed.runs.lock import alone_in
from unperturbed.runs.verify import read_sealed
from unperturbed.statistics.intervals import wilson
from unperturbed.threat import Threat


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What the diagnostics found in one network, and which of them failed."""

    examined: Examined
    failed: Mapping[str, str]
    """The errors of those that raised one, by the diagnostic's name."""
    made_again: str
    """Why findings that were kept in the file were not used; empty: they were, or there were none."""
    notes: tuple[str, ...] = ()
    """How the examples were selected, where they are not the first ones; a clean accuracy at chance level."""


def _place(given: Mapping[str, Any]) -> tuple[Path, str] | None:
    """Return the folder of the file that findings are written to, and its name."""
    return None if given["out"] is None else (Path(given["out"]).parent, Path(given["out"]).stem)


@checked(strength=NOT_NEGATIVE, examples=COUNT, seed=SEED, batch_size=COUNT)
@alone_in(_place)
def diagnose(
    model: nn.Module,
    test: Any,
    threat: Threat,
    *,
    train: Any = None,
    diagnostics: Sequence[Diagnostic | str] = ("all",),
    name: str = "network",
    strength: float = 0.0,
    trained_seed: int = 0,
    examples: int | str | None = 1000,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    out: str | Path | None = None,
    output: Output = None,
    progress: Progress = silent,
) -> Diagnosis:
    """Examine a network with each diagnostic.

    Args:
        model: returns logits, or what holds them; in float32 or float64.
        test: examples that it was not trained on: a split, a `Data` (its test split), a pair of arrays, a dataset.
        threat: the size of perturbations; the same for networks that are to be compared.
        train: examples that it was trained on, in any of these forms.
        diagnostics: names ("all": those of the package), or functions from a `Subject` to a `Finding`.
        name: what tables and figures call the network.
        strength: the eps that it was trained at, for comparisons.
        trained_seed: the seed that it was trained with.
        examples: of each split so many are examined: N, "first:N", "stratified:N" or "random:N", as
            `data.selection.choose` says; None: all.
        seed: of random directions and starts.
        batch_size: examples that the network sees at a time.
        out: a JSON file. What it holds of the same network, examples and settings is not computed again, and each
            finding is written as soon as it is there.
        output: which part of what the model returns are the logits: a place, a name, or a function of it.
        progress: called before each diagnostic.

    Raises:
        InputError: where model and data do not fit each other or the threat's box.
    """
    prepared = prepare(name, model, test, threat, train, (examples, examples), seed, batch_size, output)
    looked, subject, test, train = prepared.model, prepared.subject, prepared.test, prepared.train
    identity = {
        "unperturbed": version(),
        "torch": str(torch.__version__),
        "weights": weights_hash(model),
        "network": looked.network,
        "test": data_hash(test),
        "train": None if train is None else data_hash(train),
        "threat": str(threat),
        "seed": seed,
        "batch_size": subject.batch_size,
    }
    notes = [note for split in (test, train) if split is not None for note in split.notes]
    notes += chance_warnings(looked, test, threat, _clean(subject), seed)
    kept, made_again = _kept(out, identity)
    if kept and looked.undescribed:
        made_again = (
            f"{out} could be of another network, since {looked.undescribed[0]} is in this one: it was made again."
        )
        kept = {}
    findings, failed, asked = dict[str, Finding](), dict[str, str](), find_diagnostics(diagnostics)
    for number, diagnostic in enumerate(asked):
        title, source = name_of(diagnostic), _source(diagnostic)
        progress(number, len(asked), f"{name}: {title}")
        if source and title in kept and kept[title]["source"] == source:
            findings[title] = Finding.of(kept[title]["finding"])
            continue
        try:
            findings[title] = _checked(diagnostic(subject), title)
        except InputError:
            raise
        except (Exception, SystemExit) as error:  # a user's own may raise anything, and the others are to be kept
            failed[title] = f"{type(error).__name__}: {error}"
            continue
        kept[title] = {"source": source, "finding": findings[title].json()}
        Kept(None if out is None else Path(out), identity).write(strength=strength, findings=kept)
    return Diagnosis(
        Examined(name, strength, trained_seed, tuple(findings.values())),
        failed,
        made_again,
        tuple(dict.fromkeys(notes)),
    )


def _clean(subject: Subject) -> Interval:
    """Return the accuracy on the test examples; those on which the network fails are not classified correctly."""
    y = subject.test.y
    parts, _ = isolate(lambda rows: subject.logits(subject.test.x[rows]), torch.arange(len(y)))
    return wilson(sum(int((logits.argmax(1) == y[rows]).sum()) for rows, logits in parts), len(y))


def _checked(found: object, title: str) -> Finding:
    if not isinstance(found, Finding):
        raise InputError(f"The diagnostic {title} returned {type(found).__name__}, but must return a Finding.")
    try:
        json.dumps(found.json(), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RunError(f"its finding is not of finite, plain numbers, as JSON is ({error})") from error
    return found


def _kept(out: str | Path | None, identity: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the findings that a file holds of the same subject by name, and what differs if it is of another."""
    if out is None or not Path(out).exists():
        return {}, ""
    try:
        content = regular(Path(out)).read_bytes()
    except OSError as error:
        raise InputError(f"out is {str(out)!r:.80}, which cannot be read ({error.strerror}): name a file.") from error
    try:
        value = parse_json(content, out)
        differing = [key for key, each in identity.items() if value["of"].get(key) != each]
        kept = value["findings"].items()
        findings = {name: {"source": each["source"], "finding": each["finding"]} for name, each in kept}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{out} is no diagnosis: move it away, or write to another place.") from error
    if not read_sealed(Path(out)):
        return {}, f"{out} was damaged or changed: the diagnosis was made again."
    if differing:
        return {}, f"{out} held a diagnosis of other {', '.join(differing)}: it was made again."
    return findings, ""


def _source(diagnostic: Diagnostic) -> str:
    """Return a hash of the code that a finding came from: its own, or the source of all that built-in ones are of.

    Empty where it cannot be described: who knows what has changed.
    """
    if not diagnostic.__module__.startswith("unperturbed."):
        described = describe(diagnostic)
        return "" if described.doubts else described.hash(described)
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).with_name("diagnostics").glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
