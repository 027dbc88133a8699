import pytest

from support.toys import linear, uniform
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate, find_suite
from unperturbed.suites.autoattack import PLUS, STANDARD
from unperturbed.suites.by_name import ATTACKS, custom
from unperturbed.suites.fast import FAST
from unperturbed.suites.patch import PATCH
from unperturbed.suites.pgd import PGD_SUITE
from unperturbed.suites.sparse import SPARSE
from unperturbed.threat import Threat


def test_attacks_are_those_of_their_suites_in_the_order_given() -> None:
    suite = custom(["Square", "apgd-ce", " APGD-DLR", "pgd-margin"])
    assert suite.attacks == (STANDARD.attacks[3], STANDARD.attacks[0], PLUS.attacks[1], PGD_SUITE.attacks[1])
    assert suite.against("L1", 10).attacks == (STANDARD.l1[3], STANDARD.l1[0], PLUS.l1[1], PGD_SUITE.attacks[1])
    assert custom(["apgd-ce", "apgd-t", "fab-t", "square"]).attacks == STANDARD.attacks
    built_in = (*PGD_SUITE.attacks, *PLUS.attacks, *STANDARD.attacks, *SPARSE.attacks, *PATCH.attacks, *FAST.attacks)
    assert {attack.label for attack in built_in} == {custom([name]).attacks[0].label for name in ATTACKS}


def test_its_name_and_note_say_what_ran() -> None:
    suite = custom(["apgd-t", "square"])
    assert suite.name == "custom-apgd-t_square" and "APGD-T, Square alone, not all of AutoAttack" in suite.note
    assert "margin in place of DLR" in suite.against("Linf", 3).note
    assert "margin in place of DLR" not in custom(["square"]).against("Linf", 3).note


@pytest.mark.slow
def test_an_evaluation_takes_it_by_name() -> None:
    x, model = uniform(30, 6), linear(6, 2)
    data, threat = (x, model(x).argmax(1)), Threat("Linf", 0.03)
    outcome = evaluate(model, data, threat, "apgd-ce,fab-t")
    assert [attack.name for attack in outcome.attacks] == ["APGD-CE", "FAB-T"] and 0 < outcome.counts["broken"] < 30
    assert outcome.suite == "custom-apgd-ce_fab-t"
    assert find_suite("Square") == custom(["square"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("apgd-ce,squrae", "no attack 'squrae'. Did you mean 'square'"),
        ("fab,square,fab", "'fab' is given twice"),
        ("fab,", "no attack ''"),
    ],
)
def test_what_is_no_attack_is_told(names: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_suite(names)
