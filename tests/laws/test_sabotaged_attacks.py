"""More than twenty sabotaged attacks, each of which fails a law: a law that never fails is useless.

A sabotage is a change to the package's own source, applied to the classes and functions in use for one check.
"""

import importlib
import inspect
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from support import attack_laws as laws
from unperturbed.attacks.base import Attack
from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import GradientAttack
from unperturbed.attacks.multi_targeted import MultiTargeted
from unperturbed.attacks.square import Square
from unperturbed.losses import cross_entropy, margin
from unperturbed.maximise.apgd import APGD
from unperturbed.maximise.pgd import PGD

PGD2 = GradientAttack("PGD", margin, PGD(steps=5), restarts=2)
APGD1 = GradientAttack("APGD", margin, APGD(steps=30))
EOT = GradientAttack("PGD", margin, PGD(steps=5), draws=3)
WIDE = GradientAttack("APGD", margin, APGD(steps=10, wide=True))
TARGETS = MultiTargeted(ascent=PGD(steps=5))
FAB2, SQUARE = FAB(steps=8, restarts=2), Square(queries=40)


@dataclass(frozen=True)
class Sabotage:
    name: str
    module: str
    old: str
    new: str
    attack: Attack
    law: Any
    settings: dict[str, Any]


def bad(name: str, module: str, old: str, new: str, attack: Attack, law: Any, **settings: Any) -> Sabotage:
    return Sabotage(name, f"unperturbed.{module}", old, new, attack, law, settings)


SABOTAGES = (
    bad("wrong sign", "maximise.pgd", "z + length", "z - length", PGD2, laws.reaches_the_worst_margin, share=0.5),
    bad("no projection", "maximise.pgd", "return threat.project(x, z + length * threat.steepest_ascent(z, gradient))",
        "return z + length * threat.steepest_ascent(z, gradient)", PGD2, laws.stays_inside),
    bad("no box", "maximise.pgd", "threat.project(x, z +", "type(threat)(threat.norm, threat.eps, None).project(x, z +",
        PGD2, laws.stays_inside),
    bad("last instead of best", "maximise.ascent", "better = queue.best(counted, best_rank, climbs, enough)",
        "better = queue.active & (k >= trial)", PGD2, laws.keeps_the_best_of_all_it_saw),
    bad("first instead of best", "maximise.ascent", "better = queue.best(counted, best_rank, climbs, enough)",
        "better = queue.active & (best_rank[row] == -torch.inf)", PGD2, laws.keeps_the_best_of_all_it_saw),
    bad("best loss instead of best margin", "attacks.gradient", "margin(logits, y).detach()",
        "self.loss(logits, y).detach()",
        GradientAttack("a", cross_entropy, PGD(steps=5)), laws.stays_inside),
    bad("one restart overwritten", "maximise.ascent", "best_z[row[better]], best_rank[row[better]] = z[better]",
        "best_rank[row[queue.number == 1]] = -torch.inf; best_z[row[better]], best_rank[row[better]] = z[better]", PGD2,
        laws.keeps_the_best_of_all_it_saw),
    bad("restarts alike", "maximise.ascent", "noise.rows(pair).fold(at_least_two(queue.number[seats]))",
        "noise.rows(pair)", PGD2, laws.tries_every_restart),
    bad("one restart too few", "maximise.climb_queue", "self._n * self._climbs",
        "self._n * max(self._climbs - 1, 1)", PGD2, laws.tries_every_restart),
    bad("train mode", "attacks.gradient", "logits = model(z)", "logits = model.train()(z)", PGD2,
        laws.leaves_the_network_alone),
    bad("label off by one", "attacks.gradient", "y = batch.y[rows]", "y = (batch.y[rows] + 1) % 2", PGD2,
        laws.stays_inside),
    bad("labels of the neighbours", "attacks.gradient", "y = batch.y[rows]", "y = batch.y[rows].flip(0)", PGD2,
        laws.reaches_the_worst_margin, share=0.5),
    bad("noise by place", "maximise.ascent", "noise.rows(pair).fold", "noise.rows(seats.new_zeros(len(pair))).fold",
        PGD2, laws.does_not_depend_on_order_or_company),
    bad("broken examples stay", "maximise.ascent", "finished = queue.active & (broken | ~sound |",
        "finished = queue.active & (~sound |", PGD2, laws.leaves_what_is_broken),
    bad("one draw stands for all", "attacks.eot", "for _ in range(self.draws)", "for _ in range(1)", EOT,
        laws.counts_its_passes),
    bad("NaN is robust", "maximise.ascent", "finite[row[queue.active & ~sound]] = False", "pass", PGD2,
        laws.never_calls_the_unknown_robust_or_broken),
    bad("passes not counted", "maximise.ascent", "passes += int(queue.active.sum())", "passes += 1", PGD2,
        laws.counts_its_passes),
    bad("one target only", "attacks.multi_targeted", "self.climb % self.targets.shape[1]", "self.climb * 0 - 1",
        MultiTargeted(ascent=APGD(steps=20)), laws.reaches_the_worst_margin, classes=4, share=0.9),
    bad("momentum the wrong way", "maximise.apgd", "inertia * (z - memory", "inertia * 9 * (memory",
        APGD1, laws.reaches_the_worst_margin, share=0.95),
    bad("no sparsity", "maximise.apgd", 'support / _L1_SHRINK, memory["count"])', 'memory["count"], memory["count"])',
        GradientAttack("APGD", margin, APGD(steps=60)), laws.reaches_the_worst_margin, share=0.99),
    bad("points of larger balls count", "maximise.apgd", "return self._stages(threat)[-1][0]", "return 0", WIDE,
        laws.stays_inside),
    bad("FAB to the wrong side", "attacks.fab", "threat.to_plane(z, slope, -lead)\n        far",
        "threat.to_plane(z, slope, lead)\n        far", FAB(steps=30), laws.breaks_what_can_be_broken),
    bad("FAB outside the box", "attacks.fab", "threat.fixed(x, threat.boxed(moved))", "moved", FAB(steps=30),
        laws.breaks_what_can_be_broken),
    bad("FAB outside the ball", "attacks.fab", "higher[self.threat.contains(self.x[queue.row[higher]], z[higher])]",
        "higher", FAB2, laws.stays_inside),
    bad("FAB forgets the best", "attacks.fab", "self.margin[queue.row[better]] = z[better], margins[better]",
        "self.margin[queue.row[better]] = z[better], margins[better] - 1", FAB2,
        laws.keeps_the_best_of_all_it_saw),
    bad("Square keeps everything", "attacks.square", "better = margins > lead", "better = margins > -torch.inf", SQUARE,
        laws.keeps_the_best_of_all_it_saw),
    bad("Square the wrong way", "attacks.square", "better = margins > lead",
        "better = (margins < lead) | (lead == -torch.inf)", SQUARE, laws.keeps_the_best_of_all_it_saw),
    bad("Square outside the ball", "attacks.patches", "self.threat.project(x, x + way * self.threat.radii(x))",
        "x + 2 * way * self.threat.radii(x)", SQUARE,
        laws.stays_inside),
    bad("Square's draws by torch", "attacks.patches", "fold(queries.flatten()).uniform((5 + channels,))",
        "keys.new_zeros(len(rows), 5 + channels).float().uniform_()", SQUARE, laws.leaves_the_network_alone),
)  # fmt: skip


def sabotage(monkeypatch: pytest.MonkeyPatch, module_name: str, old: str, new: str) -> None:
    """Put the changed source's functions, methods and private classes where the originals are in use."""
    module = importlib.import_module(module_name)
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{old!r} occurs {source.count(old)} times in {module_name}"
    changed = dict(vars(module))
    exec(compile(source.replace(old, new), f"<sabotaged {module_name}>", "exec"), changed)
    for name, original in list(vars(module).items()):
        if getattr(original, "__module__", None) != module_name or name not in changed:
            continue
        if inspect.isclass(original):
            for attribute, function in vars(changed[name]).items():
                if inspect.isfunction(function) and attribute in vars(original):
                    monkeypatch.setattr(original, attribute, function)
        elif callable(original):
            for user in [each for key, each in sys.modules.items() if key.startswith("unperturbed.")]:
                if vars(user).get(name) is original:
                    monkeypatch.setattr(user, name, changed[name])


@pytest.mark.parametrize("each", SABOTAGES, ids=lambda each: each.name)
def test_a_sabotaged_attack_is_found_out(each: Sabotage, monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(monkeypatch, each.module, each.old, each.new)
    with pytest.raises(AssertionError):
        each.law(each.attack, **each.settings)


UNTOUCHED = {(repr(each.attack), each.law.__name__, repr(each.settings)): each for each in SABOTAGES}


@pytest.mark.parametrize(
    "key",
    [pytest.param(key, marks=() if k % 3 == 0 else pytest.mark.slow) for k, key in enumerate(UNTOUCHED)],
    ids=lambda key: key[1],
)
def test_the_same_attack_untouched_passes(key: tuple[str, str, str]) -> None:
    each = UNTOUCHED[key]
    each.law(each.attack, **each.settings)


def test_there_are_twenty() -> None:
    assert len(SABOTAGES) >= 20 and len({each.name for each in SABOTAGES}) == len(SABOTAGES)
