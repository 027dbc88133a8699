"""Every form of command line that the documentation promises is understood."""

from importlib import import_module

import pytest
from test_trees import HERE

from unperturbed.cli.main import COMMANDS
from unperturbed.cli.options import FLAGS, Parsed, parse
from unperturbed.cli.setup import read_bounds
from unperturbed.maximise.langevin import Langevin
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.awp import AWP
from unperturbed.methods.base import Method
from unperturbed.methods.constrained import Constrained
from unperturbed.methods.cure import CURE
from unperturbed.methods.dale import DALE
from unperturbed.methods.fgsm import RS_FGSM
from unperturbed.methods.llr import LLR
from unperturbed.methods.scorpio import SCORPIO
from unperturbed.methods.trades import TRADES
from unperturbed.specs.spec import describe
from unperturbed.specs.trees import Tree, choose
from unperturbed.threat import Threat

LINES = """
unperturbed demo
unperturbed train --data mnist --model small-cnn --threat Linf:0.3 --method at --method.steps 2 --epochs 10 --out runs/a
unperturbed train --data mnist --model small-cnn --threat Linf:0.3 --method trades --epochs 10 --out runs/at --resume
unperturbed train --data mnist --model small-cnn --threat Linf:0.3 --method llr --method.steps 2 --epochs 10 --out l
unperturbed train --data mnist --method scorpio --method.steps 1 --method.product central --method.weight 0.8 --out o
unperturbed train --data cifar10 --examples 10000 --method cure --method.step null --model.activation silu --out o
unperturbed train --data mnist --method constrained --method.method dale --method.method.weight 0 --out o
unperturbed train --data mnist --method constrained --method.nominal_accuracy 0.98 --method.method scorpio --out o
unperturbed train --data digits --method awp --method.method trades --method.method.beta 3 --method.gamma 0.01
unperturbed train --data digits --method dale-laplacian --method.temperature 1e-5 --method.move plain --out o
unperturbed train --data digits --method elle-a --method.weight 100 --out o
unperturbed train --data digits --threat L2:0.5 --bounds none --extra more.npz --track csv,tensorboard --devices 2
unperturbed train --data digits --method.steps 10 --method rs-fgsm --weights w.pt --config run.yaml --device cpu
unperturbed train --data digits --precision auto --seed 3 --batch-size auto --json
unperturbed evaluate runs/at
unperturbed evaluate runs/at --suite pgd --examples 1000 --eps 4/255,8/255 --json
unperturbed evaluate runs/at --suite my_package.attacks:SUITE --threat Linf:8/255 --threat L2:0.5 --quantize
unperturbed evaluate runs/at --device auto --precision 32 --seed 1 --batch-size auto --examples 10 --examples-seed 7
unperturbed evaluate --model small-cnn --weights w.pt --data mnist --threat Linf:0.3 --out runs/other --bounds -1,1
unperturbed curve runs/at --threat Linf:0.4 --examples 1000 --eps 0.1,2/10 --suite standard --json
unperturbed curve --model small-cnn --weights w.pt --data mnist --threat L2:2 --out runs/other --batch-size 64 --seed 2
unperturbed transfer runs/at runs/trades
unperturbed transfer a b c --suite pgd --examples 100 --threat Linf:0.1 --out matrix --json
unperturbed sweep --data digits --method constrained --method.method at --over method.nominal_loss=0.05,0.1 --lr 1
unperturbed sweep --data digits --over seed=0,1 --over method.steps=1,2 --suite pgd --examples 100 --out s --json
unperturbed sweep --data digits --over threat=Linf:0.1,L2:1 --evaluate-threat L2:1 --train-examples 9 --overwrite
unperturbed probable runs/at --rho 0.1,0.01 --draws 1000 --examples 100 --seed 1 --threat L2:0.5 --json
unperturbed certify runs/at --sigma 0.25 --draws 1000 --selection-draws 50 --alpha 0.01 --eps 0,0.5 --threat L2:1 --json
unperturbed methods
unperturbed datasets
unperturbed models
unperturbed methods --json
"""


def understood(line: str) -> Parsed:
    _, command, *words = line.replace(" --config run.yaml", "").split()
    module = import_module(f"unperturbed.cli.{command}")
    return parse(module.parser(), words, module.POSITIONAL)


def method(line: str) -> Method:
    made: Method = choose(understood(line).trees["method"], "methods", "method", default=AT()).build()
    return made


@pytest.mark.parametrize("line", [line for line in LINES.strip().splitlines() if "rs-fgsm" not in line])
def test_a_line_is_understood(line: str) -> None:
    given = understood(line)
    assert given.json == line.endswith("--json")
    if " train " in line:
        assert isinstance(method(line), Method)
    if getattr(given.plain, "threat", None):
        bounds = read_bounds(vars(given.plain).get("bounds"), None)
        assert all(Threat.parse(each, bounds).eps > 0 for each in given.threat.split(","))


def test_every_option_without_a_value_is_known_as_one_and_help_shows_no_types() -> None:
    for command in COMMANDS:
        parser = import_module(f"unperturbed.cli.{command}").parser()
        flags = {action.option_strings[-1].removeprefix("--") for action in parser._actions if action.nargs == 0}
        assert flags - {"help"} <= set(FLAGS), command
        assert "%%" not in parser.format_help() and "type: " not in parser.format_help(), command
    assert understood("unperturbed evaluate runs/at --suite fast --no-gate").no_gate
    assert understood("unperturbed evaluate runs/at --no-gate --suite fast").suite == "fast"


def test_what_a_line_says_arrives() -> None:
    given = understood(LINES.splitlines()[2])
    assert (given.data, given.threat, given.epochs, given.out) == ("mnist", "Linf:0.3", 10, "runs/a")
    assert method(LINES.splitlines()[2]) == AT(PGD(steps=2))
    assert method("unperturbed train --method.step_size 2 --method rs-fgsm") == RS_FGSM(step_size=2.0)
    assert method("unperturbed train --method llr --method.steps 5 --method.form differences") == LLR(
        maximiser=PGD(steps=5), form="differences"
    )
    assert method("unperturbed train --method cure --method.step null") == CURE(step=None)
    assert read_bounds("-1,1", None) == (-1.0, 1.0) and read_bounds("none", (0.0, 1.0)) is None


def test_a_nested_wrapper_is_understood_by_the_train_command() -> None:
    line = (
        f"unperturbed train --data digits --method {HERE}:Outer --method.method {HERE}:Middle "
        "--method.method.nominal_loss 0.3 --method.method.method at --method.method.method.steps 2"
    )
    outer = method(line)
    assert outer.method.nominal_loss == 0.3  # type: ignore[attr-defined]
    assert outer.method.method == AT(PGD(steps=2))  # type: ignore[attr-defined]


def test_the_package_s_own_wrappers_nest() -> None:
    line = (
        "unperturbed train --data digits --method awp --method.gamma 0.02 --method.method constrained "
        "--method.method.nominal_loss 0.3 --method.method.every epoch --method.method.method llr "
        "--method.method.method.steps 3"
    )
    made = method(line)
    assert isinstance(made, AWP) and made.gamma == 0.02
    limited = made.method
    assert isinstance(limited, Constrained) and (limited.nominal_loss, limited.every) == (0.3, "epoch")
    assert limited.method == LLR(maximiser=PGD(steps=3))
    for name, kind in (("trades", TRADES), ("scorpio", SCORPIO)):
        made = method(f"unperturbed train --method constrained --method.method {name} --method.dual_step 0.1")
        assert isinstance(made, Constrained) and made.method == kind() and made.dual_step == 0.1
    written_down = Tree()
    written_down.put([], describe(method(line)))
    again = choose(written_down, "methods", "method").build()
    assert describe(again) == describe(method(line))


def test_dale_s_chain_takes_what_is_passed_on() -> None:
    made = method("unperturbed train --method dale --method.temperature 0.5 --method.steps 4 --method.weight 0")
    assert made == DALE(weight=0.0, maximiser=Langevin(steps=4, temperature=0.5))
