"""Measure how robust a trained model is: a verdict per example, and a headline with its interval."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser
from rich.text import Text

from unperturbed.cli.console import (
    Result,
    is_first_process,
    progress,
    repeatable,
    results_only_on_stdout,
    robust_cell,
    say,
    table,
)
from unperturbed.cli.options import Parsed, add_data_options, add_measuring_options, new_parser, parse
from unperturbed.findings import Outcome, doubted

if TYPE_CHECKING:
    from unperturbed.evaluation.evaluated import Evaluated
    from unperturbed.evaluation.quantize import Quantised

POSITIONAL = "run"
SUITE_HELP = (
    "which attacks: pgd (50 steps, 20 restarts), fast (checked by standard on a sample), standard (AutoAttack), plus "
    "(longer), rand (random networks), some by name (apgd-ce,square), or your own as package.module:SUITE"
)
GATE_HELP = "do not check a sample of the survivors of the suite fast by standard"
ESTIMATE_HELP = (
    "with --suite standard or fast: attack by standard only as many survivors of fast as it takes to know the accuracy "
    "that standard would leave to this many percentage points (half a 95%% interval)"
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
    made.add_argument("--no-gate", action="store_true", help=GATE_HELP)
    made.add_argument("--estimate", type=float | None, metavar="POINTS", help=ESTIMATE_HELP)
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
    from unperturbed.cli.setup import find_setup, threats_of
    from unperturbed.engines.group import meet
    from unperturbed.evaluation.grid import check_eight_bit
    from unperturbed.evaluation.quantize import check_single_draws
    from unperturbed.evaluation.randomised import draws_of
    from unperturbed.evaluation.robustbench import known_of
    from unperturbed.evaluation.threats import evaluate_into_folders
    from unperturbed.suites.by_name import find_suite, suite_with_gate

    suite = suite_with_gate(find_suite(given.suite, given.trust), not given.no_gate, given.estimate)
    check_single_draws(given.quantize and draws_of(suite) > 1)
    setup = find_setup(given, check_eight_bit if given.quantize else len)
    threats = threats_of(given, setup.threat)
    meet()  # each has seen the folder as it was
    if is_first_process():
        setup.keep()
    training = None if setup.parts else setup.stored
    with progress() as report, repeatable():
        report(0, len(setup.split), f"suite {suite.name}")
        evaluated = evaluate_into_folders(
            setup.model,
            setup.split,
            threats,
            suite,
            folders=[setup.folder(threat) for threat in threats],
            results=setup.folder(),
            run=setup.home,
            asked=None if given.eps is None and len(threats) > 1 else setup.threat,
            known=known_of(setup.data.name, setup.model, setup.architecture, training),
            eight_bit=given.quantize,
            overwrite=given.overwrite,
            seed=given.seed,
            batch_size=given.batch_size,
            precision="32" if given.precision == "32" else "auto",
            progress=report,
        )
    if evaluated is None:
        return Result(None, ())
    _tell(evaluated)
    chosen = [] if setup.examples == "all" else [f"Examples: {setup.examples}"]
    value = {"run": str(setup.home)} | evaluated.json() | {"selection": setup.examples}
    return Result(value, [*chosen, *(_union_views(evaluated) if evaluated.chosen is None else _views(evaluated))])


def _tell(evaluated: "Evaluated") -> None:
    """Say the lines of AutoAttack, and the warnings."""
    several = len(evaluated.outcomes) > 1
    for outcome in evaluated.outcomes:
        for line in _as_autoattack(outcome) if outcome.suite in AUTOATTACK else ():
            say(f"{outcome.threat}: {line}" if several else line)
    for outcome in evaluated.outcomes:
        for text in outcome.warnings:
            say(f"{outcome.threat}: {text}" if several else text, "warning")


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


def _views(evaluated: "Evaluated") -> list[Any]:
    """Return the tables of the outcome that was asked for, and of the curve over radii."""
    chosen = evaluated.chosen or 0
    outcome, outcomes = evaluated.outcomes[chosen], evaluated.outcomes
    views = [_headline(outcome, evaluated.quantised[chosen]), _attacks(outcome)]
    if len(outcomes) > 1:
        rows = [
            (entry["threat"], robust_cell(outcome.robust_accuracy, outcome.doubts), _counts(entry["attacks"]))
            for entry, outcome in zip(evaluated.curve(), outcomes, strict=True)
        ]
        views.append(table("", ("threat", "robust accuracy", "broken by"), rows))
    return views


def _union_views(evaluated: "Evaluated") -> list[Any]:
    """Return the tables of the worst case over several threats, and of each of them."""
    rows = [
        (
            outcome.threat,
            robust_cell(outcome.robust_accuracy, outcome.doubts),
            str(outcome.counts["broken"]),
            str(outcome.counts["unknown"]),
        )
        for outcome in evaluated.outcomes
    ]
    return [
        _union_headline(evaluated),
        table("", ("threat", "robust accuracy", "broken", "unknown"), rows),
        *(_attacks(outcome, outcome.threat) for outcome in evaluated.outcomes),
        *(
            table("", ("8-bit images", outcome.threat), _rounded_rows(images))
            for outcome, images in zip(evaluated.outcomes, evaluated.quantised, strict=True)
            if images is not None
        ),
    ]


def _counts(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _union_headline(evaluated: "Evaluated") -> Any:
    worst, first = evaluated.headline, evaluated.outcomes[0]
    rows: list[tuple[str, str | Text]] = [
        ("clean accuracy", str(worst.clean_accuracy)),
        ("robust accuracy", robust_cell(worst.robust_accuracy, worst.doubts)),
        ("", f"suite {first.suite}: {first.note}"),
        ("examples", _counts(worst.counts)),
        ("time", f"{worst.seconds:.1f} s"),
    ]
    return table("", ("", f"worst case over {' and '.join(outcome.threat for outcome in evaluated.outcomes)}"), rows)


def _headline(outcome: Outcome, rounded: "Quantised | None") -> Any:
    rows: list[tuple[str, str | Text]] = [
        ("clean accuracy", str(outcome.clean_accuracy)),
        ("robust accuracy", robust_cell(outcome.robust_accuracy, outcome.doubts)),
        ("", f"suite {outcome.suite}: {outcome.note}"),
        ("examples", _counts(outcome.counts)),
        ("time", f"{outcome.seconds:.1f} s"),
    ]
    if outcome.gate is not None:
        rows.insert(3, ("", str(outcome.gate)))
    if outcome.ties:
        rows.insert(-1, ("ties", f"{outcome.ties} final margins within 1e-4 of 0, where rounding decides"))
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
