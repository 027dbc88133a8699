"""Folders in a store as folders here: what is published comes back, whoever was killed, and nothing else does."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unperturbed.errors import InputError, RunError
from unperturbed.runs.files import FolderLostError, append_jsonl, write_text
from unperturbed.runs.lock import InUseError
from unperturbed.storage import object_store, opened, writer
from unperturbed.storage.local_copy import scan
from unperturbed.storage.manifest import Manifest, claim, newest, numbers, place_of, put
from unperturbed.storage.object_store import ObjectStore, StorageError
from unperturbed.storage.opened import all_files, copy_to, opened_file, published, read_copy, results_and_weights

URL = "memory://bucket/runs/at"


def store() -> ObjectStore:
    return ObjectStore(URL)


def content(folder: Path) -> dict[str, str]:
    return {path: (folder / path).read_text() for path in scan(folder)}


def stored() -> dict[str, str]:
    """Return the content that a reader on a machine without a copy sees."""
    with opened.opened(URL, writing=False) as folder:
        return content(folder)


@contextmanager
def another_machine(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("UNPERTURBED_CACHE", str(folder))
        yield


@contextmanager
def killed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Write into the folder as a process that is killed at the end of the block.

    Nothing is published any more once the file `frozen` next to the folder is there.
    """
    publish = writer.Writer.publish

    def publish_or_not(self: writer.Writer, ended: bool = False) -> None:
        if not self.copy.record.with_name("frozen").exists():
            publish(self, ended)

    with monkeypatch.context() as patch:
        patch.setattr(writer.Writer, "publish", publish_or_not)
        patch.setattr(writer.Writer, "end", lambda self: (self._ended.set(), self._thread.join()))
        with opened.opened(URL) as folder:
            yield folder
    manifest, _ = newest(store())
    if manifest is not None and manifest.holder is not None:  # its process is no longer there
        dead = replace(manifest, number=manifest.number, holder=replace(manifest.holder, pid=2**22 + 1))
        store().write(place_of(manifest.number), dead.encoded())


def until(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def named(path: str) -> bool:
    manifest, _ = newest(store())
    return manifest is not None and path in manifest.files


def test_what_is_written_is_published_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened.opened(URL) as folder:
        assert folder.name == "at" and not folder.exists()
        write_text(folder / "config.yaml", "a: 1")
        write_text(folder / "evaluation" / "pgd.json", "{}")
        write_text(folder / ".lock.json", "hidden")
        (folder / "link").symlink_to(folder / "config.yaml")
    assert stored() == {"config.yaml": "a: 1", "evaluation/pgd.json": "{}"}
    with another_machine(monkeypatch, tmp_path / "other"), opened.opened(URL) as folder:
        assert content(folder) == {"config.yaml": "a: 1", "evaluation/pgd.json": "{}"}
        (folder / "config.yaml").unlink()
        write_text(folder / "evaluation" / "pgd.json", "[]")
    assert stored() == {"evaluation/pgd.json": "[]"}
    with opened.opened(URL) as folder:  # on the first machine, whose copy is older now
        assert content(folder) == {"evaluation/pgd.json": "[]"}


def test_changes_are_published_while_the_block_runs() -> None:
    with opened.opened(URL) as folder:
        write_text(folder / "a", "1")
        until(lambda: named("a"))
        append_jsonl(folder / "metrics.jsonl", {"epoch": 1})
        until(lambda: named("metrics.jsonl"))
        append_jsonl(folder / "metrics.jsonl", {"epoch": 2})
        (folder / "a").unlink()
        until(lambda: not named("a"))
        assert stored() == {"metrics.jsonl": '{"epoch": 1}\n{"epoch": 2}\n'}


def test_an_error_publishes_as_well_and_a_folder_without_files_leaves_nothing() -> None:
    with pytest.raises(ValueError), opened.opened(URL):
        raise ValueError
    assert store().details() == {}
    with pytest.raises(KeyboardInterrupt), opened.opened(URL) as folder:
        write_text(folder / "a", "1")
        raise KeyboardInterrupt
    assert stored() == {"a": "1"}
    assert newest(store())[0] is not None and newest(store())[0].holder is None  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_content_is_uploaded_once_and_old_objects_are_deleted() -> None:
    with opened.opened(URL) as folder:
        write_text(folder / "last", "1" * 100)
        until(lambda: named("last"))
        for value in "234567":
            os.replace(folder / "last", folder / "previous")
            write_text(folder / "last", value * 100)
            until(lambda value=value: stored() == {"last": value * 100, "previous": str(int(value) - 1) * 100})  # type: ignore[misc]
        written = len(store().names("objects"))
    assert written <= 3 and len(numbers(store())) == 2  # the last two manifests name three contents
    manifest, _ = newest(store())
    assert manifest is not None and {entry.name for entry in manifest.files.values()} <= set(store().names("objects"))


@pytest.mark.long
@pytest.mark.slow
def test_a_file_is_published_as_it_was_between_two_writes() -> None:
    """`b` is always written after `a`, so that no reader may see it ahead."""
    with opened.opened(URL) as folder:
        ended = threading.Event()

        def write() -> None:
            for value in range(400):
                write_text(folder / "a", str(value))
                write_text(folder / "b", str(value))
            ended.set()

        thread = threading.Thread(target=write)
        thread.start()
        seen = list[tuple[int, int]]()
        while not ended.is_set():
            if named("b"):
                files = stored()
                seen.append((int(files["a"]), int(files["b"])))
        thread.join()
    assert len(seen) > 2 and all(b <= a <= b + 1 for a, b in seen) and seen == sorted(seen)
    assert stored() == {"a": "399", "b": "399"}


def test_files_that_change_while_they_are_copied_are_copied_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "INTERVAL", 1000.0)
    copyfile, copied = shutil.copyfile, list[Path]()

    def copy_and_write(source: Path, target: Path) -> None:
        copyfile(source, target)
        copied.append(source)
        if len(copied) == 1:
            for name in "ab":
                write_text(source.with_name(name), "2")

    with opened.opened(URL) as folder:
        for name in "ab":
            write_text(folder / name, "1")
        monkeypatch.setattr(shutil, "copyfile", copy_and_write)
    assert stored() == {"a": "2", "b": "2"} and len(copied) == 4


def test_a_reader_whose_objects_are_deleted_reads_the_newer_state(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in "12":
        with opened.opened(URL) as folder:
            write_text(folder / "a", value)
    manifest, _ = newest(store())
    assert manifest is not None
    old = replace(manifest, files={"a": replace(manifest.files["a"], name="0123456789abcdef-00000000")})
    states = iter([old, manifest])
    monkeypatch.setattr(opened, "newest", lambda store: (next(states), 9))
    assert stored() == {"a": "2"}


def test_an_object_whose_bytes_are_others_is_not_read() -> None:
    with opened.opened(URL) as folder:
        write_text(folder / "a", "right")
    for name in store().names("objects"):
        store().write(f"objects/{name}", b"wrong")
    with pytest.raises(StorageError, match="the bytes that arrived are not those of the object"):
        stored()


def test_a_lost_object_is_an_error() -> None:
    with opened.opened(URL) as folder:
        write_text(folder / "a", "1")
    store().delete([f"objects/{name}" for name in store().names("objects")])
    with pytest.raises(StorageError, match="Objects of memory://bucket/runs/at are missing"):
        stored()


def test_a_killed_writer_is_followed_on_the_same_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with killed_at_the_end(monkeypatch) as folder:
        write_text(folder / "a", "1")
        until(lambda: named("a"))
        (folder.parent / "frozen").touch()
        write_text(folder / "a", "2")
        write_text(folder / "b", "2")
    assert stored() == {"a": "1"}
    with opened.opened(URL) as folder:
        assert content(folder) == {"a": "2", "b": "2"}
    assert stored() == {"a": "2", "b": "2"}


def test_a_killed_writer_is_followed_on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with killed_at_the_end(monkeypatch) as folder:
        write_text(folder / "a", "1")
        until(lambda: named("a"))
        (folder.parent / "frozen").touch()
        write_text(folder / "a", "unpublished")
    with another_machine(monkeypatch, tmp_path / "other"), opened.opened(URL) as folder:
        assert content(folder) == {"a": "1"}
        write_text(folder / "a", "2")
    with opened.opened(URL) as folder:
        assert content(folder) == {"a": "2"}
        kept = list(folder.parent.glob("unpublished-*/at/a"))
    assert [path.read_text() for path in kept] == ["unpublished"]


def test_objects_that_a_killed_writer_left_are_deleted() -> None:
    store().write("objects/0123456789abcdef-00000000", b"left")
    put(store(), Manifest(1, "aaaa", None, {}))
    with opened.opened(URL) as folder:
        write_text(folder / "a", "1")
    assert "0123456789abcdef-00000000" not in store().names("objects") and stored() == {"a": "1"}


def test_files_that_a_cleaner_removed_from_the_copy_come_back() -> None:
    with opened.opened(URL) as folder:
        write_text(folder / "a", "1")
        write_text(folder / "b", "1")
    (folder / "a").unlink()
    with opened.opened(URL) as folder:
        assert content(folder) == {"a": "1", "b": "1"}
    assert stored() == {"a": "1", "b": "1"}


def test_a_folder_deleted_from_the_store_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    with opened.opened(URL) as folder:
        write_text(folder / "evaluation" / "a", "1")
    store().delete(list(store().details()))
    with opened.opened(URL) as folder:
        assert not folder.exists()
    assert store().details() == {} and not caplog.records


def test_files_that_are_not_needed_stay_in_the_store_and_remain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened.opened(URL) as folder:
        write_text(folder / "best.safetensors", "1")
        write_text(folder / "checkpoints" / "last.pt", "2")
    with another_machine(monkeypatch, tmp_path / "other"):
        with opened.opened(URL, needs=results_and_weights) as folder:
            assert content(folder) == {"best.safetensors": "1"}
            write_text(folder / "evaluation" / "pgd.json", "3")
        assert set(stored()) == {"best.safetensors", "checkpoints/last.pt", "evaluation/pgd.json"}
        with opened.opened(URL) as folder:
            assert set(content(folder)) == {"best.safetensors", "checkpoints/last.pt", "evaluation/pgd.json"}


def test_a_second_writer_is_refused_and_a_reader_is_not() -> None:
    with opened.opened(URL) as folder:
        write_text(folder / "a", "1")
        until(lambda: named("a"))
        with pytest.raises(InUseError, match="in use by another process on this machine"), opened.opened(URL):
            pass
        assert stored() == {"a": "1"}
        write_text(folder / "b", "1")
    assert stored() == {"a": "1", "b": "1"}


def test_a_second_writer_on_another_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened.opened(URL), another_machine(monkeypatch, tmp_path / "other"):
        with pytest.raises(InUseError, match="is being written by process"), opened.opened(URL):
            pass


def test_a_writer_that_was_taken_for_dead_stops_and_publishes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="took this process for dead"):
        with opened.opened(URL) as folder:
            write_text(folder / "a", "mine")
            until(lambda: named("a"))
            monkeypatch.setattr("unperturbed.storage.manifest._is_alive", lambda *_: False)
            _, theirs = claim(store())
            theirs = put(store(), replace(theirs, number=theirs.number + 1))

            def write_on() -> None:
                write_text(folder / "a", str(time.monotonic()))

            with pytest.raises(FolderLostError, match="took this process for dead"):
                until(write_on)
    assert newest(store())[0] == theirs
    write_text(folder / "a", "this process may write again")


def test_failed_requests_delay_and_lose_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(object_store, "TRIES", 1)
    pipe, failures = ObjectStore("memory://x").files.pipe_file, list[str]()

    def failing(self: Any, path: str, *args: Any, **kwargs: Any) -> Any:
        if len(failures) < 5:
            failures.append(path)
            raise ConnectionError("reset")
        return pipe(path, *args, **kwargs)

    with opened.opened(URL) as folder:
        monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.pipe_file", failing)
        write_text(folder / "a", "1")
        until(lambda: named("a"))
    assert stored() == {"a": "1"} and len(failures) == 5
    assert [record.getMessage()[:42] for record in caplog.records] == ["The last changes are not published yet (A "]


def test_changes_that_cannot_be_published_are_kept_for_the_next_command(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(object_store, "TRIES", 1)
        with pytest.raises(RunError, match="The last changes are not published: they are in .*/at, and the next"):
            with opened.opened(URL) as folder:
                write_text(folder / "a", "1")
                until(lambda: named("a"))
                write_text(folder / "a", "2")

                def down(self: Any, path: str, *args: Any, **kwargs: Any) -> Any:
                    raise ConnectionError("no route")

                patch.setattr("fsspec.implementations.memory.MemoryFileSystem.pipe_file", down)
                patch.setattr("fsspec.spec.AbstractFileSystem.put_file", down)
    manifest, _ = newest(store())
    assert manifest is not None and manifest.holder is not None
    gone = replace(manifest, holder=replace(manifest.holder, pid=2**22 + 1))
    store().write(place_of(manifest.number), gone.encoded())
    with opened.opened(URL) as folder:
        assert content(folder) == {"a": "2"}
    assert stored() == {"a": "2"}


def test_a_folder_that_does_not_exist_is_not_read() -> None:
    with pytest.raises(InputError, match=f"There is no run folder {URL}: check the address"):
        stored()


def test_a_process_that_this_one_starts_gets_the_same_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened.opened(URL) as folder:
        monkeypatch.setenv("LOCAL_RANK", "1")
        with opened.opened(URL) as again:
            assert again == folder
        monkeypatch.delenv("LOCAL_RANK")
    assert opened.OPENED not in os.environ
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(InputError, match="With another launcher, such as torchrun, give a folder"), opened.opened(URL):
        pass


def test_a_folder_within_a_published_one_is_opened_there() -> None:
    with opened.opened("memory://bucket/sweep") as folder:
        write_text(folder / "seed-0" / "config.yaml", "a")
    with opened.opened("memory://bucket/sweep/seed-0") as run:
        assert content(run) == {"config.yaml": "a"}
        write_text(run / "evaluation" / "pgd.json", "b")
    with opened.opened("memory://bucket/sweep", writing=False) as folder:
        assert set(content(folder)) == {"seed-0/config.yaml", "seed-0/evaluation/pgd.json"}
    assert numbers(ObjectStore("memory://bucket/sweep/seed-0")) == []


def test_a_copy_is_read_again_where_it_has_changed(tmp_path: Path) -> None:
    for value in "12":
        with opened.opened(URL) as folder:
            write_text(folder / "a", value)
        read = read_copy(URL, all_files)
        assert content(read) == {"a": value} and read != folder
    copy_to(URL, tmp_path / "out")
    assert content(tmp_path / "out") == {"a": "2"}
    with pytest.raises(InputError, match="There is no folder memory://bucket/runs/at/nothing"):
        copy_to(f"{URL}/nothing", tmp_path / "nothing")


def test_a_file_is_uploaded_under_its_own_name_at_the_end_of_the_block_only() -> None:
    with opened_file("memory://bucket/page.html") as path:
        path.write_text("page")
    assert ObjectStore("memory://bucket").read("page.html") == b"page"
    with pytest.raises(ValueError), opened_file("memory://bucket/other.html") as path:
        path.write_text("half")
        raise ValueError
    assert ObjectStore("memory://bucket").names("") == ["page.html"]


def test_a_repository_of_the_hub_is_no_place_for_results() -> None:
    with pytest.raises(InputError, match="hf://user/name: a run goes to a repository of the hub by `unperturbed push`"):
        with opened.opened("hf://user/name"):
            pass


def test_a_function_with_out_publishes() -> None:
    @published(all_files)
    def work(text: str, *, out: Path | str | None = None) -> str:
        if out is not None:
            write_text(Path(out) / "a", text)
        return text

    assert work("1") == "1" and work("2", out=URL) == "2"
    assert stored() == {"a": "2"} and work.__name__ == "work"


def test_the_cache_may_be_deleted(cache: Path) -> None:
    with opened.opened(URL) as folder:
        write_text(folder / "a", "1")
    shutil.rmtree(cache)
    with opened.opened(URL) as folder:
        assert content(folder) == {"a": "1"}
