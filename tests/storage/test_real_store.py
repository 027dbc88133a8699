"""An S3 server on this machine: commands by its HTTP, 200 requests that fail by a plan, and conditional puts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.object_stores import FAILURES, Shaky, put_folder, s3_server, write_digits
from unperturbed.cli.main import main
from unperturbed.runs.files import append_jsonl, write_text
from unperturbed.storage import object_store, writer
from unperturbed.storage.local_copy import scan
from unperturbed.storage.manifest import Manifest, newest, place_of
from unperturbed.storage.object_store import ObjectStore
from unperturbed.storage.opened import opened

pytest.importorskip("moto")
pytest.importorskip("s3fs")
pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning", "default::ResourceWarning")  # of the clients


@pytest.fixture
def shaky(tmp_path: Path) -> Iterator[Shaky]:
    """Return the plan of failures of an S3 server with the empty bucket `bucket`."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    with s3_server("bucket") as (_, shaky):
        yield shaky
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.long
@pytest.mark.slow
def test_requests_do_what_they_say(shaky: Shaky, tmp_path: Path) -> None:
    store = ObjectStore("s3://bucket/run")
    assert store.names("objects") == [] and store.details() == {}
    store.write("objects/a", b"1", new=True)
    with pytest.raises(FileExistsError):
        store.write("objects/a", b"2", new=True)
    (tmp_path / "large").write_bytes(bytes(range(256)) * 2**12)
    store.upload(tmp_path / "large", "objects/b")
    store.download("objects/b", tmp_path / "copy", 2**20)
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "large").read_bytes()
    assert store.names("objects") == ["a", "b"] and store.read("objects/a") == b"1"
    assert store.modified("objects/a") <= store.modified("objects/b")
    store.delete(["objects/a", "objects/missing"])
    with pytest.raises(FileNotFoundError):
        store.read("objects/a")


@pytest.mark.slow
def test_a_missing_bucket_is_named(shaky: Shaky, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("train", "--data", "digits", "--epochs", "1", "--out", "s3://another-bucket/run")) == 2
    assert "s3://another-bucket/run cannot be written" in capsys.readouterr().err


def write_run(folder: Path) -> None:
    """Write what a run writes, in little: files that are replaced, appended to, deleted, and repeated."""
    for step in range(40):
        write_text(folder / "checkpoints" / "last.pt", f"checkpoint {step}" * 400)
        write_text(folder / "checkpoints" / "previous.pt", f"checkpoint {step - 1}" * 400)
        append_jsonl(folder / "metrics.jsonl", {"step": step})
        write_text(folder / "evaluation" / f"part-{step:05}.json", f"{step}")
        yield_to_publisher(folder)
    (folder / "checkpoints" / "previous.pt").unlink()


def yield_to_publisher(folder: Path) -> None:
    import time

    time.sleep(0.05)


def content(folder: Path) -> dict[str, bytes]:
    return {path: (folder / path).read_bytes() for path in scan(folder)}


@pytest.mark.slow
@pytest.mark.long
def test_two_hundred_failed_requests_lose_nothing(
    shaky: Shaky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "SECONDS", 10.0)  # a slow request counts as failed
    monkeypatch.setattr(object_store, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(writer, "SHARE", 1.0)
    seen = set[str]()
    write_run(tmp_path / "here")
    failed, attempt = 0, 0
    while failed < 200:
        shaky.plan(share=0.4, most=200 - failed, seed=attempt)
        url = f"s3://bucket/run-{attempt}"
        with opened(url) as folder:
            write_run(folder)
        monkeypatch.setenv("UNPERTURBED_CACHE", str(tmp_path / f"machine {attempt}"))
        with opened(url, writing=False) as folder:
            assert content(folder) == content(tmp_path / "here")
        failed, attempt = failed + shaky.failed.total(), attempt + 1
        seen |= {kind.split()[0] for kind in shaky.failed}
        shaky.plan(0.0, 0, 0)
        store = ObjectStore(url)
        manifest, _ = newest(store)
        assert manifest is not None and {entry.name for entry in manifest.files.values()} <= set(store.names("objects"))
    assert failed == 200 and seen == {*FAILURES}


@pytest.mark.long
@pytest.mark.slow
def test_commands_with_failing_requests_give_what_they_give_here(
    shaky: Shaky, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put_folder(ObjectStore("s3://bucket/x").files, write_digits(tmp_path / "digits"), "bucket/digits")
    shaky.plan(share=0.25, most=100, seed=1)
    results = []
    for data, run in (("./digits", "at"), ("s3://bucket/digits", "s3://bucket/runs/at")):
        train = ("train", "--data", data, "--method", "fgsm", "--model", "mlp", "--threat", "Linf:0.1", "--epochs", "2")
        results.append([result(capsys, *words) for words in (
            (*train, "--out", run),
            ("evaluate", run, "--suite", "apgd-ce", "--examples", "16"),
        )])  # fmt: skip
    assert results[0] == results[1] and shaky.failed.total() > 0
    assert main(("report", "s3://bucket/runs/at", "--out", "s3://bucket/page.html")) == 0
    assert b"</html>" in ObjectStore("s3://bucket").read("page.html")
    manifest, _ = newest(ObjectStore("s3://bucket/runs/at"))
    here = {path.relative_to("at").as_posix() for path in Path("at").rglob("*") if path.is_file()}
    assert manifest is not None and set(manifest.files) == here


def result(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    assert main((*words, "--device", "cpu", "--json")) == 0
    value = json.loads(capsys.readouterr().out)
    times = ("seconds", "run", "warnings")
    attacks = [{k: v for k, v in attack.items() if k != "seconds"} for attack in value.pop("attacks", [])]
    return {name: part for name, part in value.items() if name not in times}, attacks


def test_a_manifest_is_put_once(shaky: Shaky) -> None:
    store = ObjectStore("s3://bucket/run")
    store.write(place_of(1), Manifest(1, "aaaa", None, {}).encoded(), new=True)
    with pytest.raises(FileExistsError):
        store.write(place_of(1), Manifest(1, "bbbb", None, {}).encoded(), new=True)
    manifest, _ = newest(store)
    assert manifest is not None and manifest.writer == "aaaa"
