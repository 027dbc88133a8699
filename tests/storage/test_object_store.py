"""Requests: repeated if they fail, given up in a sentence, and never answered by something else than the object."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unperturbed.errors import InputError
from unperturbed.storage import object_store
from unperturbed.storage.object_store import ObjectStore, StorageError


class Failing:
    """A client whose calls fail `times` times, before or after they have reached the store."""

    def __init__(self, inner: Any, times: int, error: Exception, after: bool = False) -> None:
        self.inner, self.times, self.error, self.after, self.calls = inner, times, error, after, 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self.inner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls > self.times:
                return function(*args, **kwargs)
            if self.after:
                function(*args, **kwargs)
            raise self.error

        return call


def failing(times: int, error: Exception, after: bool = False) -> ObjectStore:
    store = ObjectStore("memory://bucket/run")
    store.files = Failing(store.files, times, error, after)
    return store


def test_objects_are_written_read_listed_and_deleted(tmp_path: Path) -> None:
    store = ObjectStore("memory://bucket/run")
    assert store.names("objects") == []
    (tmp_path / "file").write_bytes(b"abc")
    store.write("objects/a", b"1")
    store.upload(tmp_path / "file", "objects/b")
    assert store.names("objects") == ["a", "b"] and store.read("objects/b") == b"abc"
    store.download("objects/b", tmp_path / "copy", 3)
    assert (tmp_path / "copy").read_bytes() == b"abc"
    assert {name: about["size"] for name, about in store.details().items()} == {"objects/a": 1, "objects/b": 3}
    store.delete(["objects/a", "objects/missing"])
    assert store.names("objects") == ["b"]
    with pytest.raises(FileNotFoundError):
        store.read("objects/a")


def test_a_new_object_replaces_none() -> None:
    store = ObjectStore("memory://bucket/run")
    store.write("a", b"1", new=True)
    with pytest.raises(FileExistsError):
        store.write("a", b"2", new=True)
    assert store.read("a") == b"1"


@pytest.mark.parametrize("after", [False, True])
def test_a_request_is_attempted_eight_times(after: bool) -> None:
    store = failing(7, ConnectionError("reset"), after)
    store.write("a", b"1")
    assert store.files.calls == 8 and ObjectStore("memory://bucket/run").read("a") == b"1"
    with pytest.raises(StorageError, match="failed 8 times .ConnectionError: reset.: check the network"):
        failing(8, ConnectionError("reset")).read("a")


def test_a_missing_object_is_asked_for_once() -> None:
    store = failing(8, FileNotFoundError("a"))
    with pytest.raises(FileNotFoundError):
        store.read("a")
    assert store.files.calls == 1


def test_a_refusal_is_no_failure_of_the_network() -> None:
    with pytest.raises(InputError, match="memory://bucket/run refused the access .*: check the credentials"):
        failing(8, PermissionError("403")).read("a")


def test_a_missing_bucket_is_named() -> None:
    with pytest.raises(InputError, match="cannot be written .*: make the bucket first"):
        failing(8, FileNotFoundError("The specified bucket does not exist")).write("a", b"")


def test_a_download_of_other_bytes_counts_as_failed(tmp_path: Path) -> None:
    store, file = ObjectStore("memory://bucket/run"), tmp_path / "file"
    store.write("a", b"whole")
    sizes = iter([False, False, True])
    store.download("a", file, 5, lambda: next(sizes))
    with pytest.raises(StorageError, match="the bytes that arrived are not those of the object"):
        store.download("a", file, 5, lambda: False)


def test_a_request_without_an_answer_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    store, never = ObjectStore("memory://bucket/run"), threading.Event()
    store.write("a", b"1")
    answer, calls = store.files.cat_file, list[int]()

    def slow(path: str) -> Any:
        calls.append(1)
        if len(calls) == 1:
            never.wait(30)
        return answer(path)

    store.files = type("Slow", (), {"cat_file": staticmethod(slow)})
    monkeypatch.setattr(object_store, "SECONDS", 0.05)
    assert store.read("a") == b"1" and len(calls) == 2
    never.set()


def test_the_missing_package_of_a_scheme_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def missing(*args: Any, **kwargs: Any) -> Any:
        raise ImportError("no gcsfs")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(InputError, match="gs://bucket/run needs the package gcsfs, which is missing: pip inst"):
        ObjectStore("gs://bucket/run")
