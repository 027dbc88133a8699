"""A hub on this machine, and a run folder to share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.fake_hub import FakeHub, fake_hub
from support.reported import write_images, write_run
from support.sealed import reseal


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder; tests only read it."""
    folder = tmp_path_factory.mktemp("shared")
    return write_run(folder / "a", write_images(folder / "images"))


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the run, with an audit that found nothing, and files that are not to be shared."""
    run = Path(shutil.copytree(made, tmp_path / "a"))
    reseal(run / "audit.json", {"verdict": "no sign of obfuscation", "causes": [], "checks": []})
    (run / "notes.txt").write_text("my notes")
    (run / ".lock").touch()
    return run


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Return a hub, to which the user is logged in."""
    with fake_hub(monkeypatch, str(tmp_path / "cache")) as running:
        yield running
