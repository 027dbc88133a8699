"""Measure the robust accuracy of a trained model: a verdict per example, and a headline with its interval."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser
from rich.text import Text

from unperturbed.cli import corruptions
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
from unperturbed.cli.engine import engine_of
from unperturbed.cli.options import (
    Parsed,
    add_data_options,
    add_fields,
    add_format,
    add_measuring_options,
    new_parser,
    parse,
)
from unperturbed.errors import InputError
from unperturbed.findings import Outcome, doubted
from unperturbed.networks.settings import Tuning, compiled_in_words

if TYPE_CHECKING:
    from unperturbed.cli.setup import Setup
    from unperturbed.evaluation.evaluated import Evaluated
    from unperturbed.evaluation.quantize import Quantised
    from unperturbed.evaluation.union import Union

POSITIONAL = "run"
SUITE_HELP = (
    "the attacks: fast (checked by standard on a sample), standard (AutoAttack), plus (longer), pgd (50 steps, 20 "
    "restarts, no check), rand (random networks), sparse (L0), attacks by name (apgd-ce,square), or your own as "
    "package.module:SUITE"
)
CORRUPTIONS_HELP = "; corruptions or corruptions:FOLDER (files of CIFAR-10-C) measure common corruptions, no attack"
GATE_HELP = "with --suite fast: do not attack a sample of the survivors by standard"
ESTIMATE_HELP = (
    "with --suite standard or fast: run fast, then standard on a sample of the survivors, large enough to tell the "
    "accuracy that standard alone would leave to this many percentage points on either side"
)
FAIL_HELP = (
    "exit with code 1 if the low end of the 95% interval of the robust accuracy is below this share, such as 0.4, or "
    "if the accuracy is doubtful"
)
QUANTIZE_HELP = "also write the adversarial examples as 8-bit PNG images inside the threat set, and verify them again"
DEVICES_HELP = "processes that share the examples: each on a separate GPU, or with a part of the processor's threads"
AUTOATTACK = ("standard", "plus", "rand")
"""Suites with AutoAttack's output lines."""


def parser() -> ArgumentParser:
    """Return the command's parser."""
    command_parser = new_parser("evaluate", str(__doc__))
    command_parser.add_argument(
        "run", type=str | None, nargs="?", help="a run folder; or give --model, --weights and --data"
    )
    add_data_options(command_parser)
    command_parser.add_argument("--suite", type=str, default="fast", help=SUITE_HELP + CORRUPTIONS_HELP)
    add_measuring_options(
        command_parser,
        "of the attacks' random starts",
        "results in 32 bits, searches in bfloat16 if that is faster and as good",
    )
    add_fields(command_parser, Tuning, {})
    command_parser.add_argument("--eps", type=str | None, metavar="EPS,...", help="these radii instead: 4/255,8/255")
    command_parser.add_argument("--no-gate", action="store_true", help=GATE_HELP)
    command_parser.add_argument("--estimate", type=float | None, metavar="POINTS", help=ESTIMATE_HELP)
    add_format(command_parser)
    command_parser.add_argument("--fail-under", type=float | None, metavar="SHARE", help=FAIL_HELP)
    command_parser.add_argument("--quantize", action="store_true", help=QUANTIZE_HELP)
    command_parser.add_argument("--devices", type=Literal["auto"] | int, default=1, metavar="N|auto", help=DEVICES_HELP)
    command_parser.add_argument(
        "--overwrite", action="store_true", help="replace another evaluation in the same folder"
    )
    return command_parser


def run(parsed: Parsed) -> Result:
    """Evaluate, and return the headline, the counts and the record of each attack."""
    from unperturbed.engines.launch import together
    from unperturbed.networks.device import number_of_devices

    if corruptions.is_named(parsed.suite):
        return corruptions.run(parsed)
    number = number_of_devices(parsed.devices, parsed.device)
    if number == 1:
        return _evaluated(parsed)
    with repeatable():
        return together(number, _evaluated_by_one_of_several, tuple(parsed.argv))


def _evaluated_by_one_of_several(words: Sequence[str]) -> Result:
    from unperturbed.networks.device import own_device

    parsed = parse(parser(), words, POSITIONAL)
    parsed.plain.device = own_device(parsed.device)
    with results_only_on_stdout():
        return _evaluated(parsed)


def _evaluated(parsed: Parsed) -> Result:
    from unperturbed.cli.setup import find_setup
    from unperturbed.cli.threat_options import threats_of
    from unperturbed.engines.group import meet
    from unperturbed.evaluation.grid import check_eight_bit
    from unperturbed.evaluation.quantize import check_single_draws
    from unperturbed.evaluation.randomised import draws_of
    from unperturbed.evaluation.robustbench import known_of
    from unperturbed.evaluation.threats import evaluate_into_folders
    from unperturbed.results.tables import accuracy_rows
    from unperturbed.suites.by_name import find_suite, suite_with_gate

    if parsed.fail_under is not None and not 0 < parsed.fail_under <= 1:
        raise InputError(f"--fail-under is {parsed.fail_under:g}: give a share above 0 and up to 1, such as 0.4.")
    suite = suite_with_gate(find_suite(parsed.suite, parsed.trust), not parsed.no_gate, parsed.estimate)
    engine = engine_of(parsed)
    check_single_draws(parsed.quantize and draws_of(suite) > 1)
    setup = find_setup(parsed, check_eight_bit if parsed.quantize else len)
    threats = threats_of(parsed, setup.threat)
    for threat in threats if parsed.quantize else ():
        threat.refuse_sparse("Rounding to 8-bit images")
    meet()  # all processes have read the unchanged folder
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
            asked=None if parsed.eps is None and len(threats) > 1 else setup.threat,
            known=known_of(setup.data.name, setup.model, setup.architecture, training),
            eight_bit=parsed.quantize,
            overwrite=parsed.overwrite,
            seed=parsed.seed,
            batch_size=parsed.batch_size,
            precision="32" if parsed.precision == "32" else "auto",
            tuning=Tuning(parsed.tune, parsed.layout, parsed.compile),
            engine=engine,
            progress=report,
        )
    if evaluated is None:
        return Result(None, ())
    _tell(evaluated)
    code = _code(evaluated.headline, parsed.fail_under)
    if parsed.format is not None:
        worst = [evaluated.headline] if evaluated.chosen is None else []
        rows = accuracy_rows({setup.home.resolve().name: [*evaluated.outcomes, *worst]})
        return Result(_value(evaluated, setup), [rows.text(parsed.format).rstrip("\n")], code)
    chosen = [] if setup.examples == "all" else [f"Examples: {setup.examples}"]
    return Result(
        _value(evaluated, setup),
        [*chosen, *(_union_views(evaluated) if evaluated.chosen is None else _views(evaluated))],
        code,
    )


def _code(headline: "Outcome | Union", least: float | None) -> int:
    """Return 1 if the robust accuracy may be below the least share, or is doubtful, and say why; else 0."""
    if least is None:
        return 0
    low, reasons = headline.robust_accuracy.low, list(headline.doubts)
    if not low >= least:
        reasons.insert(0, f"the interval begins at {low:.1%}, below {least:.1%}")
    if reasons:
        say(f"--fail-under: {'; '.join(reasons)}.", "warning")
    return int(bool(reasons))


def _value(evaluated: "Evaluated", setup: "Setup") -> dict[str, Any]:
    return {"run": str(setup.home)} | evaluated.json() | {"selection": setup.examples}


def _tell(evaluated: "Evaluated") -> None:
    """Print the lines of AutoAttack, and the warnings."""
    several = len(evaluated.outcomes) > 1
    for outcome in evaluated.outcomes:
        for line in _as_autoattack(outcome) if outcome.suite in AUTOATTACK else ():
            say(f"{outcome.threat}: {line}" if several else line)
    for outcome in evaluated.outcomes:
        for text in outcome.warnings:
            say(f"{outcome.threat}: {text}" if several else text, "warning")


def _as_autoattack(outcome: Outcome) -> list[str]:
    """Return AutoAttack's output lines."""
    lines, seconds = [f"initial accuracy: {outcome.clean_accuracy.value:.2%}"], 0.0
    majority = "by the majority of draws, " if "draws" in outcome.examples else ""
    for attack in outcome.attacks:
        seconds += attack.seconds
        after = f"{majority}robust accuracy after {attack.name.upper()}: {attack.robust_after:.2%}"
        lines.append(f"{after} (total time {seconds:.1f} s)")
    verdicts = zip(outcome.examples["verdict"], outcome.examples["distance"], strict=True)
    largest = max((distance for verdict, distance in verdicts if verdict == "broken"), default=0.0)
    lines.append(f"max {outcome.threat.partition(':')[0]} perturbation: {largest:.5f}")
    return [*lines, f"robust accuracy: {outcome.robust_accuracy.value:.2%}{doubted(outcome.doubts)}"]


def _views(evaluated: "Evaluated") -> list[Any]:
    """Return the tables of the requested outcome, and of the curve over radii."""
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
    """Return the tables of the worst case over several threats, and of each threat."""
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
    if "tuning" in outcome.environment:
        rows.append(("searches", _searches(outcome.environment)))
    if outcome.gate is not None:
        rows.insert(3, ("", str(outcome.gate)))
    if outcome.ties:
        rows.insert(-1, ("ties", f"{outcome.ties} final margins within 1e-4 of 0, where rounding decides"))
    return table("", ("", outcome.threat), [*rows, *(_rounded_rows(rounded) if rounded else ())])


def _searches(environment: Mapping[str, Any]) -> str:
    """Return how the searches ran the network, and whether that was measured."""
    layout = "channels-last" if environment["channels_last"] else "contiguous"
    ways = [*compiled_in_words(environment["compiled"]), layout, f"batches of {environment['batch_size']}"]
    trials = environment["tuning"]
    return f"{', '.join(ways)}; {f'the fastest of {len(trials)} measured ways' if trials else 'not measured'}"


def _rounded_rows(rounded: "Quantised") -> list[tuple[str, str]]:
    lost = f"{rounded.counts['survived']} no longer do, {rounded.counts['unknown']} unknown"
    return [
        ("as 8-bit images", f"{rounded.counts['broken']} still break the network, {lost}"),
        ("", f"{rounded.robust_accuracy} robust against these images"),
    ]


def _attacks(outcome: Outcome, title: str = "") -> Any:
    rows = [
        (attack.name, str(attack.broken), f"{attack.robust_after:.1%}", f"{attack.seconds:.1f}", f"{attack.forwards:,}")
        for attack in outcome.attacks
    ]
    return table(title, ("attack", "broken", "still standing", "seconds", "forward passes"), rows)
