"""Measure how robust a trained model is: a verdict per example, and a headline with its interval."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result, progress, say, table
from unperturbed.cli.names import hint
from unperturbed.cli.options import Parsed, add_data_options, new_parser
from unperturbed.errors import InputError
from unperturbed.findings import Outcome
from unperturbed.runs import CONFIG, write_json, write_yaml

if TYPE_CHECKING:
    from unperturbed.threat import Threat

POSITIONAL = "run"
SUITE_HELP = "which attacks: pgd (50 steps, 20 restarts), standard (AutoAttack), plus (longer), rand (random networks)"


def parser() -> ArgumentParser:
    """Return the command's parser."""
    made = new_parser("evaluate", str(__doc__))
    made.add_argument("run", type=str | None, nargs="?", help="a run folder; or give --model, --weights and --data")
    add_data_options(made)
    made.add_argument("--suite", type=str, default="pgd", help=SUITE_HELP)
    made.add_argument("--examples", type=int | None, metavar="N", help="only the first N test examples")
    made.add_argument("--examples-seed", type=int | None, metavar="S", help="N random ones instead")
    made.add_argument("--eps", type=str | None, metavar="EPS,...", help="these radii instead: 4/255,8/255")
    made.add_argument("--seed", type=int, default=0, help="of the attacks' random starts")
    made.add_argument(
        "--batch-size", type=Literal["auto"] | int, default="auto", help="examples that the network sees at a time"
    )
    made.add_argument(
        "--precision", type=Literal["auto", "32", "64"], default="auto", help="of the arithmetic (auto: 32)"
    )
    return made


def run(given: Parsed) -> Result:
    """Evaluate, and return the headline, the counts and what each attack did."""

    from unperturbed.cli.subject import (
        check_classes,
        check_free,
        default_threat,
        examples_of,
        keep_place,
        load_into,
        make_model,
        model_and_weights,
        radii_of,
        read_bounds,
        slug,
        stored_bounds,
        stored_run,
    )
    from unperturbed.data.sources import load_data
    from unperturbed.evaluation.accuracy import SUITES, evaluate
    from unperturbed.threat import Threat
    from unperturbed.training.folder import describe
    from unperturbed.training.prepare import find_device

    if given.suite not in SUITES:
        raise InputError(f"There is no suite {given.suite!r}. {hint(given.suite, SUITES)}")
    device = find_device(given.device)
    stored = stored_run(given.run)
    place = given.data or stored.get("data")
    if place is None:
        raise InputError("--data is missing: give a name (unperturbed datasets lists them), a folder, or a file.")
    tree, weights = model_and_weights(given, stored)

    data = load_data(place)
    check_classes(data, stored, other_data=given.data is not None)
    bounds = read_bounds(given.bounds, stored_bounds(stored["bounds"]) if "bounds" in stored else data.bounds)
    usual = stored.get("threat") or given.threat or default_threat(data)
    asked = Threat.parse(given.threat or usual, bounds)
    threats = radii_of(asked, given.eps)
    split = examples_of(data, given.examples, given.examples_seed)
    model, description = make_model(tree, data)
    if weights is not None:
        load_into(model, weights, tree)
    model = (model.double() if given.precision == "64" else model.float()).to(device)

    home = Path(given.out or given.run or Path("runs") / slug(data.name, description["class_path"]))
    kept = {
        "data": keep_place(place),
        "model": description,
        "weights": weights and keep_place(weights),
        "threat": f"{asked.norm}:{asked.eps!r}",
        "bounds": describe(bounds),
    }
    own_folder = bool(given.out or not given.run)
    if own_folder:
        check_free(home, kept)
    outcomes = []
    other_weights = [Path(given.weights).stem] if given.run and given.weights else []
    other_data = [data.name] if keep_place(place) != stored.get("data", keep_place(place)) else []
    for threat in threats:
        other_threat = [str(threat)] if str(threat) != str(Threat.parse(usual, bounds)) else []
        name = slug(*other_weights, *other_data, *other_threat)
        with progress() as report, repeatable():
            outcomes.append(
                evaluate(
                    model,
                    split,
                    threat,
                    given.suite,
                    out=home / "evaluation" / name,
                    seed=given.seed,
                    batch_size=given.batch_size,
                    progress=report,
                )
            )
    if own_folder:
        write_yaml(home / CONFIG, kept)
    return _result(home, threats, outcomes, asked)


@contextmanager
def repeatable() -> Iterator[None]:
    """Within: an interruption or failure takes along how to go on."""
    try:
        yield
    except (KeyboardInterrupt, OSError) as error:
        error.add_note("The model is as it was. The same command evaluates it from the start.")
        raise


def _result(home: Path, threats: "Sequence[Threat]", outcomes: Sequence[Outcome], asked: "Threat") -> Result:
    """Return the outcome at the radius asked for (else the largest), with the curve over all radii."""
    by_eps = {threat.eps: outcome for threat, outcome in zip(threats, outcomes, strict=True)}
    headline = by_eps.get(asked.eps, by_eps[max(by_eps)])
    for text in headline.warnings:
        say(text, "warning")
    value = {"run": str(home)} | headline.json()
    views = [_headline(headline), _attacks(headline)]
    if len(outcomes) > 1:
        value["curve"] = [
            {"eps": threat.eps}
            | {key: outcome.json()[key] for key in ("threat", "n", "clean_accuracy", "robust_accuracy", "interval")}
            for threat, outcome in zip(threats, outcomes, strict=True)
        ]
        write_json(home / "evaluation" / f"{headline.suite}-curve-{asked.norm}.json", {"curve": value["curve"]})
        rows = [(outcome.threat, str(outcome.robust_accuracy)) for outcome in outcomes]
        views.append(table("", ("threat", "robust accuracy"), rows))
    return Result(value, views)


def _headline(outcome: Outcome) -> Any:
    counts = ", ".join(f"{count} {verdict}" for verdict, count in outcome.counts.items())
    rows = [
        ("clean accuracy", str(outcome.clean_accuracy)),
        ("robust accuracy", str(outcome.robust_accuracy)),
        ("", f"suite {outcome.suite}: {outcome.note}"),
        ("examples", counts),
        ("time", f"{outcome.seconds:.1f} s"),
    ]
    if outcome.ties:
        rows.insert(4, ("ties", f"{outcome.ties} final margins within 1e-4 of 0, where rounding decides"))
    return table("", ("", outcome.threat), rows)


def _attacks(outcome: Outcome) -> Any:
    rows = [
        (each.name, str(each.broken), f"{each.robust_after:.1%}", f"{each.seconds:.1f}", f"{each.forwards:,}")
        for each in outcome.attacks
    ]
    return table("", ("attack", "broken", "still standing", "seconds", "forward passes"), rows)
