"""A check whether an attack without gradients breaks survivors of attacks along the gradient."""

from unperturbed.attacks.square import Square
from unperturbed.examinations.audited import Audited, CheckResult, share

PASSES = 400
QUERIES = 300
LEAD = 0.1
"""Share of the examples that may fall to the black-box attack only."""


def black_box(audited: Audited) -> CheckResult:
    """Does Square break survivors of PGD with the network's gradient? (Carlini et al. 2019.)"""
    batch, n, white = audited.few, len(audited.few.y), audited.white_box
    z = audited.climbed(Square(queries=QUERIES), batch, 31, audited.deployed)
    black = audited.wrong(batch, z)
    only = int((black & ~white).sum())
    bad = only > LEAD * n and not audited.behaviour.is_random
    return CheckResult(
        "black_box",
        "Does knowing the gradient help an attack?",
        "fail" if bad else "pass",
        f"PGD breaks {int(white.sum())} of {n}, Square without gradients {int(black.sum())}; {only} fall to "
        "Square only",
        f"at most {LEAD:.0%} fall to Square only",
        ("shattered",) if bad else (),
        numbers=(
            share("broken with the gradient", int(white.sum()), n),
            share("broken by Square", int(black.sum()), n),
            share("broken by Square only", only, n),
        ),
        broke=audited.broke(batch, z),
    )
