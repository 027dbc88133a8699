"""A cache of local copies for each test, an empty store in memory, and short pauses between attempts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from unperturbed.cli import console
from unperturbed.storage import object_store, writer


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the cache of this machine."""
    monkeypatch.setenv("UNPERTURBED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(object_store, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(writer, "INTERVAL", 0.02)
    monkeypatch.setattr(console, "_shown", {})
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield tmp_path / "cache"
    MemoryFileSystem.store.clear()
