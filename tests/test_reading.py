"""Files from strangers: what would fill memory or never end is refused with a message, in no time."""

import os
import time
from pathlib import Path

import pytest

from unperturbed.errors import InputError
from unperturbed.reading import (
    LARGEST,
    check_memory,
    memory,
    parse_json,
    parse_yaml,
    read_bytes,
    read_small,
    regular,
)
from unperturbed.runs.files import read_jsonl, read_yaml, write_yaml
from unperturbed.runs.verify import file_hash, read_object

LAUGHS = "a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n" + "\n".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (LAUGHS, "aliases"),
        ("a: &a [*a]", "endlessly many"),
        ("a: &a {b: *a}", "endlessly many"),
        ("[" * 1_000_000, "200 levels"),
        ("- " * 1_000_000, "200 levels"),
        ("? " * 1_000_000, "200 levels"),
        ("{a: " * 3000 + "}" * 3000, "200 levels"),
        ("a: [1", "not YAML"),
        ("a: 2024-13-45", "not YAML"),
        ("a: " + "9" * 10_000, "not YAML"),
        ("a: !!python/object/apply:os.system [touch executed]", "not YAML"),
        ("\0", "not YAML"),
    ],
)
def test_a_document_that_expands_or_nests_without_end_is_refused_at_once(text: str, part: str) -> None:
    began = time.process_time()
    with pytest.raises(InputError, match=part):
        parse_yaml(text, "it")
    assert time.process_time() - began < 3


def test_aliases_of_an_ordinary_document_are_followed() -> None:
    assert parse_yaml("a: &x [1, 2]\nb: *x", "it") == {"a": [1, 2], "b": [1, 2]}
    assert parse_yaml("", "it") is None


@pytest.mark.long
@pytest.mark.slow
def test_what_was_written_is_read_also_where_values_are_shared(tmp_path: Path) -> None:
    limit = [0.1] * 3072
    write_yaml(tmp_path / "config.yaml", {"bounds": [limit, limit]})
    assert read_yaml(tmp_path / "config.yaml") == {"bounds": [limit, limit]}


def test_a_text_that_nests_without_end_is_no_json() -> None:
    for text in ("[" * 1_000_000, '{"a":' * 1_000_000, "[1", b"\xff", "1" * 10_000):
        with pytest.raises(InputError):
            parse_json(text, "it")


def test_what_is_no_small_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(LARGEST + 1)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("pipe", "huge", "loop", "binary", "absent", "."):
        with pytest.raises(InputError, match=name):
            read_small(tmp_path / name)


def test_a_line_without_end_hides_no_other_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' + '{"a":' * 1_000_000 + '\n[1]\n{"step": 2}\n{"step"')
    assert read_jsonl(path) == [{"step": 1}, {"step": 2}]


def test_sizes_beyond_the_memory_are_refused_before_they_are_allocated() -> None:
    assert 2**26 < memory() <= 2**50
    check_memory(1000, "it", "take less")
    with pytest.raises(InputError, match=r"it would take .* take less"):
        check_memory(2**60, "it", "take less")


def test_json_nests_no_deeper_than_its_readers_can_follow() -> None:
    """A parser takes more levels than a walk through the value by recursion."""
    assert parse_json("[" * 200 + "]" * 200, "x") is not None
    with pytest.raises(InputError, match="200 levels"):
        parse_json('{"a": ' * 201 + "1" + "}" * 201, "x")


def test_a_sparse_file_of_terabytes_is_not_read(tmp_path: Path) -> None:
    """It takes no space on the disk, nor in an archive of a stranger."""
    path = tmp_path / "file.json"
    path.touch()
    os.truncate(path, 2**43)
    with pytest.raises(InputError, match="8,796,093,022,208 bytes"):
        read_bytes(path, 2**20)
    with pytest.raises(OSError, match="larger than the memory"):
        regular(path)
    assert read_object(path) == {} and file_hash(path) == ""
