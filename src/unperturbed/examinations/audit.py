"""Audit a robust accuracy: is it real, or did the attacks fail for another reason?"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from unperturbed.attacks.gradient import Suite
from unperturbed.checks import COUNT, POSITIVE, SEED, checked
from unperturbed.data.selection import Selection, choose
from unperturbed.data.split import Split
from unperturbed.engines.base import Engine
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.checked_model import CheckedModel, check_model, measured_split
from unperturbed.evaluation.hashes import data_hash, version, weights_hash
from unperturbed.evaluation.identity import settings_of
from unperturbed.examinations.audited import FEW, Audited, Check, CheckResult, broken_in
from unperturbed.examinations.budget import (
    WEAKEST,
    Clock,
    Plan,
    check_passes,
    checks_in,
    plan_for,
)
from unperturbed.examinations.clock import Start
from unperturbed.examinations.remedies.deployed import Reachable, state_restored
from unperturbed.examinations.remedies.suite import remedied_suite
from unperturbed.examinations.verdict import NEEDED, Audit, causes_of, conclude, missing, shortened, survivors
from unperturbed.findings import Interval, Number, Outcome, Progress, silent
from unperturbed.networks.logits import Output
from unperturbed.networks.modes import under_attack
from unperturbed.runs.kept import Kept
from unperturbed.runs.lock import alone_in
from unperturbed.statistics.intervals import wilson
from unperturbed.storage.opened import published, results_and_weights
from unperturbed.suites.by_name import find_suite
from unperturbed.threat import Threat

BUDGET = 300.0
"""The default budget in seconds."""
SAYS = 0.02
"""Share of the budget from which the passes of the suite say how busy the machine is."""
CHEAP = 10
"""Passes an example of checks that every audit runs, whatever its budget: they name most causes."""
SUITE, CHECKS, REMEDIES = "the suite in question", "all checks", "attacks after the remedies"
"""The parts of an audit whose costs are listed."""
UNLABELLED = 2000
"""Number of further inputs on which a stand-in may learn the network's labels."""


def _place(arguments: Mapping[str, Any]) -> tuple[Path, str] | None:
    """Return the folder of an audit's files."""
    return None if arguments["out"] is None else (Path(arguments["out"]), "")


@published(results_and_weights)
@checked(budget=POSITIVE, examples=COUNT, seed=SEED, batch_size=COUNT)
@alone_in(_place)
def audit(
    model: nn.Module,
    data: Any,
    threat: Threat,
    suite: str | Suite | Callable[..., Any] = "pgd",
    *,
    budget: float = BUDGET,
    examples: int | None = None,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    out: str | Path | None = None,
    output: Output = None,
    stored: Sequence[Outcome] = (),
    peers: Mapping[str, nn.Module] | None = None,
    engine: str | Engine | None = None,
    announce: Callable[[Plan], None] = lambda plan: None,
    progress: Progress = silent,
) -> Audit:
    """Return a verdict on a robust accuracy, its causes, and the robust accuracy after the remedies.

    Checks look for reasons why attacks fail on a network that is not robust (the checks of Carlini et al. 2019,
    https://arxiv.org/abs/1902.06705; AutoAttack's flags; the indicators of Pintor et al. 2022,
    https://arxiv.org/abs/2106.09947). Then attacks use the remedies for these causes, every success is verified on the
    original network, and the share of survivors is the headline: an upper bound on the robust accuracy.

    Args:
        model: returns logits; it is audited in eval mode and restored afterwards.
        data: as for `evaluate`; the test split of a `Data`.
        threat: the threat set.
        suite: the evaluation in question. The default is not that of `evaluate`: "fast" attacks all survivors by
            "standard" where something speaks against an accuracy, which exceeds the budget.
        budget: approximate limit in seconds of processor time (of wall-clock time on a free machine, and never more
            than four times as much of that); the plan is announced first.
        examples: number of audited examples: the first or, if they do not represent the others, as many from every
            class in proportion; None: as the budget allows, 50 to 200.
        seed: of all random numbers.
        batch_size: examples in a batch.
        out: a folder, in which an interrupted audit resumes.
        output: the part of the model's output with the logits.
        stored: finished evaluations of the same network and data, with their examples. One by the suite in question is
            not repeated, and examples that any of them broke count as broken.
        peers: other networks by name, whose adversarial examples are tried on this one.
        engine: executes the blocks of the evaluations, as for `evaluate`; the checks run in this process.
        announce: called with the plan before the first measurement.
        progress: called before each step.

    Raises:
        InputError: as `evaluate`.
    """
    began = Start.now()
    threat.refuse_sparse("The audit")
    split, question = measured_split(data), find_suite(suite)
    folder = None if out is None else Path(out)
    with ExitStack() as stack:
        stack.enter_context(state_restored(model))
        with state_restored(model):  # a network that keeps state is judged in the state in which it was given
            looked = _look(model, split, threat, seed, output)
        stack.enter_context(under_attack(looked.classifier))
        known = [o for o in stored if (o.threat, o.environment.get("network")) == (str(threat), looked.network)]
        request = {
            "unperturbed": version(),
            "torch": str(torch.__version__),
            "weights": weights_hash(model),
            "network": looked.network,
            "threat": str(threat),
            "suite": question.name,
            "attacks": settings_of(question),
            "seed": seed,
        }
        asked = {**request, "budget": budget, "examples": examples, "batch_size": batch_size, "of": len(split)}
        with state_restored(model):
            plan = _planned(folder, asked, lambda: _plan(looked, split, question, budget, examples, batch_size, known))
        announce(plan)
        whole = split
        if plan.examples < len(split):
            split, _ = choose(split, Selection("auto", plan.examples))
        warnings = [*looked.warnings, *(text for text in split.notes if text not in looked.warnings)]
        identity = {**request, "data": data_hash(split), "batch_size": plan.batch_size}

        def run(network: nn.Module, attacks: Suite, name: str) -> Outcome:
            return evaluate(
                Reachable(network) if attacks is question else network,
                split,
                threat,
                attacks,
                out=None if folder is None else folder / name,
                overwrite=True,
                seed=seed,
                batch_size=plan.batch_size,
                precision="32",
                engine=engine,
            )

        further = (~torch.isin(whole.names(), split.names())).nonzero()[:UNLABELLED, 0]
        audited = Audited(
            looked.classifier,
            looked.batch(split, torch.arange(len(split)), threat),
            threat,
            looked.classes,
            seed,
            plan.batch_size,
            question,
            run,
            tuple(known),
            looked.batch(whole, further, threat).x if len(further) else None,
            peers or {},
        )
        return _audited(audited, plan, folder, identity, began, warnings, progress)


def _audited(
    audited: Audited,
    plan: Plan,
    folder: Path | None,
    identity: Mapping[str, Any],
    began: Start,
    warnings: Sequence[str],
    progress: Progress,
) -> Audit:
    """Evaluate by the suite in question, run the checks, attack with the remedies, and conclude."""
    progress(0.0, 1.0, f"the suite {audited.suite.name}")
    clock, started = Clock(plan, began), Start.now()
    before = audited.baseline
    suite_cost = started.cost
    passes = sum(attack.forwards for attack in before.attacks) * (plan.suite > 0)
    if passes * plan.rate > SAYS * plan.budget:  # a suite that breaks all at once consists of preparations
        clock.record(passes, started.seconds)
    checks = _run_checks(audited, folder, identity, clock, progress)
    progress(0.7, 1.0, "attacks after the remedies")
    strength, started = _strength(plan, clock, folder, identity), Start.now()
    after = audited.evaluate(Reachable(audited.deployed), remedied_suite(audited, strength), "headline")
    costs = {SUITE: suite_cost, CHECKS: sum(check.seconds for check in checks), REMEDIES: started.cost}
    warnings = (*warnings, *shortened(strength))
    return _concluded(audited, checks, before, after, warnings, identity, began.cost, costs)


def _strength(plan: Plan, clock: Clock, folder: Path | None, identity: Mapping[str, Any]) -> float:
    """Return the strength of the attacks after the remedies: as the remaining time allows, or as stored."""
    kept = Kept(folder and folder / "strength.json", {**identity, "budget": plan.budget})
    stored = kept.read_as(_strength_of)
    if stored is not None:
        return stored
    strength = round(min(plan.strength, max(WEAKEST, clock.left / clock.remedied(1.0))), 2)
    kept.write(strength=strength)
    return strength


def _planned(folder: Path | None, asked: Mapping[str, Any], make: Callable[[], Plan]) -> Plan:
    """Return the stored plan of the same audit, which a resumed audit keeps, or a new one."""
    kept = Kept(folder and folder / "plan.json", asked)
    plan = kept.read_as(lambda values: Plan.of(values["plan"]))
    if plan is not None:
        return plan
    plan = make()
    kept.write(plan=plan.json())
    return plan


def _plan(
    looked: CheckedModel,
    split: Split,
    suite: Suite,
    budget: float,
    examples: int | None,
    batch_size: int | Literal["auto"],
    known: Sequence[Outcome],
) -> Plan:
    try:
        same = next((outcome for outcome in known if outcome.suite == suite.name), None)
        return plan_for(looked, len(split), suite, budget, examples, batch_size, same)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"The network fails in a forward or backward: {type(error).__name__}: {error}") from error


def _look(model: nn.Module, split: Split, threat: Threat, seed: int, output: Output) -> CheckedModel:
    try:
        return check_model(model, split, threat, seed, output)
    except InputError as error:
        if "No gradient reaches" not in str(error):
            raise
        return check_model(Reachable(model), split, threat, seed, output)


def _run_checks(
    audited: Audited, folder: Path | None, identity: Mapping[str, Any], clock: Clock, progress: Progress
) -> tuple[CheckResult, ...]:
    """Return the result of every check; stored results of the same audit are reused."""
    kept = Kept(folder and folder / "checks.json", identity)
    stored = kept.read_as(_checks_of) or {}
    results = {name: result.json() for name, result in stored.items()}
    check_results = list[CheckResult]()
    checks = sorted(checks_in(), key=lambda check: check[0].__name__ not in NEEDED)  # cheap ones first in both parts
    for number, (check, _) in enumerate(checks):
        name = check.__name__
        progress(0.2 + 0.5 * number / len(checks), 1.0, f"check {name}")
        if name in stored and stored[name].reason in ("", "not applicable"):
            check_results.append(stored[name])
            continue
        check_results.append(_result(check, audited, clock))
        results[name] = check_results[-1].json()
        kept.write(checks=results)
    return tuple(check_results)


def _checks_of(values: Mapping[str, Any]) -> dict[str, CheckResult]:
    """Return the stored results by name, without those of other types: these checks run again."""
    results = dict[str, CheckResult]()
    for name, entry in values["checks"].items():
        with suppress(TypeError, LookupError, AttributeError):
            results[name] = CheckResult.of(entry)
    return results


def _strength_of(values: Mapping[str, Any]) -> float:
    strength = Number.of({"name": "strength", "value": values["strength"], "n": 1}).value
    if not 0 < strength <= 1:
        raise TypeError(f"the strength is {strength}")
    return strength


def _result(check: Check, audited: Audited, clock: Clock) -> CheckResult:
    """Run a check, unless it would take the time of the attacks after the remedies."""
    began = Start.now()
    passes = check_passes(check, audited.suite, audited.classes)
    question = (check.__doc__ or check.__name__).partition("\n")[0]
    if passes > CHEAP * FEW and clock.seconds(passes) > clock.left - clock.remedied(WEAKEST):
        text = f"the rest of the budget is kept for the attacks; the check takes about {clock.seconds(passes):.1f} s"
        return CheckResult(check.__name__, question, "not run", text, "", reason="budget")
    try:
        with state_restored(audited.model):
            result = check(audited)
    except Exception as error:  # any error of the network: the other checks continue
        text = f"it failed ({type(error).__name__}: {error})"[:300]
        return CheckResult(check.__name__, question, "not run", text, "", seconds=began.cost, reason="error")
    clock.record(passes, began.seconds)
    return replace(result, seconds=began.cost)


def _concluded(
    audited: Audited,
    checks: Sequence[CheckResult],
    before: Outcome,
    after: Outcome,
    warnings: Sequence[str],
    identity: Mapping[str, Any],
    seconds: float,
    costs: Mapping[str, float],
) -> Audit:
    ids = audited.batch.ids.tolist()
    behaviour = audited.behaviour
    claimed = survivors(before, ids)
    headline: Interval = after.robust_accuracy
    if not behaviour.is_random:
        as_it_is = behaviour.stateful or behaviour.coupled  # then stored evaluations are of another function
        outcomes = [o for o in (before, *audited.stored) if not (as_it_is and o in audited.stored)]
        broken = {number for outcome in outcomes for number in broken_in(outcome)}
        broken |= {number for check in checks for number in check.broke}
        headline = survivors(after, ids, broken)
    causes = causes_of(checks, claimed.value, headline.value)
    chosen = [candidate.name for candidate in audited.candidates[:2]]
    return Audit(
        conclude(causes, checks, claimed.value, headline.value),
        causes,
        headline,
        claimed,
        wilson(audited.standing, len(ids)),
        audited.suite.name,
        str(audited.threat),
        tuple(checks),
        tuple(chosen),
        after.attacks,
        (*warnings, *missing(checks)),
        seconds,
        dict(identity),
        costs,
    )
