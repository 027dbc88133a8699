"""The hub, played by a small server on this machine."""

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from PIL import Image

from unperturbed.data.forms import hub
from unperturbed.data.forms.hub import fetch
from unperturbed.data.forms.parquet import find_parquet
from unperturbed.data.sources import load_data
from unperturbed.errors import InputError, RunError
from unperturbed.imports import Trust

DIRECT = {"HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
SHA = "0123456789abcdef0123456789abcdef01234567"


def pets(n: int) -> bytes:
    images = []
    for i in range(n):
        file = io.BytesIO()
        Image.new("L", (3, 3), i).save(file, "PNG")
        images.append({"bytes": file.getvalue(), "path": None})
    out = io.BytesIO()
    pq.write_table(pa.table({"image": images, "label": [i % 2 for i in range(n)]}), out)
    return out.getvalue()


class Hub(ThreadingHTTPServer):
    """Serves datasets in the hub's layout: {repository: {revision: {path: content}}}."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.broken: set[str] = set()
        self.delay = 0.0
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        self.server.requests.append("/".join(parts))
        time.sleep(self.server.delay)
        api = parts[0] == "api"
        repository = "/".join(parts[2:4] if api else parts[1:3])
        if repository == "some/gated":
            self.reply(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif repository not in self.server.repositories:
            self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif api:
            self.describe(self.server.repositories[repository], repository, parts[4:])
        else:
            self.send_file(self.server.repositories[repository], parts[4], "/".join(parts[5:]))

    def describe(self, revisions: dict[str, dict[str, bytes]], repository: str, question: list[str]) -> None:
        kind, revision = (question[0], "/".join(question[1:])) if question else ("revision", "main")
        number = next((i for i, name in enumerate(revisions) if revision in (name, sha(i))), None)
        if number is None:
            self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        files = list(revisions.values())[number]
        answer: Any = {"id": repository, "sha": sha(number), "siblings": [{"rfilename": name} for name in files]}
        if kind == "tree":
            answer = [{"type": "file", "path": p, "size": len(c), "oid": etag(c)} for p, c in files.items()]
        self.reply(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def send_file(self, revisions: dict[str, dict[str, bytes]], revision: str, path: str) -> None:
        number = next(i for i, name in enumerate(revisions) if revision in (name, sha(i)))
        content = list(revisions.values())[number].get(path)
        if content is None:
            self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif path in self.server.broken:
            self.reply(403, b"", {})
        else:
            self.reply(200, content, {"ETag": f'"{etag(content)}"', "X-Repo-Commit": sha(number)})

    def reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def sha(number: int) -> str:
    return SHA[:-1] + str(number)


def etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        plug(monkeypatch, running.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        running.repositories["owner/pets"] = {"main": {"README.md": b"# Pets"}}
        running.repositories["owner/pets"]["main"] |= {
            "data/train-00000-of-00001.parquet": pets(6),
            "data/test-00000-of-00001.parquet": pets(2),
            "data/extra-00000-of-00001.parquet": pets(1),
        }
        yield running
        running.shutdown()
        thread.join()


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def plug(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Set what HF_ENDPOINT sets when the library is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


def unplug(monkeypatch: pytest.MonkeyPatch) -> None:
    plug(monkeypatch, closed_port())


def test_a_dataset_is_loaded_by_its_id(server: Hub) -> None:
    data = load_data("owner/pets")
    assert data.name == "owner/pets" and data.train.shape == (1, 3, 3)
    assert len(data.train) == 6 and data.test is not None and len(data.test) == 2
    assert not any("extra" in request for request in server.requests)  # only what is needed


def test_a_cached_copy_serves_where_the_hub_does_not(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    load_data("owner/pets")
    unplug(monkeypatch)
    assert len(load_data("owner/pets").train) == 6


def test_offline_the_hub_is_never_asked(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    load_data("owner/pets")
    server.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert len(load_data("owner/pets").train) == 6
    assert not server.requests


def test_an_interrupted_download_fails_says_so_and_goes_on(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.broken.add("data/test-00000-of-00001.parquet")
    with pytest.raises(RunError, match="run the same command again"):
        load_data("owner/pets")
    with monkeypatch.context() as patch:
        unplug(patch)
        with pytest.raises(InputError, match="no complete copy"):
            load_data("owner/pets")
    server.broken.clear()
    assert load_data("owner/pets").test is not None


def test_a_dataset_of_another_format_is_taken_as_the_hub_converted_it(server: Hub, monkeypatch: Any) -> None:
    converted = {"default/train/0000.parquet": pets(4), "default/test/0000.parquet": pets(2)}
    server.repositories["owner/images"] = {"main": {"pets.zip": b""}, "refs/convert/parquet": converted}
    assert len(load_data("owner/images").train) == 4
    unplug(monkeypatch)
    assert len(load_data("owner/images").train) == 4


def test_one_configuration_is_fetched(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        f"{c}/{s}-00000-of-00001.parquet": pets(n) for c, n in (("big", 8), ("small", 2)) for s in ("train", "test")
    }
    server.repositories["owner/sizes"] = {"main": files}
    with pytest.raises(InputError, match="several configurations: big, small"):
        load_data("owner/sizes")
    assert not any("resolve" in request for request in server.requests)  # asked before anything is fetched
    assert len(load_data("owner/sizes?config=small").train) == 2
    assert [p.parts[0] for p in find_parquet(fetch("owner/sizes", "small"))] == ["small", "small"]
    unplug(monkeypatch)
    assert len(load_data("owner/sizes?config=small").train) == 2


def test_files_without_a_split_in_their_names(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.repositories["owner/plain"] = {"main": {"pets.parquet": pets(3)}}
    assert len(load_data("owner/plain").train) == 3
    unplug(monkeypatch)
    assert len(load_data("owner/plain").train) == 3


def test_a_name_stands_for_an_id(server: Hub) -> None:
    server.repositories["ylecun/mnist"] = server.repositories["owner/pets"]
    assert load_data("mnist").name == "mnist"


@pytest.mark.parametrize(
    ("repository", "message"),
    [
        ("owner/none", "hub has no dataset owner/none"),
        ("some/gated", "some/gated is gated: ask for access"),
        ("owner/text", "owner/text has no Parquet files"),
    ],
)
def test_what_the_hub_does_not_give(server: Hub, repository: str, message: str) -> None:
    server.repositories["owner/text"] = {"main": {"pets.txt": b""}}
    with pytest.raises(InputError, match=message):
        load_data(repository)


def test_a_silent_hub_is_given_up_soon(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "SECONDS", 0.2)
    server.delay = 1.0
    with pytest.raises(InputError, match="cannot be reached"):  # with patience the answer would come
        load_data("owner/pets")


def test_a_name_look_up_that_hangs_is_given_up_soon() -> None:
    answer = threading.Event()
    with pytest.raises(TimeoutError, match="no answer within 0.1 s"):  # with patience there would be no error
        hub._within(0.1, lambda: answer.wait(60))
    answer.set()


@pytest.mark.long
@pytest.mark.slow
def test_a_user_without_network_reads_one_line_that_helps(tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": closed_port(), "HF_HOME": str(tmp_path), **DIRECT}
    program = "from unperturbed.data.sources import load_data; load_data('mnist')"
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert time.monotonic() - start < 300, "it does not try again and again"
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("unperturbed.errors.InputError: The Hugging Face hub cannot be reached for ylecun/mnist")
    for form in ("Parquet", "class folders", ".npz", "package.module:function"):
        assert form in message


@pytest.mark.long
@pytest.mark.slow
def test_the_endpoint_of_the_environment_is_asked(server: Hub, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path), **DIRECT}
    program = "from unperturbed.data.sources import load_data; print(len(load_data('owner/pets').train))"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "6\n"


def test_a_file_downloads_nothing_without_the_callers_word(server: Hub) -> None:
    """The place of the data in a run folder of a stranger."""
    with pytest.raises(InputError, match="give --data owner/pets yourself, or --trust"):
        load_data("owner/pets?label=label", Trust())
    assert not server.requests
    assert len(load_data("owner/pets?label=label", Trust().giving("owner/pets")).train) == 6
    server.requests.clear()
    assert len(load_data("owner/pets", Trust()).train) == 6, "a copy on this machine serves"
    assert not server.requests


def test_a_listed_folder_may_download(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "unperturbed").mkdir()
    (tmp_path / "unperturbed/trusted").write_text(str(tmp_path / "runs"))
    content = {"data": "owner/pets?label=label"}
    assert len(load_data("owner/pets", Trust().of_file(tmp_path / "runs/a/config.yaml", content)).train) == 6
    server.requests.clear()
    with pytest.raises(InputError, match="--trust"):
        load_data("owner/none", Trust().of_file(tmp_path / "others/a/config.yaml", {"data": "owner/none"}))
    assert not server.requests
