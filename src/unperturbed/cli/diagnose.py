"""Examine what robustness did to trained networks: margins, layers, features, confidence, generalisation."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result, progress, say, table
from unperturbed.cli.options import Parsed, add_data_options, add_examples_options, new_parser
from unperturbed.errors import InputError, RunError
from unperturbed.imports import Trust, follow, is_function
from unperturbed.runs import write_json, write_text
from unperturbed.specs.catalogue import hint

if TYPE_CHECKING:
    from unperturbed.cli.subject import Subject
    from unperturbed.data.selection import Selection
    from unperturbed.data.split import Data, Split
    from unperturbed.examinations.subject import Diagnostic
    from unperturbed.findings import Comparison, Examined
    from unperturbed.runs.record import RunRecord
    from unperturbed.threat import Threat

POSITIONAL = "runs..."
DIAGNOSTICS_HELP = (
    "which ones, with commas: margins, instance_margins, confidence, feature_changes, directions, layers, "
    "generalisation, all of these (all), and your own as package.module:function"
)


def parser() -> ArgumentParser:
    """Return the command's parser."""
    made = new_parser("diagnose", str(__doc__))
    made.add_argument("runs", type=str, nargs="*", help="run folders; or give --model, --weights and --data")
    add_data_options(made)
    made.add_argument("--diagnostics", type=str, default="all", metavar="NAME,...", help=DIAGNOSTICS_HELP)
    add_examples_options(made, "test and as many training", default=1000)
    made.add_argument("--seed", type=int, default=0, help="of random directions and starts")
    made.add_argument(
        "--batch-size", type=Literal["auto"] | int, default="auto", help="examples that a network sees at a time"
    )
    made.add_argument("--precision", type=Literal["32", "64"], default="32", help="of the arithmetic")
    return made


def run(given: Parsed) -> Result:
    """Diagnose each network, set them side by side, and write the page."""
    from unperturbed.cli.subject import find_subject
    from unperturbed.data.selection import parse
    from unperturbed.examinations.compare import compare
    from unperturbed.examinations.runner import diagnose
    from unperturbed.reports.page.page import findings_page

    if "," in (given.threat or ""):
        raise InputError(
            f"--threat is {given.threat}, but networks are diagnosed at one size of perturbations: name one."
        )
    runs = [str(Path(each)) for each in given.runs]
    if len({Path(each).resolve() for each in runs}) < len(runs):
        raise InputError(f"A run is named twice in {', '.join(runs)}.")
    chosen = _diagnostics(given.diagnostics, given.trust)
    all_of_them = {"examples_seed": None, "examples": None}
    if len(runs) < 2:
        subjects = [find_subject(_with(given, run=runs[0] if runs else None, **all_of_them))]
    else:
        subjects = [find_subject(_with(given, run=each, out=None, **all_of_them)) for each in runs]
    asked_for = parse(given.examples, given.examples_seed)
    _check_same_data(subjects, asked_for)
    threat = _common_threat(subjects, given.threat is not None)
    out = _home(subjects, given.out)
    for subject in subjects:
        subject.keep()

    diagnoses = []
    with progress() as report:
        for number, (subject, name) in enumerate(zip(subjects, _names(subjects), strict=True)):
            strength, seed = _training(subject.stored)

            def tell(done: float, total: float, text: str, before: int = number) -> None:
                report(before + done / total, len(subjects), text)

            diagnoses.append(
                diagnose(
                    subject.model,
                    subject.split,
                    threat,
                    train=_trained_on(subject.data, subject.stored, given.data, subject.home),
                    diagnostics=chosen,
                    name=name,
                    strength=strength,
                    trained_seed=seed,
                    examples=str(asked_for),
                    seed=given.seed,
                    batch_size=given.batch_size,
                    out=subject.home / _findings_file(given, threat, subject.parts),
                    progress=tell,
                )
            )
    examined = [found.examined for found in diagnoses]
    for found in diagnoses:
        if found.made_again:
            say(found.made_again)
        for text in found.notes:
            say(text, "warning")
        for name, error in found.failed.items():
            say(f"{name} failed on {found.examined.name}: {error}", "warning")

    norms = {each.stored.threat.partition(":")[0] for each in subjects if each.stored and _training(each.stored)[0] > 0}
    if len(norms) > 1:
        say(f"No comparison: eps in training was measured in different norms ({', '.join(sorted(norms))}).", "warning")
    several = len({model.strength for model in examined}) > 1 and len(norms) < 2
    comparison = compare(examined, given.seed) if several else None
    page = out / "diagnosis.html"
    write_text(
        page,
        findings_page(examined, comparison, _title(examined), _facts(subjects[0], threat, asked_for, given.seed)),
    )
    if comparison is not None:
        write_json(out / "comparison.json", {"models": [_told(model) for model in examined]} | asdict(comparison))
    failed = [found.examined.name for found in diagnoses if found.failed]
    if failed:
        raise RunError(f"Some diagnostics failed on {', '.join(failed)}; what the others found is in {page}.")
    value = {
        "page": str(page),
        "threat": str(threat),
        "warnings": list(dict.fromkeys(text for found in diagnoses for text in found.notes)),
        "models": [_told(model) | {"findings": [found.json() for found in model.findings]} for model in examined],
        "comparison": None if comparison is None else asdict(comparison),
    }
    return Result(value, [*_views(examined, comparison), f"Page: {page}"])


def _findings_file(given: Parsed, threat: "Threat", parts: Sequence[str]) -> str:
    """Return a separate file name for each threat, number of examples, seed, and other weights or data."""
    from unperturbed.cli.subject import slug
    from unperturbed.data.selection import parse

    seed = [f"seed {given.seed}"] if given.seed else []
    asked = parse(given.examples, given.examples_seed)
    chosen = f"first {asked.count}" if asked.how == "auto" else str(asked)
    return f"{slug('diagnosis', *parts, str(threat), chosen, *seed)}.json"


def _diagnostics(text: str, trust: Trust) -> list["Diagnostic"]:
    """Return the diagnostics of these names or import paths, each once."""
    from unperturbed.examinations.runner import BUILT_IN, name_of

    known = {name_of(each): each for each in BUILT_IN}
    found: dict[str, Diagnostic] = {}
    for name in text.split(","):
        if name == "all":
            found |= known
        elif ":" in name:
            own: Any = follow(name, "--diagnostics", trust)
            if not is_function(own):
                raise InputError(f"--diagnostics: {name} is {type(own).__name__}, but a diagnostic is a function.")
            found[name] = own
        elif name in known:
            found[name] = known[name]
        else:
            raise InputError(f"There is no diagnostic {name!r}. {hint(name, known)} Your own: package.module:function.")
    return list(found.values())


def _with(given: Parsed, **values: Any) -> Parsed:
    """Return the options with some of them replaced."""
    plain = copy(given.plain)
    for name, value in values.items():
        setattr(plain, name, value)
    return replace(given, plain=plain)


def _check_same_data(subjects: Sequence["Subject"], examples: "Selection") -> None:
    """Check that all networks are examined on the same examples: what pairs them is their places."""
    from unperturbed.evaluation.hashes import data_hash
    from unperturbed.examinations.runner import chosen

    if len(subjects) < 2:
        return
    first, *others = subjects
    hashes = [data_hash(chosen(each.split, str(examples), "test")) for each in subjects]
    for other, digest in zip(others, hashes[1:], strict=True):
        if digest != hashes[0] or first.data.classes != other.data.classes:
            raise InputError(
                f"{first.home} is of the data {first.data.name!r} and {other.home} of {other.data.name!r}, whose test "
                "examples are others: networks are compared on the same examples. Give --data, or diagnose them apart."
            )


def _common_threat(subjects: Sequence["Subject"], asked: bool) -> "Threat":
    """Return the threat asked for, or the largest of the networks' own: perturbations are of one size for all."""
    from unperturbed.cli.subject import default_threat
    from unperturbed.threat import Threat

    threats = [subject.threat for subject in subjects]
    if asked:
        return threats[0]
    if len({threat.norm for threat in threats}) > 1:
        norms = ", ".join(sorted({threat.norm for threat in threats}))
        raise InputError(f"The networks were trained in different norms ({norms}): give --threat for all of them.")
    largest = max(threats, key=lambda threat: threat.eps)
    if largest.eps > 0:
        return largest
    return Threat.parse(default_threat(subjects[0].data), largest.bounds)


def _home(subjects: Sequence["Subject"], out: str | None) -> Path:
    """Return the folder of the page: the one asked for, the network's, or one next to the networks' folders."""
    if len(subjects) == 1:
        return subjects[0].home
    return Path(out) if out is not None else subjects[0].home.parent / "diagnosis"


def _names(subjects: Sequence["Subject"]) -> list[str]:
    """Return the folders' last names, or whole paths where those are not different."""
    short = [subject.home.name for subject in subjects]
    return short if len(set(short)) == len(short) else [str(subject.home) for subject in subjects]


def _training(stored: "RunRecord | None") -> tuple[float, int]:
    """Return the eps and the seed that a run was trained with; 0 where it ran no attack, or nothing is known."""
    if stored is None or stored.recipe is None:
        return 0.0, 0
    return stored.strength, int(stored.recipe["seed"])


def _trained_on(data: "Data", stored: "RunRecord | None", place: str | None, run: object) -> "Split | None":
    """Return the examples that a run was trained on; None: on other data. Without a run, the training split.

    Raises `InputError` where they are not among these data.
    """
    import torch

    from unperturbed.data.sources import keep_place
    from unperturbed.data.split import hold_out, select
    from unperturbed.training.prepare import fingerprint

    if stored is None or stored.recipe is None:
        return data.train
    if place is not None and stored.data is not None and keep_place(place) != stored.data:
        return None
    known = (stored.chosen or {}).get("data")
    for rows in _selections(data.train, stored, run):
        found = select(data.train, torch.tensor(rows))
        if known is None or fingerprint(found) == known:
            kept, _ = hold_out(found.labels, stored.recipe["validation"])
            return select(found, kept)
    raise InputError(
        f"{run} was trained on examples that are not among the training examples of {data.name}: give --data "
        "with exactly those, such as an .npz file of x_train, y_train, x_test and y_test (in Python: train=...)."
    )


def _selections(train: "Split", stored: "RunRecord", run: object) -> Iterator[Sequence[int]]:
    """Yield the examples that a run may have been trained on: those of the recorded names, all, and the first ones."""
    from unperturbed.data.selection import parse_record, positions
    from unperturbed.runs.record import read_rows

    if stored.examples is not None:
        yield positions(train.labels, parse_record(stored.examples)).tolist()
    n = len(train)
    if stored.trained_on is not None:
        n = stored.trained_on.examples
        places = {name: place for place, name in enumerate(train.names().tolist())}
        names = read_rows(stored.trained_on.rows, run) if stored.trained_on.rows else []
        if names and all(name in places for name in names):
            yield [places[name] for name in names]
    if n <= len(train):
        yield range(n)


def _title(examined: Sequence["Examined"]) -> str:
    return f"Diagnosis of {examined[0].name if len(examined) == 1 else f'{len(examined)} networks'}"


def _facts(subject: "Subject", threat: "Threat", examples: "Selection", seed: int) -> list[str]:
    import torch

    from unperturbed.data.selection import choose
    from unperturbed.evaluation.hashes import version

    _, selection = choose(subject.split, examples)
    chosen = f"the first {selection.count}" if selection.how == "first" else str(selection)
    return [
        f"Data: {subject.data.name}; {chosen} test examples and as many of those trained on, unless a figure says "
        "otherwise.",
        f"Perturbations: {threat}, the same for every network.",
        f"unperturbed {version()}, PyTorch {torch.__version__}; seed {seed}.",
    ]


def _told(examined: "Examined") -> dict[str, Any]:
    return {"name": examined.name, "strength": examined.strength, "seed": examined.seed}


def _views(examined: Sequence["Examined"], comparison: "Comparison | None") -> list[Any]:
    if comparison is not None:
        claims, others = ("\n".join(map(str, trends)) for trends in (comparison.claims, comparison.controls))
        return [claims, *([f"Other quantities, not counted as claims:\n{others}"] if others else []), *comparison.notes]
    rows = [(each.name, f"{found.title}: {found.summary}") for each in examined for found in each.findings]
    return [table("", ("network", "what was found"), rows)]
