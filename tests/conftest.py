import os

import hypothesis
import jaxtyping
import pytest
import torch

from support import checking

# The tensors here are small: threads gain nothing, and on a busy machine their waiting for each other costs much.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

hypothesis.settings.register_profile("unperturbed", deadline=None, database=None)
hypothesis.settings.load_profile("unperturbed")

jaxtyping.jaxtyped = checking.check_what_is_new  # what the package's functions are decorated with when it is imported


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rows-by-place", action="store_true", help="round rows by their place in the batch")


@pytest.fixture(autouse=True)
def rounding_of_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this processor be one that rounds rows by their place, where the command line says so."""
    if request.config.getoption("--rows-by-place"):
        from support.rounding import round_by_place  # imports the package, which is decorated above

        round_by_place(monkeypatch)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let wrong types through to the code's own checks, as in a user's program."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
