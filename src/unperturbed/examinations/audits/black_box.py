"""A check whether an attack without gradients breaks survivors of attacks along the gradient."""

from unperturbed.attacks.gradient import GradientAttack
from unperturbed.attacks.square import Square
from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.examinations.behaviour import drawn
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD
from unperturbed.networks.modes import under_attack
from unperturbed.noise import Noise

PASSES = 400
QUERIES = 300
LEAD = 0.1
"""Share of the examples that may fall to the black-box attack only."""


def black_box(audited: Audited) -> CheckResult:
    """Does Square break survivors of PGD with the network's gradient? (Carlini et al. 2019.)"""
    batch, network, n = audited.few, audited.reachable, len(audited.few.y)
    noise = Noise.of(audited.seed, batch.ids).fold(31)
    with under_attack(network), drawn(audited.seed, batch.x.device):
        pgd = GradientAttack("PGD", margin, PGD(steps=40), restarts=2)
        white = audited.wrong(batch, pgd(network, batch, audited.threat, noise, audited.batch_size).z)
        square = Square(queries=QUERIES)(audited.deployed, batch, audited.threat, noise, audited.batch_size)
        black = audited.wrong(batch, square.z)
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
    )
