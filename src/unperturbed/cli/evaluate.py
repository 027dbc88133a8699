"""Measure how robust a trained model is: a verdict per example, and a headline with its interval."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser
from rich.text import Text

from unperturbed.cli.console import Result, is_first_process, progress, results_only_on_stdout, robust_cell, say, table
from unperturbed.cli.options import Parsed, add_data_options, add_measuring_options, new_parser, parse
from unperturbed.errors import InputError, RunError
from unperturbed.findings import Outcome, doubted
from unperturbed.runs import FolderLostError, write_json

if TYPE_CHECKING:
    from torch import nn

    from unperturbed.data.split import Split
    from unperturbed.evaluation.quantize import Quantised
    from unperturbed.evaluation.union import Union
    from unperturbed.runs.record import RunRecord
    from unperturbed.threat import Threat

POSITIONAL = "run"
SUITE_HELP = (
    "which attacks: pgd (50 steps, 20 restarts), standard (AutoAttack), plus (longer), rand (random networks), some by "
    "name (apgd-ce,square), or your own as package.module:SUITE"
)
QUANTIZE_HELP = "also write the adversarial examples as 8-bit PNG images inside the threat set, and look again"
DEVICES_HELP = "processes that share the examples: each on a separate GPU, or with a part of the processor's threads"
AUTOATTACK = ("standard", "plus", "rand")
"""Suites for which AutoAttack's lines are printed."""


def parser() -> ArgumentParser:
    """Return the command's parser."""
    made = new_parser("evaluate", str(__doc__))
    made.add_argument("run", type=str | None, nargs="?", help="a run folder; or give --model, --weights and --data")
    add_data_options(made)
    made.add_argument("--suite", type=str, default="pgd", help=SUITE_HELP)
    add_measuring_options(
        made,
        "of the attacks' random starts",
        "results in 32 bits, searches in bfloat16 where that is faster and as good",
    )
    made.add_argument("--eps", type=str | None, metavar="EPS,...", help="these radii instead: 4/255,8/255")
    made.add_argument("--quantize", action="store_true", help=QUANTIZE_HELP)
    made.add_argument("--devices", type=Literal["auto"] | int, default=1, metavar="N|auto", help=DEVICES_HELP)
    made.add_argument("--overwrite", action="store_true", help="replace another evaluation in the same folder")
    return made


def run(given: Parsed) -> Result:
    """Evaluate, and return the headline, the counts and what each attack did."""
    from unperturbed.engines.launch import together
    from unperturbed.networks.device import number_of_devices

    number = number_of_devices(given.devices, given.device)
    if number == 1:
        return _evaluated(given)
    with repeatable():
        return together(number, _evaluated_by_one_of_several, tuple(given.argv))


def _evaluated_by_one_of_several(words: Sequence[str]) -> Result:
    from unperturbed.networks.device import own_device

    given = parse(parser(), words, POSITIONAL)
    given.plain.device = own_device(given.device)
    with results_only_on_stdout():
        return _evaluated(given)


def _evaluated(given: Parsed) -> Result:
    from unperturbed.cli.setup import find_setup, slug
    from unperturbed.engines.group import meet
    from unperturbed.evaluation.grid import check_eight_bit
    from unperturbed.evaluation.quantize import check_single_draws, clear
    from unperturbed.evaluation.randomised import draws_of
    from unperturbed.evaluation.threats import evaluate_threats
    from unperturbed.suites.by_name import find_suite

    suite = find_suite(given.suite, given.trust)
    check_single_draws(given.quantize and draws_of(suite) > 1)
    subject = find_setup(given, check_eight_bit if given.quantize else len)
    threats = _threats(given.threat, given.eps, subject.threat)
    meet()  # each has seen the folder as it was
    if is_first_process():
        subject.keep()
    results = subject.home / "evaluation" / slug(*subject.parts, *subject.selection)
    folders = [
        subject.home / "evaluation" / slug(*subject.parts, *_other(threat, subject.usual), *subject.selection)
        for threat in threats
    ]
    with progress() as report, repeatable():
        report(0, len(subject.split), f"suite {suite.name}")
        outcomes = evaluate_threats(
            subject.model,
            subject.split,
            threats,
            suite,
            out=folders,
            seed=given.seed,
            batch_size=given.batch_size,
            precision="32" if given.precision == "32" else "auto",
            overwrite=given.overwrite,
            progress=report,
        )
    if not is_first_process():
        return Result(None, ())
    quantised = list["Quantised | None"]()
    for threat, outcome, out in zip(threats, outcomes, folders, strict=True):
        if given.overwrite:
            clear(out, suite.name)
        with repeatable():
            quantised.append(_quantised(given.quantize, subject.model, subject.split, threat, outcome, out))
        for line in _as_autoattack(outcome) if outcome.suite in AUTOATTACK else ():
            say(f"{threat}: {line}" if len(threats) > 1 else line)
        training = None if subject.parts else subject.stored
        _write_robustbench(out, outcome, subject.data.name, subject.model, subject.architecture, training)
    if given.eps is None and len(threats) > 1:
        result = _worst_case(subject.home, results, outcomes, quantised)
    else:
        result = _result(subject.home, results, threats, outcomes, quantised, subject.threat)
    chosen = [] if subject.examples == "all" else [f"Examples: {subject.examples}"]
    return Result({**result.value, "selection": subject.examples}, [*chosen, *result.views])


@contextmanager
def repeatable() -> Iterator[None]:
    """Within: an interruption or failure gets a note on how to resume."""
    try:
        yield
    except (KeyboardInterrupt, OSError, RunError) as error:
        note = "The model is unchanged. Run the same command again to resume."
        said = note in getattr(error, "__notes__", ())  # by one of several processes
        if not said and not isinstance(error, FolderLostError):
            error.add_note(note)
        raise


def _threats(text: str | None, eps: str | None, first: "Threat") -> list["Threat"]:
    """Return the threats of a list with commas, or the one threat with each of these radii."""
    from unperturbed.cli.setup import radii_of
    from unperturbed.threat import Threat

    threats = [Threat.parse(each, first.bounds) for each in text.split(",")] if text else [first]
    if len(threats) > 1 and eps is not None:
        raise InputError(f"--eps gives the radii of one threat, but there are {len(threats)}: write the radii in them.")
    names = [str(threat) for threat in threats]
    if len(set(names)) < len(names):
        raise InputError(f"--threat names the same threat twice: {', '.join(names)}.")
    return threats if eps is None else radii_of(threats[0], eps)


def _other(threat: "Threat", usual: "Threat") -> list[str]:
    """Return what tells the folder of a threat apart: nothing where it is the run's."""
    return [str(threat)] if str(threat) != str(usual) else []


def _quantised(
    asked: bool, model: "nn.Module", split: "Split", threat: "Threat", outcome: Outcome, out: Path
) -> "Quantised | None":
    """Write the adversarial examples as 8-bit images where that was asked for."""
    from unperturbed.evaluation.quantize import quantize

    if not asked:
        return None
    return quantize(model, split, threat, outcome, out=out)


def _as_autoattack(outcome: Outcome) -> list[str]:
    """Return the lines that AutoAttack prints."""
    lines, seconds = [f"initial accuracy: {outcome.clean_accuracy.value:.2%}"], 0.0
    majority = "by the majority of draws, " if "draws" in outcome.examples else ""
    for each in outcome.attacks:
        seconds += each.seconds
        after = f"{majority}robust accuracy after {each.name.upper()}: {each.robust_after:.2%}"
        lines.append(f"{after} (total time {seconds:.1f} s)")
    verdicts = zip(outcome.examples["verdict"], outcome.examples["distance"], strict=True)
    largest = max((distance for verdict, distance in verdicts if verdict == "broken"), default=0.0)
    lines.append(f"max {outcome.threat.partition(':')[0]} perturbation: {largest:.5f}")
    return [*lines, f"robust accuracy: {outcome.robust_accuracy.value:.2%}{doubted(outcome.doubts)}"]


def _write_robustbench(
    out: Path, outcome: Outcome, data: str, model: "nn.Module", description: Mapping[str, Any], run: "RunRecord | None"
) -> None:
    """Write the outcome in RobustBench's fields; `run` is what is known of the training."""
    from unperturbed.evaluation.robustbench import model_info

    arguments = description.get("init_args", {})
    sizes = [str(arguments[key]) for key in ("depth", "width") if isinstance(arguments.get(key), int)]
    info = model_info(
        outcome,
        dataset=data,
        architecture="-".join([type(model).__name__, *sizes]),
        additional_data=None
        if run is None or run.chosen is None or run.weights
        else run.chosen.get("extra") is not None,
        number_forward_passes=None if ":" in str(description["class_path"]) else 1,
    )
    write_json(out / f"{outcome.suite}-robustbench.json", info)


def _result(
    home: Path,
    results: Path,
    threats: "Sequence[Threat]",
    outcomes: Sequence[Outcome],
    quantised: "Sequence[Quantised | None]",
    asked: "Threat",
) -> Result:
    """Return the outcome at the radius asked for (else the largest), with the curve over all radii."""
    by_eps = {threat.eps: place for place, threat in enumerate(threats)}
    place = by_eps.get(asked.eps, by_eps[max(by_eps)])
    headline, rounded = outcomes[place], quantised[place]
    for outcome in outcomes:
        for text in outcome.warnings:
            say(f"{outcome.threat}: {text}" if len(outcomes) > 1 else text, "warning")
    value = {"run": str(home)} | _json(headline, rounded)
    views = [_headline(headline, rounded), _attacks(headline)]
    if len(outcomes) > 1:
        value["curve"] = [
            {"eps": threat.eps}
            | {
                key: outcome.json()[key]
                for key in (*("threat", "n"), *("clean_accuracy", "robust_accuracy", "interval", "doubts"))
            }
            | {"attacks": broken_by(outcome), "warnings": list(outcome.warnings)}
            for threat, outcome in zip(threats, outcomes, strict=True)
        ]
        write_json(results / f"{headline.suite}-curve-{asked.norm}.json", {"curve": value["curve"]})
        rows = [
            (outcome.threat, robust_cell(outcome.robust_accuracy, outcome.doubts), _counts(broken_by(outcome)))
            for outcome in outcomes
        ]
        views.append(table("", ("threat", "robust accuracy", "broken by"), rows))
    return Result(value, views)


def _worst_case(
    home: Path, results: Path, outcomes: Sequence[Outcome], quantised: "Sequence[Quantised | None]"
) -> Result:
    """Return the worst case over several threats, and what each of them did."""
    from unperturbed.cli.setup import slug
    from unperturbed.evaluation.union import union

    worst = union(outcomes)
    for outcome in outcomes:
        for text in outcome.warnings:
            say(f"{outcome.threat}: {text}", "warning")
    value = {"run": str(home)} | worst.json()
    value["threats"] = [_json(*each) for each in zip(outcomes, quantised, strict=True)]
    name = slug(outcomes[0].suite, "union", *(outcome.threat for outcome in outcomes))
    write_json(results / f"{name}.json", value)
    rows = [
        (
            outcome.threat,
            robust_cell(outcome.robust_accuracy, outcome.doubts),
            str(outcome.counts["broken"]),
            str(outcome.counts["unknown"]),
        )
        for outcome in outcomes
    ]
    views = [
        _union_headline(worst),
        table("", ("threat", "robust accuracy", "broken", "unknown"), rows),
        *(_attacks(outcome, outcome.threat) for outcome in outcomes),
    ]
    for outcome, rounded in zip(outcomes, quantised, strict=True):
        if rounded is not None:
            views.append(table("", ("8-bit images", outcome.threat), _rounded_rows(rounded)))
    return Result(value, views)


def _json(outcome: Outcome, rounded: "Quantised | None") -> dict[str, Any]:
    return outcome.json() | ({} if rounded is None else {"quantised": rounded.json()})


def broken_by(outcome: Outcome) -> dict[str, int]:
    """Return how many examples each attack broke; one under another radius is named with it."""
    names = [name for name in outcome.examples["attack"] if name]
    return {name: names.count(name) for name in dict.fromkeys(names)}


def _counts(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _union_headline(worst: "Union") -> Any:
    first = worst.outcomes[0]
    rows: list[tuple[str, str | Text]] = [
        ("clean accuracy", str(worst.clean_accuracy)),
        ("robust accuracy", robust_cell(worst.robust_accuracy, worst.doubts)),
        ("", f"suite {first.suite}: {first.note}"),
        ("examples", _counts(worst.counts)),
        ("time", f"{sum(outcome.seconds for outcome in worst.outcomes):.1f} s"),
    ]
    return table("", ("", f"worst case over {' and '.join(outcome.threat for outcome in worst.outcomes)}"), rows)


def _headline(outcome: Outcome, rounded: "Quantised | None") -> Any:
    rows: list[tuple[str, str | Text]] = [
        ("clean accuracy", str(outcome.clean_accuracy)),
        ("robust accuracy", robust_cell(outcome.robust_accuracy, outcome.doubts)),
        ("", f"suite {outcome.suite}: {outcome.note}"),
        ("examples", _counts(outcome.counts)),
        ("time", f"{outcome.seconds:.1f} s"),
    ]
    if outcome.ties:
        rows.insert(4, ("ties", f"{outcome.ties} final margins within 1e-4 of 0, where rounding decides"))
    return table("", ("", outcome.threat), [*rows, *(_rounded_rows(rounded) if rounded else ())])


def _rounded_rows(rounded: "Quantised") -> list[tuple[str, str]]:
    lost = f"{rounded.counts['survived']} no longer do, {rounded.counts['unknown']} unknown"
    return [
        ("as 8-bit images", f"{rounded.counts['broken']} still break the network, {lost}"),
        ("", f"{rounded.robust_accuracy} stand against these images"),
    ]


def _attacks(outcome: Outcome, title: str = "") -> Any:
    rows = [
        (each.name, str(each.broken), f"{each.robust_after:.1%}", f"{each.seconds:.1f}", f"{each.forwards:,}")
        for each in outcome.attacks
    ]
    return table(title, ("attack", "broken", "still standing", "seconds", "forward passes"), rows)
