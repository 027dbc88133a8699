"""Audit a robust accuracy: is it real, or did the attacks fail for another reason?"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from unperturbed.attacks.gradient import Suite
from unperturbed.checks import COUNT, POSITIVE, SEED, checked
from unperturbed.data.split import Split, select
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.batch_size import physical_batch_size
from unperturbed.evaluation.checked_model import CheckedModel, check_model, measured_split
from unperturbed.evaluation.hashes import data_hash, version, weights_hash
from unperturbed.examinations.audited import PLACE, Audited, Check, CheckResult
from unperturbed.examinations.remedies.deployed import Reachable, state_restored
from unperturbed.examinations.remedies.suite import remedied_suite
from unperturbed.examinations.verdict import Audit, causes_of, conclude, survivors
from unperturbed.findings import Interval, Outcome, Progress, silent
from unperturbed.networks.logits import Output
from unperturbed.networks.modes import under_attack
from unperturbed.runs.lock import alone_in
from unperturbed.runs.verify import read_sealed, write_sealed
from unperturbed.statistics.intervals import wilson
from unperturbed.suites.by_name import find_suite
from unperturbed.threat import Threat

BUDGET = 300.0
"""Seconds, unless another budget is given."""
MOST, LEAST = 200, 50
"""Examples of an audit whose number follows from the budget."""
PER_EXAMPLE = 1500
"""Passes that an audit takes for an example that nothing breaks, about."""
SHARE_OF_CHECKS = 0.4
"""Of the budget: a check that would begin later is not run."""


@dataclass(frozen=True)
class Plan:
    """What an audit is going to cost.

    Attributes:
        examples: that are audited.
        seconds: that it takes, about.
        strength: of the attacks after the remedies; 1 is all of their steps.
        batch_size: examples that the network sees at a time.
    """

    examples: int
    seconds: float
    strength: float
    batch_size: int

    def __str__(self) -> str:
        """Announce it."""
        return f"Audit of {self.examples} examples, about {self.seconds:.0f} s on this machine"


def _place(given: Mapping[str, Any]) -> tuple[Path, str] | None:
    """Return the folder that an audit writes into."""
    return None if given["out"] is None else (Path(given["out"]), "")


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
    announce: Callable[[Plan], None] = lambda plan: None,
    progress: Progress = silent,
) -> Audit:
    """Return whether a robust accuracy can be believed, why not, and what it is after the remedies.

    Checks look for what makes attacks fail on a network that is not robust (the checks of Carlini et al. 2019,
    https://arxiv.org/abs/1902.06705; AutoAttack's flags; the indicators of Pintor et al. 2022,
    https://arxiv.org/abs/2106.09947). Then the network is attacked past what they find, every success is verified on
    the network as it is, and what survives is the headline: an upper bound of the robust accuracy.

    Args:
        model: returns logits; it is audited in eval mode and left as it was.
        data: what `evaluate` takes; the test split of a `Data`.
        threat: the threat set.
        suite: the evaluation in question.
        budget: seconds that the audit may take, about; it is announced first.
        examples: how many are audited, from the first; None: what the budget allows, 50 to 200.
        seed: of every random number.
        batch_size: examples that the network sees at a time.
        out: a folder; an audit that was interrupted resumes there.
        output: which part of what the model returns are the logits.
        stored: finished evaluations of the same network, with their examples, which are not repeated.
        announce: called with the plan before anything is measured.
        progress: called before each step.

    Raises:
        InputError: on what `evaluate` refuses.
    """
    began = time.monotonic()
    split, question = measured_split(data), find_suite(suite)
    with ExitStack() as stack:
        stack.enter_context(state_restored(model))
        looked = _look(model, split, threat, seed, output)
        stack.enter_context(under_attack(looked.classifier))
        plan = _plan(looked, split, budget, examples, batch_size)
        announce(plan)
        split = select(split, torch.arange(plan.examples)) if plan.examples < len(split) else split
        identity = {
            "unperturbed": version(),
            "torch": str(torch.__version__),
            "weights": weights_hash(model),
            "network": looked.network,
            "data": data_hash(split),
            "threat": str(threat),
            "suite": question.name,
            "seed": seed,
            "batch_size": plan.batch_size,
        }
        folder = None if out is None else Path(out)

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
            )

        rows = torch.arange(len(split))
        audited = Audited(
            looked.classifier,
            looked.batch(split, rows, threat),
            threat,
            looked.classes,
            seed,
            plan.batch_size,
            question,
            run,
            tuple(outcome for outcome in stored if outcome.threat == str(threat)),
        )
        checks = _run_checks(audited, folder, identity, began + SHARE_OF_CHECKS * budget, progress)
        progress(0.5, 1.0, f"the suite {question.name}")
        before = audited.baseline
        progress(0.7, 1.0, "attacks after the remedies")
        left = budget - (time.monotonic() - began)
        strength = plan.strength if left > 0.3 * budget else plan.strength * 0.5
        attacks = remedied_suite(audited, strength)
        after = run(Reachable(audited.deployed), attacks, "headline")
        return _concluded(audited, checks, before, after, looked.warnings, identity, time.monotonic() - began)


def checks_in(folder: Path = PLACE) -> list[tuple[Check, int]]:
    """Return the checks in a folder of the package, each with its passes an example, cheap ones first."""
    modules = [
        import_module(f"unperturbed.examinations.{folder.name}.{file.stem}")
        for file in sorted(folder.glob("*.py"))
        if file.stem != "__init__"
    ]
    found = [(getattr(module, module.__name__.rpartition(".")[2]), module.PASSES) for module in modules]
    return sorted(found, key=lambda each: each[1])


def _look(model: nn.Module, split: Split, threat: Threat, seed: int, output: Output) -> CheckedModel:
    try:
        return check_model(model, split, threat, seed, output)
    except InputError as error:
        if "No gradient reaches" not in str(error):
            raise
        return check_model(Reachable(model), split, threat, seed, output)


def _plan(
    looked: CheckedModel, split: Split, budget: float, examples: int | None, batch_size: int | Literal["auto"]
) -> Plan:
    """Return how many examples an audit takes, by the seconds of a few passes."""
    batch_size = physical_batch_size(batch_size, looked, min(len(split), MOST if examples is None else examples))
    x = looked.examples[torch.arange(batch_size, device=looked.device) % len(looked.examples)]
    times = []
    for _ in range(3):
        began = time.perf_counter()
        with torch.enable_grad():
            leaf = x.clone().requires_grad_()
            torch.autograd.grad(looked.classifier(leaf).sum(), leaf)
        times.append(time.perf_counter() - began)
    per_example = PER_EXAMPLE * sorted(times)[1] / batch_size
    affordable = int(0.8 * budget / per_example)
    n = min(len(split), max(LEAST, min(MOST, affordable)) if examples is None else examples)
    strength = min(1.0, max(0.25, affordable / n))
    return Plan(n, n * per_example * (0.5 + strength / 2), strength, batch_size)


def _run_checks(
    audited: Audited, folder: Path | None, identity: Mapping[str, Any], until: float, progress: Progress
) -> tuple[CheckResult, ...]:
    """Return every check's result; what a folder keeps of the same audit is not measured again."""
    file = None if folder is None else folder / "checks.json"
    kept = {} if file is None else read_sealed(file)
    results = dict(kept.get("checks", {})) if kept.get("of") == dict(identity) else {}
    found, checks = list[CheckResult](), checks_in()
    for number, (check, _) in enumerate(checks):
        name = check.__name__
        progress(0.5 * number / len(checks), 1.0, f"check {name}")
        if name in results and results[name]["verdict"] != "not run":
            found.append(CheckResult.of(results[name]))
            continue
        found.append(_result(check, audited, until))
        results[name] = found[-1].json()
        if file is not None:
            write_sealed(file, {"of": dict(identity), "checks": results})
    return tuple(found)


def _result(check: Check, audited: Audited, until: float) -> CheckResult:
    began = time.monotonic()
    question = (check.__doc__ or check.__name__).partition("\n")[0]
    if began > until:
        return CheckResult(check.__name__, question, "not run", "the budget was used up", "")
    try:
        found = check(audited)
    except Exception as error:  # a network may do anything: the other checks are to be kept
        text = f"it failed ({type(error).__name__}: {error})"[:300]
        return CheckResult(check.__name__, question, "not run", text, "", seconds=time.monotonic() - began)
    return replace(found, seconds=time.monotonic() - began)


def _concluded(
    audited: Audited,
    checks: Sequence[CheckResult],
    before: Outcome,
    after: Outcome,
    warnings: Sequence[str],
    identity: Mapping[str, Any],
    seconds: float,
) -> Audit:
    ids = audited.batch.ids.tolist()
    behaviour = audited.behaviour
    comparable = not (behaviour.is_random or behaviour.stateful or behaviour.coupled)
    claimed = survivors(before, None, ids)
    headline: Interval = survivors(after, before, ids) if comparable else after.robust_accuracy
    causes = causes_of(checks, claimed.value, headline.value)
    notes = [f"The check {check.name} was not run: {check.measured}." for check in checks if check.verdict == "not run"]
    chosen = [candidate.name for candidate in audited.candidates[:2]]
    correct = audited.standing
    return Audit(
        conclude(causes, checks, claimed.value, headline.value),
        causes,
        headline,
        claimed,
        wilson(correct, len(ids)),
        audited.suite.name,
        str(audited.threat),
        tuple(checks),
        tuple(chosen),
        after.attacks,
        (*warnings, *notes),
        seconds,
        dict(identity),
    )
