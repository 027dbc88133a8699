"""Writers killed with SIGKILL at random moments: nothing published is lost, and nothing half-written is read."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.object_stores import environment_of, s3_server, write_digits
from support.processes import Process
from unperturbed.storage.local_copy import scan
from unperturbed.storage.manifest import newest
from unperturbed.storage.object_store import ObjectStore
from unperturbed.storage.opened import opened

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning", "default::ResourceWarning")  # of the clients
STEPS = 150
WRITER = f"""
import sys, time
from unperturbed.runs.files import append_jsonl, read_jsonl, write_jsonl, write_text
from unperturbed.storage import opened, writer

writer.INTERVAL = 0.02
with opened.opened(sys.argv[1]) as folder:
    print("opened", flush=True)
    last = int((folder / "last").read_text().split()[0]) if (folder / "last").exists() else -1
    write_jsonl(folder / "log.jsonl", [line for line in read_jsonl(folder / "log.jsonl") if line["step"] <= last])
    for step in range(last + 1, {STEPS}):
        write_text(folder / "parts" / f"{{step}}", f"{{step}} " * 2000)
        (folder / "parts" / f"{{step - 3}}").unlink(missing_ok=True)
        append_jsonl(folder / "log.jsonl", {{"step": step}})
        write_text(folder / "last", f"{{step}} " * 20000)
        time.sleep(0.01)
"""
"""It resumes at the last step, and writes `last` after the other files of a step."""
COMMAND = """
import sys
from unperturbed.cli.main import main
from unperturbed.storage import writer

writer.INTERVAL, writer.SHARE = 0.05, 1.0
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(params=["file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the URL of an empty folder, and the environment for its clients."""
    if request.param == "file":
        yield f"file://{tmp_path}/bucket/run", {}
        return
    pytest.importorskip("moto")
    s3fs = pytest.importorskip("s3fs")
    s3fs.S3FileSystem.clear_instance_cache()
    with s3_server("bucket") as (environment, _):
        yield "s3://bucket/run", environment
    s3fs.S3FileSystem.clear_instance_cache()


def check(folder: Path) -> int:
    """Check that a folder is as a writer killed at some moment could have left it, and return its last step."""
    files = {path: (folder / path).read_text() for path in scan(folder)}
    if "last" not in files:
        return -1
    last = int(files["last"].split()[0])
    assert files["last"] == f"{last} " * 20000
    parts = {int(path.partition("/")[2]): text for path, text in files.items() if path.startswith("parts/")}
    assert all(text == f"{step} " * 2000 for step, text in parts.items())
    assert {*range(max(last - 1, 0), last + 1)} <= parts.keys() <= {*range(last + 2)}  # deleted ones may come back
    steps = [json.loads(line)["step"] for line in files["log.jsonl"].splitlines()]
    assert steps in (list(range(last + 1)), list(range(last + 2)))
    return last


def published(url: str) -> int:
    """Return the last published step, -1 without any; every published file is read."""
    if newest(ObjectStore(url))[0] is None:
        return -1
    with opened(url, writing=False) as folder:
        return check(folder)


def kill_writers(url: str, environment: dict[str, str], tmp_path: Path, kills: int) -> None:
    draw, last, killed, number = random.Random(kills), -1, 0, 0
    while killed < kills or last < STEPS - 1:
        cache, number = tmp_path / f"machine-{draw.randrange(2)}", number + 1
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, url],
            env=environment_of(environment, cache),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        if killed < kills:
            if draw.random() < 0.8:  # else it is killed while it starts, claims and fetches
                process.stdout.readline()
            time.sleep(draw.random() * 0.8)
            process.kill()
        _, errors = process.communicate(timeout=120)
        assert process.returncode in (0, -signal.SIGKILL), errors
        if process.returncode == -signal.SIGKILL:
            killed += 1
        elif killed < kills and published(url) == STEPS - 1:  # it was faster: once more from the beginning
            url, last = f"{url}-{number}", -1
            continue
        following = published(url)
        assert following >= last
        last = following
    store = ObjectStore(url)
    manifest, _ = newest(store)
    assert manifest is not None and manifest.holder is None and killed == kills
    assert {entry.name for entry in manifest.files.values()} <= set(store.names("objects"))
    with opened(url, writing=False) as folder:
        assert check(folder) == STEPS - 1


@pytest.mark.long
@pytest.mark.slow
def test_three_killed_writers_lose_nothing(place: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    kill_writers(*place, tmp_path, 3)


@pytest.mark.slow
@pytest.mark.long
def test_thirty_killed_writers_lose_nothing(place: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    kill_writers(*place, tmp_path, 30)


class Command(Process):
    """A command of the program."""

    def __init__(self, words: list[str], environment: dict[str, str]) -> None:
        super().__init__(sys.executable, "-W", "ignore", "-c", COMMAND, *words, "--json", environment=environment)

    def result(self) -> dict[str, Any]:
        """Wait for the end, and return the result without times and places."""
        output, errors = self.output()
        assert self.returncode == 0, errors
        value: dict[str, Any] = json.loads(output)
        for attack in value.get("attacks", ()):
            del attack["seconds"]
        return {name: part for name, part in value.items() if name not in ("run", "seconds", "warnings", "page")}

    def was_killed(self) -> bool:
        """Kill it, and tell whether it had not ended."""
        self.kill()
        _, errors = self.output()
        assert self.returncode in (0, -signal.SIGKILL), errors
        return self.returncode != 0


def number(url: str) -> int:
    """Return the number of the newest manifest; 0 without any."""
    manifest = newest(ObjectStore(url))[0]
    return 0 if manifest is None else manifest.number


def files(url: str) -> set[str]:
    """Return the names of the published files."""
    manifest = newest(ObjectStore(url))[0]
    return set() if manifest is None else set(manifest.files)


@pytest.mark.slow
@pytest.mark.long
def test_commands_that_are_killed_end_in_the_results_of_this_machine(
    place: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    """A command is killed after one to four publications, the first of which is its claim of the folder."""
    url, environment = place
    draw, data = random.Random(0), str(write_digits(tmp_path / "digits"))
    commands = [
        ["train", "--data", data, "--method", "at", "--model", "mlp", "--threat", "Linf:0.1", "--epochs", "4",
         "--checkpoint-minutes", "0.0005", "--out", "RUN", "--device", "cpu"],
        ["evaluate", "RUN", "--suite", "apgd-ce,apgd-t", "--batch-size", "16", "--device", "cpu"],
        ["report", "RUN"],
    ]  # fmt: skip
    local, kills = os.environ | {"OMP_NUM_THREADS": "1"}, dict[str, int]()
    for words in commands:
        here = Command([str(tmp_path / "run") if word == "RUN" else word for word in words], local).result()
        again = [url if word == "RUN" else word for word in words]
        for _ in range(5):
            machine = environment_of(environment | {"OMP_NUM_THREADS": "1"}, tmp_path / f"machine-{draw.randrange(2)}")
            resumed = ["--resume"] if words[0] == "train" and files(url) else []
            before, first, more = files(url), number(url), draw.randint(1, 4)
            command = Command([*again, *resumed], machine)
            while command.poll() is None and number(url) < first + more:
                time.sleep(0.02)
            kills[words[0]] = kills.get(words[0], 0) + command.was_killed()
            lost = {path for path in before - files(url) if "checkpoints/" not in path and "unfinished" not in path}
            assert not lost, "a published file is lost"
        resumed = ["--resume"] if words[0] == "train" and files(url) else []
        assert Command([*again, *resumed], machine).result() == here
    assert kills["train"] >= 3 and kills["evaluate"] >= 1 and kills["report"] >= 1
    with opened(url, writing=False) as folder:
        assert scan(folder).keys() == scan(tmp_path / "run").keys()
        assert "</html>" in next(folder.glob("*.html")).read_text()
