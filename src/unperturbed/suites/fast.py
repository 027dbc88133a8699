"""As strong as AutoAttack on honest networks at a fraction of its passes, with a check of its own."""

from unperturbed.attacks.gradient import Gate, GradientAttack, Suite
from unperturbed.attacks.margin_decomposition import MarginDecomposition, unit_probabilities
from unperturbed.attacks.multi_targeted import MultiTargeted
from unperturbed.attacks.square import LocalSearch
from unperturbed.attacks.targets import ByDistance
from unperturbed.losses import cross_entropy, targeted_dlr_or_margin
from unperturbed.maximise.apgd import APGD
from unperturbed.maximise.cosine import CosinePGD
from unperturbed.suites.autoattack import FEW, STANDARD

FAST: Suite = Suite(
    "fast",
    (
        GradientAttack("APGD-CE", cross_entropy, APGD(steps=50)),
        MarginDecomposition("MD", ascent=CosinePGD(steps=50), restarts=1),
        MarginDecomposition("PMA", unit_probabilities, CosinePGD(steps=50), restarts=1),
        MultiTargeted("APGD-T", targeted_dlr_or_margin, APGD(steps=50), targets=3, order=ByDistance()),
        LocalSearch(),
    ),
    "an upper bound, checked by standard on a sample of the survivors, and on all of them where that breaks too many",
    few_classes=FEW,
    gate=Gate(STANDARD),
)
