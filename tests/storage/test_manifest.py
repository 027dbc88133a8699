"""Manifests: whole or not read, numbered once, and written by one process at a time."""

import json
import os
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unperturbed.errors import InputError
from unperturbed.runs.files import HOST
from unperturbed.runs.lock import PATIENCE, Holder, InUseError, this_process
from unperturbed.runs.verify import SEAL, digest
from unperturbed.storage import manifest as manifests
from unperturbed.storage.manifest import (
    Entry,
    Manifest,
    TakenOverError,
    claim,
    is_published,
    newest,
    numbers,
    place_of,
    put,
    root_of,
)
from unperturbed.storage.object_store import ObjectStore

FILES = {"config.yaml": Entry("0123456789abcdef-00000000", "ab" * 32, 3)}
DEAD = Holder(HOST, 2**22 + 1, "2026-01-01 00:00:00+00:00", "unperturbed train")
ELSEWHERE = replace(DEAD, host="another-host")


def store() -> ObjectStore:
    return ObjectStore("memory://bucket/run")


def first(holder: Holder | None = None, writer: str = "aaaa") -> Manifest:
    return Manifest(1, writer, holder, FILES)


names = st.text(st.characters(exclude_characters="/\\\0", exclude_categories=("Cs",)), min_size=1)
paths = st.lists(names.filter(lambda name: not name.startswith(".")), min_size=1, max_size=3).map("/".join)
entries = st.builds(Entry, st.from_regex(r"[0-9a-f]{16}-[0-9]{8}", fullmatch=True), st.text(), st.integers(0, 2**40))


@pytest.mark.long
@pytest.mark.slow
@given(st.dictionaries(paths, entries, max_size=4), st.integers(1, 99999999))
def test_a_manifest_comes_back(files: dict[str, Entry], number: int) -> None:
    manifest = Manifest(number, "aaaa", this_process(), files)
    assert Manifest.decoded(manifest.encoded()) == manifest


@given(st.data())
def test_a_manifest_written_in_part_or_changed_is_none(data: st.DataObject) -> None:
    content = first(this_process()).encoded()
    length = data.draw(st.integers(0, len(content) - 1))
    assert Manifest.decoded(content[:length]) is None
    changed = bytearray(content)
    changed[length] ^= data.draw(st.integers(1, 127))
    decoded = Manifest.decoded(bytes(changed))
    assert decoded is None or decoded == first(this_process())  # the case of an escape, say


@pytest.mark.parametrize("path", ["../x", "a/../b", "/etc/x", ".hidden", "a/.b/c", "", "a//b", "a\\b"])
def test_a_path_out_of_the_folder_or_hidden_is_refused(path: str) -> None:
    assert not is_published(path)
    value = json.loads(first().encoded())
    value["files"][path] = ["0123456789abcdef-00000001", "", 1]
    del value[SEAL]
    assert Manifest.decoded(json.dumps({**value, SEAL: digest(value)}).encode()) is None


@pytest.mark.parametrize("name", ["../../other/secret", "0123456789abcdef-1", ""])
def test_the_name_of_an_object_leads_nowhere_else(name: str) -> None:
    assert Manifest.decoded(replace(first(), files={"a": Entry(name, "", 1)}).encoded()) is None


def test_the_newest_whole_manifest_is_read() -> None:
    assert newest(store()) == (None, 0)
    put(store(), first())
    second = put(store(), replace(first(), number=2))
    store().write(place_of(3), replace(first(), number=3).encoded()[:-10])
    assert newest(store()) == (second, 3)


def test_a_manifest_deleted_meanwhile_is_read_as_its_successor(monkeypatch: pytest.MonkeyPatch) -> None:
    second = put(store(), replace(first(), number=2))
    listed = iter([[1], [2]])
    monkeypatch.setattr(manifests, "numbers", lambda store: next(listed))
    assert newest(store()) == (second, 2)


def test_damaged_manifests_hide_no_folder() -> None:
    store().write(place_of(1), b"{")
    assert newest(store()) == (None, 1)  # the first writer died while it wrote its first one
    store().write("objects/0123456789abcdef-00000000", b"abc")
    with pytest.raises(InputError, match="All manifests of memory://bucket/run are damaged"):
        newest(store())


def test_a_lost_answer_counts_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    put(store(), first())
    assert put(store(), first()) == first()
    other = replace(first(), files={})
    assert put(store(), other) == replace(other, number=2)  # an attempt that was given up had arrived


def test_two_writers_of_one_number_are_told_apart() -> None:
    put(store(), first(this_process()))
    with pytest.raises(TakenOverError, match=f"is now being written by process {os.getpid()} on {HOST}"):
        put(store(), first(writer="bbbb"))


def test_a_writer_that_was_overtaken_is_told_also_where_its_number_is_free_again() -> None:
    put(store(), first())
    put(store(), replace(first(), number=7, writer="bbbb"))
    store().delete([place_of(1)])
    with pytest.raises(TakenOverError):
        put(store(), replace(first(), number=2))
    assert numbers(store()) == [7]


def test_a_folder_is_claimed_once_its_writer_has_ended() -> None:
    before, mine = claim(store())
    assert before is None and mine.number == 1 and mine.files == {}
    with pytest.raises(InUseError, match=f"is being written by process {os.getpid()} on {HOST} since"):
        claim(store())
    ended = put(store(), replace(mine, number=2, holder=None, files=FILES))
    before, mine = claim(store())
    assert before == ended and mine.files == FILES and mine.number == 3


def test_a_dead_writer_on_this_host_is_replaced_at_once() -> None:
    put(store(), first(DEAD))
    before, mine = claim(store())
    assert before == first(DEAD) and mine.number == 2


def test_a_writer_on_another_host_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    put(store(), first(ELSEWHERE))
    with pytest.raises(InUseError, match="on another-host since 2026-01-01"):
        claim(store())
    ages: dict[str, float] = {place_of(1): 0.0}
    monkeypatch.setattr(ObjectStore, "modified", lambda self, name: ages.get(name, PATIENCE + 1))
    assert claim(store())[1].number == 2
    assert store().names("probes") == []


def test_of_two_processes_that_claim_at_the_same_time_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    write, others = ObjectStore.write, iter([Manifest(1, "bbbb", this_process(), {})])

    def beaten(self: ObjectStore, name: str, content: bytes, new: bool = False) -> Any:
        for other in others:
            write(self, place_of(1), other.encoded())
        write(self, name, content, new)

    monkeypatch.setattr(ObjectStore, "write", beaten)
    with pytest.raises(InUseError, match="is being written by process"):
        claim(store())
    assert numbers(store()) == [1]


def test_a_place_within_a_folder_is_found_by_its_manifests() -> None:
    put(store(), first())
    assert root_of("memory://bucket/run/evaluation/pgd") == "memory://bucket/run"
    assert root_of("memory://bucket/run") == "memory://bucket/run"
    assert root_of("memory://bucket/other") == "memory://bucket/other"
