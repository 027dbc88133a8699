"""The public names: each one resolves, has a docstring, and is found by completion."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import unperturbed as un
from unperturbed.catalogue import contents

PACKAGES = ("architectures", "attacks", "maximise", "methods")


@pytest.mark.parametrize("name", un.__all__)
def test_a_public_name_resolves_and_says_what_it_is(name: str) -> None:
    value = getattr(un, name)
    assert name in dir(un)
    if name != "__version__":
        assert inspect.getdoc(value) or value in (un.InputError, un.RunError)


def public() -> dict[str, object]:
    """Return every public name, and what it stands for."""
    named: dict[str, object] = {f"un.{name}": getattr(un, name) for name in un.__all__}
    for package in PACKAGES:
        module = getattr(un, package)
        named |= {f"un.{package}.{name}": getattr(module, name) for name in dir(module)}
    return named


def test_the_page_of_public_names_has_each_of_them_and_no_other() -> None:
    page = (Path(__file__).parents[1] / "docs/api.md").read_text()
    listed = re.findall(r"^\| `(un\.[\w.]+)` \| \S.* \|$", page, re.MULTILINE)
    assert sorted(listed) == sorted(public())


OURS = {
    *("ERM", "Method", "Wrapper", "EpochEnd", "At"),
    *("Attack", "AttackResult", "FunctionAttack", "GradientAttack", "MinimumNorm", "Nearest", "Suite"),
    *("Gate", "ByLogit", "TargetOrder", "Exhaustion", "Descent", "Rule", "Look", "Refining"),
    *("Ascent", "Best", "Maximiser", "ClimbQueue", "Replaced", "Restarts"),
    *("MLP", "Normalise"),
}
"""Classes that are from no paper: ordinary training and networks, base classes, results, and combinations of parts."""


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_from_a_paper_names_it_with_its_address(package: str) -> None:
    module = getattr(un, package)
    without = {name for name in dir(module) if "https://" not in (inspect.getdoc(getattr(module, name)) or "")}
    assert without == OURS & set(dir(module))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_table_of_contents_has_every_class_of_every_file(package: str) -> None:
    module = getattr(un, package)
    for name, home in contents(f"unperturbed.{package}").items():
        value = getattr(module, name)
        assert inspect.isclass(value) and value.__module__ == home and inspect.getdoc(value)
    assert dir(module) == sorted(contents(f"unperturbed.{package}"))


def test_one_import_gives_a_method_a_maximiser_and_a_network() -> None:
    assert un.methods.TRADES(maximiser=un.maximise.PGD(steps=3)).name == "trades"
    assert un.architectures.SmallCNN(input_shape=(1, 8, 8), classes=10)(un.load_data("digits").train.x[:2]).shape == (
        2,
        10,
    )


@pytest.mark.parametrize("owner", [un, un.methods])
def test_an_unknown_name_is_an_attribute_error(owner: object) -> None:
    with pytest.raises(AttributeError, match="Nonsense"):
        getattr(owner, "Nonsense")  # noqa: B009


def test_the_import_loads_nothing_heavy() -> None:
    code = "import unperturbed, sys; dir(unperturbed); print(*{'torch', 'numpy', 'matplotlib'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_import_takes_little_time() -> None:
    """In seconds of the processor, so that other programs on the machine do not count."""
    code = "import time; began = time.process_time(); import unperturbed; print(time.process_time() - began)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.3
