"""The networks that several studies share."""

from unperturbed.maximise.langevin import Langevin
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method
from unperturbed.methods.constrained import Constrained
from unperturbed.methods.cure import CURE
from unperturbed.methods.dale import DALE, DALEKL
from unperturbed.methods.erm import ERM
from unperturbed.methods.fgsm import FGSM, N_FGSM, RS_FGSM
from unperturbed.methods.free import Free
from unperturbed.methods.grad_align import GradAlign
from unperturbed.methods.gradient_penalty import GradientPenalty
from unperturbed.methods.llr import LLR
from unperturbed.methods.mart import MART
from unperturbed.methods.scorpio import SCORPIO
from unperturbed.methods.sora import SORA
from unperturbed.methods.trades import TRADES
from unperturbed.studies.design import Network

ERM_NETWORK = Network("erm", (ERM(),))
AT_2 = Network("at-2", (AT(PGD(steps=2)),))
AT_10 = Network("at-10", (AT(PGD(steps=10)),))
LLR_2 = Network("llr", tuple(LLR(gap=gap, form="differences") for gap in (4.0, 8.0, 16.0, 32.0, 64.0)))
SCORPIO_1 = Network("scorpio-1", tuple(SCORPIO(steps=1, weight=weight) for weight in (1.0, 1.5)))
SCORPIO_3 = Network("scorpio-3", tuple(SCORPIO(steps=3, weight=weight) for weight in (1.0, 1.5)))
GRADIENT_PENALTY = Network("gradient-penalty", tuple(GradientPenalty(weight=weight) for weight in (1.0, 3.0, 10.0)))
CURE_NETWORK = Network("cure", tuple(CURE(weight=weight) for weight in (0.5, 2.0, 8.0, 32.0)))
TRADES_10 = Network("trades", (TRADES(),))
DALE_SAMPLED = Network("dale", (DALE(),))
DALE_MAXIMISED = Network("dale-maximised", (DALE(maximiser=Langevin(temperature=0.0)),))
DALE_ALONE = Network("dale-alone-maximised", (DALE(weight=0.0, maximiser=Langevin(temperature=0.0)),))
DALE_KL = Network("dale-kl-maximised", (DALEKL(weight=1 / 6, maximiser=Langevin(temperature=0.0)),))


def _at_strength(eps: float) -> Method:
    """Return adversarial training with ten steps, or ordinary training without a perturbation."""
    return AT(PGD(steps=10)) if eps > 0 else ERM()


def dale_limited(rho: float) -> Network:
    """Return DALE under a limit rho on the nominal loss."""
    return Network(f"dale rho {rho:g}", (DALE.dual(rho),))


STRENGTHS = {"standard": 0.0, "full": 1.0}
"""Strengths of adversarial training in units of the setting's eps."""
FAMILIES = {"": {"weight_decay": 0.0}, ", weight decay": {"weight_decay": 5e-3}}
"""Networks without batch norm that differ in their weight decay."""
BY_STRENGTH = tuple(
    Network(f"{strength}{family}", (_at_strength(eps),), eps, changes)
    for family, changes in FAMILIES.items()
    for strength, eps in STRENGTHS.items()
)

RHO = 0.1
"""The limit on the nominal loss in comparisons."""
LIMITED_SCORPIO = Network("limited scorpio-1", (Constrained(SCORPIO(steps=1), nominal_loss=RHO),), epochs=2.6)
LIMITED_LLR = Network("limited llr", (Constrained(LLR(form="differences"), nominal_loss=RHO),), epochs=1.3)
DALE_LIMITED = dale_limited(RHO)

OF_ALL = (
    ERM_NETWORK,
    Network("fgsm", (FGSM(),)),
    Network("rs-fgsm", (RS_FGSM(),)),
    Network("n-fgsm", (N_FGSM(),)),
    Network("free", (Free(),)),
    Network("sora", (SORA(),)),
    Network("grad-align", (GradAlign(),)),
    Network("mart", (MART(),)),
    AT_2,
    AT_10,
    TRADES_10,
    SCORPIO_1,
    SCORPIO_3,
    LLR_2,
    GRADIENT_PENALTY,
    CURE_NETWORK,
    DALE_LIMITED,
    Network("limited scorpio-1, equal epochs", (Constrained(SCORPIO(steps=1), nominal_loss=RHO),)),
)
"""Networks of all kinds at equal epochs."""
