"""Object stores for tests: an S3 server on this machine whose requests fail by a plan, and data to put there."""

import io
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

FAILURES = ("refused", "lost", "cut", "slow")
"""Before it has an effect; after it had one; in the middle of the answer; no answer for a while."""
OFTEN = (20, 20, 20, 1)
"""How often each kind is, in proportion."""
SLOW = 12.0
"""Seconds without an answer."""


class Shaky:
    """A web application whose requests fail by a seeded plan: every kind of failure, at random moments.

    Attributes:
        share: of the requests that fail.
        most: failures in all.
        failed: the failures so far, by kind and method.
    """

    def __init__(self, app: Any) -> None:
        self.app, self.share, self.most = app, 0.0, 0
        self.random, self.failed, self.lock = random.Random(0), Counter[str](), threading.Lock()

    def plan(self, share: float, most: int, seed: int) -> None:
        self.share, self.most, self.random, self.failed = share, most, random.Random(seed), Counter()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self.lock:
            fails = self.random.random() < self.share and self.failed.total() < self.most
            kind = self.random.choices(FAILURES, OFTEN)[0] if fails else ""
            if kind:
                self.failed[f"{kind} {environ['REQUEST_METHOD']}"] += 1
        if kind == "refused":
            start_response("503 Slow Down", [("Content-Length", "0")])
            return []
        if kind == "slow":
            time.sleep(SLOW)
        answer: list[Any] = []

        def remember(*given: Any) -> None:
            answer[:] = given

        body = b"".join(self.app(environ, remember))
        if kind == "lost":
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return []
        start_response(*answer)
        return [body[: len(body) // 2]] if kind == "cut" else [body]


@contextmanager
def s3_server(bucket: str) -> Iterator[tuple[dict[str, str], Shaky]]:
    """Yield the environment for clients of an S3 server with a new bucket, and the plan of its failures."""
    import boto3
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_: Any) -> None:
            """Stay quiet."""

    shaky = Shaky(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, shaky, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            client = boto3.client("s3")
            client.create_bucket(Bucket=bucket)
            client.close()
            yield environment, shaky
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_digits(folder: Path, train: int = 240, test: int = 60) -> Path:
    """Write scanned digits of 8 by 8 pixels as `train.parquet` and `test.parquet`."""
    folder.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    for name, rows in (("train", range(train)), ("test", range(train, train + test))):
        images = [{"bytes": _png(digits.images[row])} for row in rows]
        table = pa.table({"image": images, "label": [int(digits.target[row]) for row in rows]})
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


def _png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def put_folder(files: Any, folder: Path, place: str) -> None:
    """Upload the files of a folder with an fsspec client."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files.pipe_file(f"{place}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def environment_of(given: dict[str, str], cache: Path) -> dict[str, str]:
    """Return the environment of a process with a cache."""
    return {**os.environ, **given, "UNPERTURBED_CACHE": str(cache)}
