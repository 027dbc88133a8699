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


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let wrong types through to the code's own checks, as in a user's program."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
