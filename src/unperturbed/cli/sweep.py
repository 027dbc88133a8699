"""Train over values of one or two options, evaluate every run, and show clean against robust accuracy."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from unperturbed.cli import evaluate, train
from unperturbed.cli.console import Result, say
from unperturbed.cli.options import TREES, Parsed, add_examples_options, divide, known_options, new_parser, parse
from unperturbed.cli.sweep_table import SEED, Axis, Run, write
from unperturbed.errors import InputError, RunError, hint
from unperturbed.imports import Trust
from unperturbed.runs import CONFIG
from unperturbed.runs.lock import locked
from unperturbed.runs.verify import read_object

POSITIONAL = None
OWN = (
    *("over", "suite", "examples", "examples-seed", "evaluate-threat", "train-examples", "train-examples-seed"),
    *("overwrite", "out", "json"),
)
"""Options that are not `train`'s, or not as they are given here."""
EXAMPLE = "--over method.nominal_loss=0.05,0.1"


def parser() -> ArgumentParser:
    """Return the command's parser."""
    made = new_parser("sweep", str(__doc__), "All other options are those of unperturbed train.")
    made.add_argument(
        "--over",
        type=str,
        action="append",
        metavar="OPTION=V1,V2,...",
        help=f"an option of training and its values, given once or twice: {EXAMPLE} --over seed=0,1,2 (seeds are "
        "summed up in one row)",
    )
    made.add_argument("--suite", type=str, default="pgd", help=evaluate.SUITE_HELP)
    add_examples_options(made, "test")
    made.add_argument(
        "--evaluate-threat", type=str | None, metavar="THREAT", help="evaluate under this one, not each run's own"
    )
    add_examples_options(made, "training", "train-")
    made.add_argument("--overwrite", action="store_true", help="replace evaluations of other weights or versions")
    train.add_training_options(made)
    return made


def run(given: Parsed) -> Result:
    """Train and evaluate what is not done yet, and return the table; what fails is told in it, and exit code 1."""
    from unperturbed.suites.by_name import find_suite
    from unperturbed.threat import Threat

    own_words, words = divide(parser(), given.argv, OWN)
    own = parse(parser(), own_words)
    axes = _axes(own.over, given)
    out = Path(own.out or "runs/sweep")
    if (out / CONFIG).exists():
        raise InputError(f"{out} is a run folder: give another --out, a folder for the run folders of the sweep.")
    if own.evaluate_threat is not None:
        Threat.parse(own.evaluate_threat)
    suite = find_suite(own.suite, given.trust)
    if own.train_examples is not None:
        words = [*words, f"--examples={own.train_examples}"]
    if own.train_examples_seed is not None:
        words = [*words, f"--examples-seed={own.train_examples_seed}"]
    runs = _runs(axes, words, out)
    _check(runs, own.examples, own.examples_seed, given.trust)
    _check_over(out, [axis.option for axis in axes])

    about = {
        "over": {axis.option: list(axis.values) for axis in axes},
        "suite": suite.name,
        "note": suite.note,
        "figure": str(out / "sweep.svg"),
    }
    evaluation = [f"--suite={own.suite}", f"--device={given.device}"]
    evaluation += [] if own.examples is None else [f"--examples={own.examples}"]
    evaluation += [] if own.examples_seed is None else [f"--examples-seed={own.examples_seed}"]
    evaluation += [] if own.evaluate_threat is None else [f"--threat={own.evaluate_threat}"]
    evaluation += ["--overwrite"] if own.overwrite else []
    # What is there already comes first: if its options differ, that is told before anything is trained or written.
    with locked(out):
        return _done(given, own, axes, runs, about, evaluation)


def _done(
    given: Parsed,
    own: Parsed,
    axes: Sequence[Axis],
    runs: Sequence[Run],
    about: Mapping[str, Any],
    evaluation: Sequence[str],
) -> Result:
    """Train and evaluate each run that is not done yet."""
    out = Path(own.out or "runs/sweep")
    begun, new = [each for each in runs if each.folder.exists()], [each for each in runs if not each.folder.exists()]
    for number, each in enumerate([*begun, *new], 1):
        say(f"{number} of {len(runs)}: {each.name}")
        try:
            training = parse(train.parser(), each.words)
            each.trained = train.run(training).value
            examination = parse(evaluate.parser(), [str(each.folder), *evaluation], evaluate.POSITIONAL)
            each.outcome = evaluate.run(replace(examination, trust=training.trust)).value
        except (RuntimeError, ValueError) as error:  # what PyTorch raises, too: the other runs may do
            ours = isinstance(error, InputError | RunError)
            if isinstance(error, InputError) and number <= len(begun):
                raise  # its options are others
            each.error = str(error) if ours else f"{type(error).__name__}: {error}"
            say(f"{each.name} failed: {each.error}", "error")
        except (KeyboardInterrupt, OSError) as error:
            error.__notes__ = [f"Finished runs are kept in {out}. Run the same command again to resume."]
            raise
        if number >= len(begun):
            value, views = write(out, about, axes, runs)
    return Result(value, views, code=int(any(each.error for each in runs)))


def _check_over(out: Path, options: Sequence[str]) -> None:
    """Refuse a folder with the table of a sweep over other options, which this one's would replace."""
    if not (out / "sweep.json").exists():
        return
    try:
        earlier = list(dict(read_object(out / "sweep.json")["over"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{out / 'sweep.json'} is damaged: delete it, or give another --out.") from error
    if earlier != list(options):
        raise InputError(
            f"{out} holds a sweep over {' and '.join(earlier)}, not over {' and '.join(options)}: give another --out."
        )


def _axes(texts: Sequence[str] | None, given: Parsed) -> list[Axis]:
    """Return what the values of --over mean."""
    if not texts:
        raise InputError(f"--over is missing: name an option of training and its values, such as {EXAMPLE}.")
    if len(texts) > 2:
        raise InputError(f"--over is given {len(texts)} times, but a sweep is over one option or two.")
    found = []
    for text in texts:
        option, equals, values = text.partition("=")
        parts = _split(values)
        if not equals or not all(parts):
            raise InputError(f"--over is {text!r}: write OPTION=V1,V2,... such as {EXAMPLE}.")
        if len(set(parts)) < len(parts):
            raise InputError(f"--over {text} names the same value twice.")
        option = _known(option, given)
        if any(word.partition("=")[0] == f"--{option}" for word in divide(parser(), given.argv, ())[1]):
            raise InputError(f"--{option} is given by itself, and in --over: leave one of them out.")
        found.append((option, parts))
    short = [option.rpartition(".")[2].replace("-", "_") for option, _ in found]
    if len({option for option, _ in found}) < len(found):
        raise InputError(f"--over is given twice for {found[0][0]}: list all its values in one.")
    long = [option.replace("-", "_") for option, _ in found]
    names = short if len(set(short)) == len(short) else long
    axes = [Axis(option, name, tuple(parts)) for (option, parts), name in zip(found, names, strict=True)]
    return sorted(axes, key=lambda axis: (axis.option == SEED, axis.name))  # so that folders are named in one way


def _split(values: str) -> list[str]:
    """Return what stands between the commas, but for those within brackets."""
    return [part.strip() for part in re.split(r",(?![^\[({]*[\])}])", values)]


def _known(option: str, given: Parsed) -> str:
    """Return an option of training in the form that its parser knows; of the unknown the nearest is told."""
    options = [each for each in known_options(train.parser()) if each not in (*OWN, "resume", "devices")]
    options.append("train-examples")
    root, dot, rest = option.strip().removeprefix("--").partition(".")
    root = root.replace("_", "-")
    if root in options and (not dot or root in TREES):
        return root + dot + rest.replace("-", "_")
    below = _below(given)
    full = f"method.{root.replace('-', '_')}"
    nearest = f"Did you mean {full!r}?" if full in below else hint(option, [*options, *below])
    raise InputError(f"--over: training has no option {option!r}. {nearest}")


def _below(given: Parsed) -> list[str]:
    """Return the options of the method, for those who leave its name out."""
    from unperturbed.methods.at import AT
    from unperturbed.specs.parameters import parameters_of
    from unperturbed.specs.trees import choose

    method = choose(given.trees["method"], "methods", "method", default=AT(), trust=given.trust)
    return [f"method.{name}" for name in parameters_of(method.target)]


def _runs(axes: Sequence[Axis], words: Sequence[str], out: Path) -> list[Run]:
    """Return a run for each combination of values."""
    runs: dict[str, Run] = {}
    for parts in product(*(axis.values for axis in axes)):
        pairs = list(zip(axes, parts, strict=True))
        name = ",".join(f"{axis.name}={re.sub(r'[^A-Za-z0-9.+_-]+', '-', part)}" for axis, part in pairs)
        options = [f"--{axis.option.replace('train-examples', 'examples')}={part}" for axis, part in pairs]
        made = Run(
            {axis.name: part for axis, part in pairs},
            out / name,
            [*words, *options, f"--out={out / name}", "--resume"],
        )
        if name in runs:
            raise InputError(f"--over: {runs[name].name} and {made.name} would have the same run folder, {name}.")
        runs[name] = made
    return list(runs.values())


def _check(runs: Sequence[Run], examples: int | str | None, seed: int | None, trust: Trust) -> None:
    """Refuse what cannot be trained or evaluated before anything is, and runs that are the same."""
    from unperturbed.cli.setup import examples_of
    from unperturbed.data.sources import load_data
    from unperturbed.specs.spec import describe

    load, seen, looked_at = cache(partial(load_data, trust=trust)), list[tuple[object, str]](), set[object]()
    for each in runs:
        given = parse(train.parser(), each.words)
        plan = train.plan(given, load)
        described = (plan.config, str(plan.threat), describe(plan.threat.bounds), plan.recipe)
        for other, name in seen:
            if other == described:
                raise InputError(f"--over: {name} and {each.name} are the same run.")
        seen.append((described, each.name))
        if given.data not in looked_at:
            looked_at.add(given.data)
            examples_of(plan.data, examples, seed)
