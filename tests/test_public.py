"""The public names: each one resolves, has a docstring, and is found by completion."""

import inspect
import subprocess
import sys

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
