"""Train over values of options, or search among them; evaluate the runs, and show clean against robust accuracy."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from unperturbed.cli import evaluate, train
from unperturbed.cli.console import Result, progress, say, table
from unperturbed.cli.engine import add_engine_options, engine_of
from unperturbed.cli.options import TREES, Parsed, add_examples_options, divide, known_options, new_parser, parse
from unperturbed.errors import InputError, hint
from unperturbed.findings import Progress
from unperturbed.imports import Trust
from unperturbed.sweeps.rows import Axis, Combination

if TYPE_CHECKING:
    from unperturbed.sweeps.ranges import Range
    from unperturbed.sweeps.tpe import TPE

POSITIONAL = None
SWEEP_OPTIONS = (
    *("over", "search", "trials", "search-seed", "stop"),
    *("suite", "examples", "examples-seed", "evaluate-threat", "train-examples", "train-examples-seed"),
    *("overwrite", "out", "json", "engine", "address", "workers", "cpus-per-worker", "gpus-per-worker"),
)
"""Options that `train` does not have, or that differ here."""
EXAMPLE = "--over method.nominal_loss=0.05,0.1"


def parser() -> ArgumentParser:
    """Return the command's parser."""
    command_parser = new_parser("sweep", str(__doc__), "All other options are those of unperturbed train.")
    command_parser.add_argument(
        "--over",
        type=str,
        action="append",
        metavar="OPTION=V1,V2,...",
        help=f"an option of training and its values, once or twice: {EXAMPLE} --over seed=0,1,2 (seeds share one row); "
        "with --search any number of options, with values or a range: method.steps=1..10, lr=log:1e-4..0.1",
    )
    command_parser.add_argument(
        "--search",
        type=Literal["tpe"] | None,
        help="suggest the values of each run from the robust accuracy of earlier ones on held-out training examples, "
        "never on the test split: tpe, by Optuna (default: every combination of values)",
    )
    command_parser.add_argument("--trials", type=int | None, metavar="N", help="runs of the search (default: 20)")
    command_parser.add_argument("--search-seed", type=int | None, metavar="S", help="of the search (default: 0)")
    command_parser.add_argument(
        "--stop",
        type=Literal["asha"] | None,
        help="compare runs on held-out training examples after a third of the epochs, a third of that, and so on, and "
        "train only the best third of them further: asha, waiting for all runs before each comparison",
    )
    command_parser.add_argument("--suite", type=str, default="fast", help=evaluate.SUITE_HELP)
    add_examples_options(command_parser, "test")
    command_parser.add_argument(
        "--evaluate-threat",
        type=str | None,
        metavar="THREAT",
        help="threat of the evaluations (default: that of each run)",
    )
    add_examples_options(command_parser, "training", "train-")
    command_parser.add_argument(
        "--overwrite", action="store_true", help="replace evaluations of other weights or versions"
    )
    add_engine_options(command_parser, "the runs")
    train.add_training_options(command_parser)
    return command_parser


def run(parsed: Parsed) -> Result:
    """Train and evaluate unfinished runs, and return the table with failed runs; exit code 1 if there are any."""
    from unperturbed.suites.by_name import find_suite
    from unperturbed.sweeps.grid import check_folder, check_grid, combine, run_all
    from unperturbed.sweeps.search import check_held_out, ends_of, plan_of, recorded, search
    from unperturbed.threat import Threat

    own_words, words = divide(parser(), parsed.argv, SWEEP_OPTIONS)
    sweep_options = parse(parser(), own_words)
    axes, ranges = _axes(sweep_options.over, parsed)
    sampler = _sampler(sweep_options)
    if sampler is None:
        check_grid(axes, ranges)
    out = Path(sweep_options.out or "runs/sweep")
    if sweep_options.evaluate_threat is not None:
        Threat.parse(sweep_options.evaluate_threat)
    suite = find_suite(sweep_options.suite, parsed.trust)
    if sweep_options.train_examples is not None:
        words = [*words, f"--examples={sweep_options.train_examples}"]
    if sweep_options.train_examples_seed is not None:
        words = [*words, f"--examples-seed={sweep_options.train_examples_seed}"]
    evaluation = _evaluation(sweep_options, parsed.device)
    lines: dict[Path, list[str]] = {}

    def make(values: Mapping[str, str], folder: Path) -> Combination:
        options = [f"--{option.replace('train-examples', 'examples')}={value}" for option, value in values.items()]
        lines[folder] = [*words, *options, f"--out={folder}", "--resume"]
        return _combination(axes, values, folder, lines[folder], evaluation)

    if sampler is None:
        combinations = combine(axes, out, make)
    else:
        combinations = [make(values, out / str(number)) for number, values in enumerate(ends_of(axes, ranges))]
    first = _check(combinations, lines, sweep_options, parsed.trust, distinct=sampler is None)
    plan = None
    if sampler is None and sweep_options.stop is None:
        check_folder(out, axes)
    else:
        check_held_out(first.data, first.recipe.validation)
        plan = plan_of(axes, ranges, sampler, sweep_options.stop, first.recipe.epochs)
        recorded(out, plan)
    engine, about = engine_of(sweep_options), {"suite": suite.name, "note": suite.note}
    with _progress(engine) as report:
        if plan is None:
            swept = run_all(out, axes, combinations, about, report, engine)
        else:
            swept = search(out, plan, make, about, report, engine)
    picture = [f"Picture: {swept.picture}"] if swept.picture is not None else []
    views = [table("", swept.columns, swept.cells), *swept.notes, *picture]
    return Result(swept.json(), views, code=int(any(combination.error for combination in combinations)))


@contextmanager
def _progress(engine: Any) -> Iterator[Progress]:
    """Yield a callback that shows a line for each run, or a bar where an engine executes them."""
    if engine is None:
        yield lambda number, total, name: say(f"{number:g} of {total:g}: {name}")
    else:
        with progress() as report:
            yield report


def _sampler(sweep_options: Parsed) -> "TPE | None":
    """Return the sampler of --search; raises InputError for its options without it."""
    given = {"trials": sweep_options.trials, "seed": sweep_options.search_seed}
    settings = {name: value for name, value in given.items() if value is not None}
    if sweep_options.search is None:
        if settings:
            option = "--trials" if "trials" in settings else "--search-seed"
            raise InputError(f"{option} is an option of a search: give --search tpe too, or leave it out.")
        return None
    from unperturbed.sweeps.tpe import TPE

    return TPE(**settings)


def _evaluation(sweep_options: Parsed, device: str) -> list[str]:
    """Return the options of the evaluation of each run."""
    options = {
        "suite": sweep_options.suite,
        "device": device,
        "examples": sweep_options.examples,
        "examples-seed": sweep_options.examples_seed,
        "threat": sweep_options.evaluate_threat,
    }
    words = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return [*words, *(["--overwrite"] if sweep_options.overwrite else [])]


def _combination(
    axes: Sequence[Axis], values: Mapping[str, str], folder: Path, words: Sequence[str], evaluation: Sequence[str]
) -> Combination:
    """Return the combination with these words for training and options for evaluation."""

    def trained(until: int | None) -> Any:
        begun = [word for word in words if word != "--resume" or folder.exists()]
        return train.run(parse(train.parser(), begun), until).value

    def evaluated() -> Any:
        trust = parse(train.parser(), words).trust
        examination = parse(evaluate.parser(), [str(folder), *evaluation], evaluate.POSITIONAL)
        return evaluate.run(replace(examination, trust=trust)).value

    return Combination({axis.name: values[axis.option] for axis in axes}, folder, trained, evaluated)


def _axes(texts: Sequence[str] | None, parsed: Parsed) -> "tuple[list[Axis], dict[str, Range]]":
    """Return the axes of --over, and the ranges among them by option."""
    if not texts:
        raise InputError(f"--over is missing: name an option of training and its values, such as {EXAMPLE}.")
    if len(texts) > 2 and parsed.search is None:
        raise InputError(
            f"--over is given {len(texts)} times, but a sweep is over one option or two; --search tpe takes more."
        )
    from unperturbed.sweeps.grid import make_axes
    from unperturbed.sweeps.ranges import parse_range

    axes, ranges = [], {}
    for text in texts:
        option, equals, values = text.partition("=")
        parts = _split(values)
        if not equals or not all(parts):
            raise InputError(f"--over is {text!r}: write OPTION=V1,V2,... such as {EXAMPLE}.")
        if len(set(parts)) < len(parts):
            raise InputError(f"--over {text} names the same value twice.")
        option = _full_option(option, parsed)
        if any(word.partition("=")[0] == f"--{option}" for word in divide(parser(), parsed.argv, ())[1]):
            raise InputError(f"--{option} is given separately, and in --over: leave one of them out.")
        axes.append((option, parts))
        if len(parts) == 1 and (numbers := parse_range(parts[0])) is not None:
            ranges[option] = numbers
    return make_axes(axes), ranges


def _split(values: str) -> list[str]:
    """Split at commas outside of brackets."""
    return [part.strip() for part in re.split(r",(?![^\[({]*[\])}])", values)]


def _full_option(option: str, parsed: Parsed) -> str:
    """Return an option of training in the parser's form; for an unknown one, raise InputError with the nearest."""
    options = [name for name in known_options(train.parser()) if name not in (*SWEEP_OPTIONS, "resume", "devices")]
    options.append("train-examples")
    root, dot, rest = option.strip().removeprefix("--").partition(".")
    root = root.replace("_", "-")
    if root in options and (not dot or root in TREES):
        return root + dot + rest.replace("-", "_")
    below = _below(parsed)
    full = f"method.{root.replace('-', '_')}"
    nearest = f"Did you mean {full!r}?" if full in below else hint(option, [*options, *below])
    raise InputError(f"--over: training has no option {option!r}. {nearest}")


def _below(parsed: Parsed) -> list[str]:
    """Return the options of the method, for options without its name."""
    from unperturbed.methods.at import AT
    from unperturbed.specs.parameters import parameters_of
    from unperturbed.specs.trees import choose

    method = choose(parsed.trees["method"], "methods", "method", default=AT(), trust=parsed.trust)
    return [f"method.{name}" for name in parameters_of(method.target)]


def _check(
    combinations: Sequence[Combination],
    lines: Mapping[Path, Sequence[str]],
    sweep_options: Parsed,
    trust: Trust,
    distinct: bool,
) -> train.Plan:
    """Check combinations before training, and return the plan of the first.

    Raises:
        InputError: for invalid ones and, if they must be distinct, for equal ones.
    """
    from unperturbed.cli.setup import examples_of
    from unperturbed.data.sources import load_data
    from unperturbed.specs.spec import describe

    options = [parse(train.parser(), lines[combination.folder]) for combination in combinations]
    trust = trust.giving(*(place for parsed in options for place in (parsed.data, parsed.extra)))
    load, descriptions, looked_at = cache(partial(load_data, trust=trust)), list[tuple[object, str]](), set[object]()
    plans = []
    for combination, parsed in zip(combinations, options, strict=True):
        plan = train.plan(parsed, load)
        plans.append(plan)
        described = (plan.config, str(plan.threat), describe(plan.threat.bounds), plan.recipe)
        for earlier, name in descriptions:
            if distinct and earlier == described:
                raise InputError(f"--over: {name} and {combination.name} are the same run.")
        descriptions.append((described, combination.name))
        if parsed.data not in looked_at:
            looked_at.add(parsed.data)
            examples_of(plan.data, sweep_options.examples, sweep_options.examples_seed)
    return plans[0]
