"""Two run folders, made once and copied for tests that damage them."""

import shutil
from pathlib import Path

import pytest

from support.reported import write_images, write_run


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the runs `a` and `b`; tests only read it."""
    folder = tmp_path_factory.mktemp("reported")
    images = write_images(folder / "images")
    for seed, name in enumerate("ab"):
        write_run(folder / name, images, seed)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the run `a`."""
    return Path(shutil.copytree(made / "a", tmp_path / "a"))
