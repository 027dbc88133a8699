"""AutoAttack's suites (Croce & Hein 2020, https://arxiv.org/abs/2003.01690; L1: 2021, 2103.01208)."""

from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.attacks.multi_targeted import MultiTargeted
from unperturbed.attacks.square import Square
from unperturbed.losses import cross_entropy, dlr_or_margin, targeted_dlr_or_margin
from unperturbed.maximise.apgd import APGD

_WIDE = APGD(wide=True)
FEW = "; with fewer than four classes the margin in place of DLR"

STANDARD: Suite = Suite(
    "standard",
    (
        GradientAttack("APGD-CE", cross_entropy, APGD()),
        MultiTargeted("APGD-T", targeted_dlr_or_margin, APGD(), targets=9),
        FAB("FAB-T", targets=9),
        Square(),
    ),
    "AutoAttack, four attacks one after the other: an upper bound, for networks that draw no random numbers",
    l1=(
        GradientAttack("APGD-CE", cross_entropy, _WIDE, restarts=5),
        MultiTargeted("APGD-T", targeted_dlr_or_margin, _WIDE, targets=5),
        FAB("FAB-T", targets=9),
        Square(),
    ),
    few_classes=FEW,
)

PLUS: Suite = Suite(
    "plus",
    (
        GradientAttack("APGD-CE", cross_entropy, APGD(), restarts=5),
        GradientAttack("APGD-DLR", dlr_or_margin, APGD(), restarts=5),
        FAB("FAB", restarts=5),
        Square(),
        MultiTargeted("APGD-T", targeted_dlr_or_margin, APGD(), targets=9),
        FAB("FAB-T", targets=9),
    ),
    "AutoAttack plus, six attacks one after the other: an upper bound, for networks that draw no random numbers",
    l1=(
        GradientAttack("APGD-CE", cross_entropy, _WIDE, restarts=5),
        GradientAttack("APGD-DLR", dlr_or_margin, _WIDE, restarts=5),
        FAB("FAB", restarts=5),
        Square(),
        MultiTargeted("APGD-T", targeted_dlr_or_margin, _WIDE, targets=9),
        FAB("FAB-T", targets=9),
    ),
    few_classes=FEW,
)

RAND: Suite = Suite(
    "rand",
    (
        GradientAttack("APGD-CE", cross_entropy, APGD(), draws=20),
        GradientAttack("APGD-DLR", dlr_or_margin, APGD(), draws=20),
    ),
    "AutoAttack rand, two attacks on the mean of 20 draws; accuracies are means over 100 others, verdicts by their "
    "majority: for networks that draw random numbers, and an upper bound only",
    l1=(
        GradientAttack("APGD-CE", cross_entropy, _WIDE, draws=20),
        GradientAttack("APGD-DLR", dlr_or_margin, _WIDE, draws=20),
    ),
    few_classes=FEW,
)
