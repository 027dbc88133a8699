"""Options of options become objects."""

import sys
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pytest

from unperturbed.cli.options import new_parser, parse
from unperturbed.errors import InputError
from unperturbed.maximise.ascent import Maximiser
from unperturbed.maximise.pgd import PGD
from unperturbed.maximise.restarts import Restarts
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method
from unperturbed.methods.trades import TRADES
from unperturbed.noise import Noise
from unperturbed.specs.parameters import convert
from unperturbed.specs.spec import describe
from unperturbed.specs.trees import Tree, choose
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Model, Terms

HERE = __name__


class Passing(Method):
    """An method that does what another one does."""

    method: Method

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        return self.method.perturb(model, batch, threat, noise)

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        return self.method.loss(model, batch, inner, threat, noise)


@dataclass(frozen=True)
class Outer(Passing):
    method: Method = field(default_factory=AT)
    gamma: float = 0.005


@dataclass(frozen=True)
class Middle(Passing):
    method: Method = field(default_factory=TRADES)
    nominal_loss: float = 1.0
    tag: str = "x"


class Bare(Passing):
    def __init__(self, method, strength=2, quiet=False) -> None:  # type: ignore[no-untyped-def]
        self.method, self.strength, self.quiet = method, strength, quiet


class Needy(Passing):
    def __init__(self, method: Method, weight: float) -> None:
        self.method, self.weight = method, weight


@dataclass(frozen=True)
class Tuned(Passing):
    """Its default maximiser differs from the default of its class in more than one setting."""

    name: ClassVar[str] = "tuned"
    maximiser: Maximiser = field(default_factory=lambda: Restarts(PGD(steps=3, step_size=0.5, random_start=False), 4))


def method(*words: str) -> Any:
    parser = new_parser("train", "")
    parser.add_argument("--method", type=str | None)
    return choose(parse(parser, words).trees["method"], "methods", "method", default=AT()).build()


def test_a_short_name_gives_the_class_with_its_defaults() -> None:
    assert method("--method", "trades") == TRADES()
    assert method() == AT()


def test_an_option_of_the_class_is_set_and_typed() -> None:
    assert method("--method", "trades", "--method.beta", "1e-1") == TRADES(beta=0.1)


def test_an_option_may_come_before_the_name_that_it_belongs_to() -> None:
    assert method("--method.beta", "3", "--method=trades") == TRADES(beta=3)


def test_an_option_of_the_default_maximiser_is_passed_on_to_it() -> None:
    assert method("--method", "at", "--method.steps", "10") == AT(PGD(steps=10))
    assert method("--method.steps", "10", "--method.step_size", "0.1") == AT(PGD(steps=10, step_size=0.1))


def test_passing_an_option_on_keeps_the_other_settings_of_the_default() -> None:
    tuned = method("--method", f"{HERE}:Tuned", "--method.steps", "9")
    assert tuned.maximiser == Restarts(PGD(steps=9, step_size=0.5, random_start=False), 4)


def test_a_maximiser_is_named_by_its_short_name_and_then_takes_what_is_passed_on() -> None:
    assert method("--method.maximiser", "restarts", "--method.count", "3") == AT(Restarts(PGD(), 3))
    assert method("--method.maximiser", "pgd", "--method.steps", "4", "--method.maximiser.step_size", "1") == AT(
        PGD(steps=4, step_size=1.0)
    )


def test_wrappers_nest_to_any_depth() -> None:
    words = f"--method {HERE}:Outer --method.method {HERE}:Middle --method.method.nominal_loss 0.3".split()
    words += "--method.method.method at --method.method.method.steps 2".split()
    assert method(*words) == Outer(Middle(AT(PGD(steps=2)), nominal_loss=0.3))


def test_options_of_a_wrappers_default_objective_leave_the_rest_of_it_alone() -> None:
    assert method("--method", f"{HERE}:Middle", "--method.method.steps", "2") == Middle(TRADES(maximiser=PGD(2)))


def test_a_class_without_annotations_takes_names_numbers_and_switches() -> None:
    words = f"--method {HERE}:Bare --method.method at --method.method.steps 2 --method.strength 1e-3".split()
    bare = method(*words, "--method.quiet", "true")
    assert (bare.method, bare.strength, bare.quiet) == (AT(PGD(steps=2)), 0.001, True)


def test_a_text_option_stays_text_when_it_looks_like_a_number() -> None:
    assert method("--method", f"{HERE}:Middle", "--method.tag", "12").tag == "12"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--method", "tradse"], ["tradse", "Did you mean 'trades'"]),
        (["--method", "trades", "--method.bta", "1"], ["'bta'", "trades", "Did you mean 'beta'"]),
        (["--method", "at", "--method.stps", "1"], ["'stps'", "Did you mean 'steps'"]),
        (["--method", "erm", "--method.steps", "1"], ["'steps'", "erm", "There are none"]),
        (["--method", "trades", "--method.beta", "much"], ["--method.beta", "'much'", "a number"]),
        (["--method.maximiser", "pgdd"], ["--method.maximiser", "Did you mean 'pgd'"]),
        (["--method", f"{HERE}:Outr"], ["Outr", "Did you mean 'Outer'"]),
        (["--method", "nowhere.at_all:Thing"], ["nowhere", "cannot be imported"]),
        (["--method", f"{HERE}:Threat"], ["Threat", "not a subclass", "Method"]),
        (["--method", f"{HERE}:Needy", "--method.method", "at"], ["needs", "--method.weight"]),
        (["--method", f"{HERE}:Bare"], ["needs", "--method.method"]),
        (["--method", f"{HERE}:Bare", "--method.method.steps", "3"], ["--method.method, which is not named"]),
        (["--method", "constrained", "--method.method.weight", "0"], ["no option 'weight' for at"]),
        (["--method.steps", "0"], ["steps is 0"]),
        (["--methd", "at"], ["--methd", "Did you mean '--method'"]),
        (["--method"], ["--method needs a value"]),
        (["at"], ["'at'", "too many"]),
    ],
)
def test_a_mistake_is_named_with_its_remedy(words: list[str], parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        method(*words)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_what_is_written_makes_the_same_object_again() -> None:
    for made in (TRADES(beta=2, maximiser=PGD(steps=3)), Outer(Middle(Tuned(), 0.1)), AT(Restarts(PGD(7), 3))):
        tree = Tree()
        tree.put([], describe(made))
        assert choose(tree, "methods", "method").build() == made


def test_what_is_written_uses_short_names_and_shows_every_setting() -> None:
    assert describe(AT()) == {
        "class_path": "at",
        "init_args": {
            "maximiser": {"class_path": "pgd", "init_args": {"steps": 7, "step_size": None, "random_start": True}}
        },
    }
    assert describe(Outer())["class_path"] == f"{HERE}:Outer"


def test_another_name_drops_the_options_that_a_file_gave_below_it() -> None:
    below, above = Tree(), Tree()
    below.put([], {"class_path": "trades", "init_args": {"beta": 3}})
    above.put(["maximiser", "steps"], 2)
    assert choose(below.under(above), "methods", "method").build() == TRADES(beta=3, maximiser=PGD(2))
    above.put([], "at")
    assert choose(below.under(above), "methods", "method").build() == AT(PGD(steps=2))


def test_convert_reads_what_annotations_say() -> None:
    assert convert("[64, 64]", tuple[int, ...], "--x") == (64, 64)
    assert convert("null", float | None, "--x") is None
    assert convert([1, 2], list[int], "--x") == [1, 2]
    with pytest.raises(InputError, match="--x is '8/255', but must be a number"):
        convert("8/255", float, "--x")
    with pytest.raises(InputError, match="--x is 'central', but must be 'exact' or 'differences'."):
        convert("central", Literal["exact", "differences"], "--x")


def test_this_module_can_be_imported_by_its_name() -> None:
    assert sys.modules[HERE].Outer is Outer
