"""Whether the suite has steps enough: twice as many, and a thousand, must break nothing more."""

from dataclasses import replace
from typing import Any

from unperturbed.attacks.gradient import GradientAttack
from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.examinations.audits.more_restarts import climbing
from unperturbed.findings import Number
from unperturbed.losses import margin
from unperturbed.maximise.ascent import Ascent

PASSES = 1700
LONG = 1000
ALLOWED = 0.1
"""Share of the examples left standing that the longer attacks may break."""
RISE = 0.3
"""Rise of the mean margin from the steps of the suite to twice as many, in units of the logits' spread."""


def more_steps(audited: Audited) -> CheckResult:
    """Do twice the suite's steps, or 1000 of one climb, break what it leaves standing, or raise the margin there?

    (Carlini et al. 2019: doubling the iterations must change neither success nor loss.) Climbs of twice the steps have
    half the restarts, since `more_restarts` looks at these.
    """
    batch = audited.standing_batch
    attack, n = climbing(audited.suite, audited)[-1], len(batch.y)
    steps, half = attack.ascent.steps, (attack.restarts + 1) // 2
    z = audited.climbed(replace(attack, ascent=with_steps(attack.ascent, 2 * steps), restarts=half), batch, 111)
    wrong, broke, leads = audited.wrong(batch, z), set(audited.broke(batch, z)), list[float]()
    for count in (steps, 2 * steps, LONG):
        climb = GradientAttack("one climb", margin, with_steps(attack.ascent, count), enough=float("inf"))
        z = audited.climbed(climb, batch, 121)
        leads.append(float(audited.leads(batch, z).mean()) if n else 0.0)
        wrong |= audited.wrong(batch, z)
        broke |= set(audited.broke(batch, z))
    spread = float(audited.logits.std(dim=1).mean()) or 1.0
    rise = (leads[1] - leads[0]) / spread
    longer = int(wrong.sum())
    bad = (longer > ALLOWED * n or rise > RISE) and not audited.behaviour.is_random
    return CheckResult(
        "more_steps",
        "Would longer attacks break more?",
        "fail" if bad else "pass",
        f"twice the steps, and {LONG} steps of one climb, break {longer} of {n} examples that "
        f"{audited.suite.name} leaves standing; the mean margin rises by {rise:.2g} of the logits' spread from "
        f"{steps} to {2 * steps} steps",
        f"at most {ALLOWED:.0%}, and a rise of at most {RISE:g}",
        ("weak suite",) if bad else (),
        numbers=(
            share("broken by longer attacks", longer, n),
            Number("rise of the margin by twice the steps", rise, n, unit="spreads"),
            Number(f"rise of the margin by {LONG} steps", (leads[2] - leads[0]) / spread, n, unit="spreads"),
        ),
        broke=tuple(sorted(broke)),
    )


def with_steps(ascent: Any, steps: int) -> Ascent:
    """Return the ascent with another number of steps."""
    longer: Ascent = replace(ascent, steps=steps)
    return longer
