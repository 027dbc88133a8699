"""A small server on this machine that answers the requests of `huggingface_hub` for model repositories."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

TOKEN = "hf_thetokenofmary"
READER = "hf_thetokenofareader"
"""A token without the permission to write."""


@dataclass
class Repository:
    """The files of a repository, and the messages of its commits."""

    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)

    @property
    def sha(self) -> str:
        return hashlib.sha1(f"{self.commits}{sorted(self.files)}".encode()).hexdigest()


class FakeHub(ThreadingHTTPServer):
    """The server.

    Attributes:
        repositories: by name.
        large: the content of large files by SHA-256, before and after the commit that names them.
        failing: a part of the path of requests that fail, with the status; 0 cuts the connection half-way.
        requests: method and path of every request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.failing: dict[str, int] = {}
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """Stay quiet where a client has hung up."""


class Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(f"{self.command} {path}")
        for part, status in self.server.failing.items():
            if part in f"{self.command} {path}":
                return self.fail(status)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", TOKEN, READER):
            return self.reply(401, {}, {"X-Error-Message": "Invalid credentials in Authorization header"})
        if path == "api/validate-yaml":
            return self.reply(200, {"errors": [], "warnings": []})
        if path.startswith("large/"):
            self.server.large[path.removeprefix("large/")] = body
            return self.reply(200, {})
        if self.command == "POST" and token != TOKEN:
            return self.reply(403, {"error": "You don't have the rights to write here."})
        if path == "api/repos/create":
            return self.create(json.loads(body))
        parts = path.split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2]).removesuffix(".git")
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and token != TOKEN):
            return self.reply(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if path.endswith("info/lfs/objects/batch"):
            return self.batch(json.loads(body))
        if parts[0] != "api":
            return self.send_file(repository, "/".join(parts[4:]))
        self.describe(repository, name, parts[4:], body)

    def create(self, request: Any) -> None:
        name = f"{request['organization']}/{request['name']}"
        known = name in self.server.repositories
        if not known:
            repository = Repository(request.get("private") or request.get("visibility") == "private")
            repository.files[".gitattributes"] = b""
            self.server.repositories[name] = repository
        self.reply(409 if known else 200, {"url": f"{self.server.url}/{name}"})

    def describe(self, repository: Repository, name: str, question: list[str], body: bytes) -> None:
        kind = question[0] if question else "revision"
        if kind == "preupload":
            files = json.loads(body)["files"]
            return self.reply(200, {"files": [self.mode(repository, file["path"]) for file in files]})
        if kind == "commit":
            return self.commit(repository, name, [json.loads(line) for line in body.splitlines()])
        files = repository.files.items()
        if kind == "tree":
            tree = [{"type": "file", "path": p, "size": len(c), "oid": git_hash(c)} for p, c in files]
            return self.reply(200, tree)
        siblings = [{"rfilename": path} for path, _ in files]
        about = {"id": name, "sha": repository.sha, "private": repository.private, "siblings": siblings}
        self.reply(200, about)

    def mode(self, repository: Repository, path: str) -> dict[str, Any]:
        large, content = path.endswith((".safetensors", ".parquet")), repository.files.get(path)
        hashed = None if content is None else hashlib.sha256(content).hexdigest() if large else git_hash(content)
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": hashed}

    def batch(self, request: Any) -> None:
        objects = [
            {"oid": each["oid"], "size": each["size"]}
            | {"actions": {"upload": {"href": f"{self.server.url}/large/{each['oid']}"}}}
            for each in request["objects"]
        ]
        self.reply(200, {"transfer": "basic", "objects": objects})

    def commit(self, repository: Repository, name: str, lines: list[Any]) -> None:
        """Change all files, or none."""
        files, (header, *changes) = dict(repository.files), lines
        if header["value"].get("parentCommit") not in (None, repository.sha):
            return self.reply(412, {"error": "The repository has changed."})
        for change in changes:
            value = change["value"]
            if change["key"] == "deletedFile":
                del files[value["path"]]
            elif change["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        repository.files = files
        repository.commits.append(header["value"]["summary"])
        address = f"{self.server.url}/{name}/commit/{repository.sha}"
        self.reply(200, {"commitUrl": address, "commitOid": repository.sha})

    def send_file(self, repository: Repository, path: str) -> None:
        content = repository.files[path]
        self.reply(200, content, {"ETag": f'"{git_hash(content)}"', "X-Repo-Commit": repository.sha})

    def fail(self, status: int) -> None:
        if status:
            return self.reply(status, {"error": "out of order"})
        self.send_response(200)
        for name, value in {"Content-Length": "1000000", "ETag": '"half"', "X-Repo-Commit": "0" * 40}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"half of it")
        self.close_connection = True

    def reply(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        plain = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(plain)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(plain)


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def fake_hub(patch: pytest.MonkeyPatch, cache: str, token: str | None = TOKEN) -> Iterator[FakeHub]:
    """Start a hub and point `huggingface_hub` to it, as HF_ENDPOINT does before the library is imported."""
    with FakeHub() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        for name, value in (
            ("ENDPOINT", running.url),
            ("HUGGINGFACE_CO_URL_TEMPLATE", running.url + "/{repo_id}/resolve/{revision}/{filename}"),
            ("HF_HUB_OFFLINE", False),
            ("HF_HUB_CACHE", cache),
            ("HF_HUB_DISABLE_XET", True),
            ("HF_TOKEN_PATH", f"{cache}/no-token"),
        ):
            patch.setattr(constants, name, value)
        patch.setenv("NO_PROXY", "127.0.0.1")
        log_in(patch, token)
        patch.setattr("time.sleep", lambda seconds: None)  # the client waits between its tries
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()


def log_in(patch: pytest.MonkeyPatch, token: str | None) -> None:
    """Set the user's token; None: there is none."""
    patch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    if token is None:
        patch.delenv("HF_TOKEN", raising=False)
    else:
        patch.setenv("HF_TOKEN", token)
