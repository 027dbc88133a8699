"""Every form of command line that the documentation promises is understood."""

from importlib import import_module

import pytest
from test_trees import HERE

from unperturbed.cli.options import Parsed, parse
from unperturbed.cli.subject import read_bounds
from unperturbed.cli.trees import choose
from unperturbed.maximise.pgd import PGD
from unperturbed.objectives.at import AT
from unperturbed.objectives.base import Objective
from unperturbed.objectives.cure import CURE
from unperturbed.objectives.fgsm import RS_FGSM
from unperturbed.objectives.llr import LLR
from unperturbed.threat import Threat

LINES = """
unperturbed demo
unperturbed train --data mnist --model small-cnn --threat Linf:0.3 --method at --method.steps 2 --epochs 10 --out runs/a
unperturbed train --data mnist --model small-cnn --threat Linf:0.3 --method trades --epochs 10 --out runs/at --resume
unperturbed train --data mnist --model small-cnn --threat Linf:0.3 --method llr --method.steps 2 --epochs 10 --out l
unperturbed train --data mnist --method scorpio --method.steps 1 --method.product central --method.weight 0.8 --out o
unperturbed train --data cifar10 --examples 10000 --method cure --method.step null --model.activation silu --out o
unperturbed train --data digits --method elle-a --method.weight 100 --out o
unperturbed train --data digits --threat L2:0.5 --bounds none --extra more.npz --loggers csv,tensorboard --devices 2
unperturbed train --data digits --method.steps 10 --method rs-fgsm --weights w.pt --config run.yaml --device cpu
unperturbed train --data digits --precision auto --seed 3 --batch-size auto --json
unperturbed evaluate runs/at
unperturbed evaluate runs/at --suite pgd --examples 1000 --eps 4/255,8/255 --json
unperturbed evaluate runs/at --device auto --precision 32 --seed 1 --batch-size auto --examples 10 --examples-seed 7
unperturbed evaluate --model small-cnn --weights w.pt --data mnist --threat Linf:0.3 --out runs/other --bounds -1,1
unperturbed transfer runs/at runs/trades
unperturbed transfer a b c --suite pgd --examples 100 --threat Linf:0.1 --out matrix --json
unperturbed methods
unperturbed datasets
unperturbed models
unperturbed methods --json
"""


def understood(line: str) -> Parsed:
    _, command, *words = line.replace(" --config run.yaml", "").split()
    module = import_module(f"unperturbed.cli.{command}")
    return parse(module.parser(), words, module.POSITIONAL)


def method(line: str) -> Objective:
    made: Objective = choose(understood(line).trees["method"], "objectives", "method", default=AT()).build()
    return made


@pytest.mark.parametrize("line", [line for line in LINES.strip().splitlines() if "rs-fgsm" not in line])
def test_a_line_is_understood(line: str) -> None:
    given = understood(line)
    assert given.json == line.endswith("--json")
    if " train " in line:
        assert isinstance(method(line), Objective)
    if getattr(given.plain, "threat", None):
        assert Threat.parse(given.threat, read_bounds(given.bounds, None)).eps > 0


def test_what_a_line_says_arrives() -> None:
    given = understood(LINES.splitlines()[2])
    assert (given.data, given.threat, given.epochs, given.out) == ("mnist", "Linf:0.3", 10, "runs/a")
    assert method(LINES.splitlines()[2]) == AT(PGD(steps=2))
    assert method("unperturbed train --method.step_size 2 --method rs-fgsm") == RS_FGSM(step_size=2.0)
    assert method("unperturbed train --method llr --method.steps 5 --method.form central") == LLR(
        maximiser=PGD(steps=5), form="central"
    )
    assert method("unperturbed train --method cure --method.step null") == CURE(step=None)
    assert read_bounds("-1,1", None) == (-1.0, 1.0) and read_bounds("none", (0.0, 1.0)) is None


def test_a_nested_wrapper_is_understood_by_the_train_command() -> None:
    line = (
        f"unperturbed train --data digits --method {HERE}:Outer --method.objective {HERE}:Middle "
        "--method.objective.nominal_loss 0.3 --method.objective.objective at --method.objective.objective.steps 2"
    )
    outer = method(line)
    assert outer.objective.nominal_loss == 0.3  # type: ignore[attr-defined]
    assert outer.objective.objective == AT(PGD(steps=2))  # type: ignore[attr-defined]
