"""Runs that go to the hub and come back: what is shared, what a failure leaves, and what a stranger's run may do."""

import json
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import constants

import unperturbed as un
from support.fake_hub import READER, FakeHub, Repository, log_in
from support.toys import QUICK
from unperturbed.cli.main import main
from unperturbed.results.stored import read_run

pytestmark = pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning")  # of the hub's own client
NAME = "mary/robust"
SHARED = {
    *("README.md", "config.yaml", "best.safetensors", "model.safetensors", "result.json", "metrics.jsonl"),
    *("audit.json", "diagnosis-a.json", "evaluation/pgd.json", "evaluation/curve-Linf.json"),
    *(
        f"evaluation/{job}/{file}"
        for job in ("pgd", "curve-Linf")
        for file in ("job.json", "part-00000.json", "part-00000.parquet", "part-00000.safetensors")
    ),
}


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.long
@pytest.mark.slow
def test_a_run_comes_back_byte_for_byte_and_nothing_else_goes(run: Path, hub: FakeHub, tmp_path: Path) -> None:
    address = un.push(run, NAME)
    repository = hub.repositories[NAME]
    assert repository.commits == ["Upload a run of unperturbed"] and address.startswith(f"{hub.url}/{NAME}/commit/")
    assert set(repository.files) - {".gitattributes"} == SHARED
    pulled = un.pull(NAME, tmp_path / "pulled")
    for path in SHARED - {"README.md"}:
        assert (pulled / path).read_bytes() == (run / path).read_bytes(), path
    assert {path.relative_to(pulled).as_posix() for path in pulled.rglob("*") if path.is_file()} == SHARED
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_a_pulled_run_evaluates_to_the_same_table(run: Path, hub: FakeHub, tmp_path: Path) -> None:
    un.push(un.Run.open(run), f"hf://{NAME}")
    pulled = un.Run.open(un.pull(NAME, tmp_path / "pulled"))
    before, after = (read_run(folder, "a") for folder in (run, pulled.folder))
    assert after.headline is not None and before.headline is not None
    table = before.headline.outcome.examples
    assert after.headline.outcome.examples == table and after.headline.outcome.doubts == ()
    assert after.damaged == () and len(after.curves) == 1 and after.audit == before.audit
    again = un.evaluate(pulled.model, pulled.data, pulled.threat, QUICK)
    assert again.examples == table


@pytest.mark.slow
def test_a_network_is_loaded_from_the_hub_and_then_without_it(
    run: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    un.push(run, NAME)
    x = torch.rand(3, 1, 6, 6)
    expected = un.load_run(run)(x)
    assert torch.equal(un.load_run(f"hf://{NAME}")(x), expected)
    assert torch.equal(un.Run.open(f"hf://{NAME}").model(x), expected)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert torch.equal(un.load_run(f"hf://{NAME}")(x), expected)


@pytest.mark.slow
def test_a_second_push_replaces_results_and_leaves_other_files(run: Path, hub: FakeHub) -> None:
    un.push(run, NAME)
    hub.repositories[NAME].files["picture.png"] = b"mine"
    un.push(run, NAME)
    assert len(hub.repositories[NAME].commits) == 1  # nothing has changed
    for path in (run / "evaluation").glob("curve-Linf*"):
        path.rename(run / path.name)
    un.push(run, NAME, message="without the curve")
    files = set(hub.repositories[NAME].files)
    assert hub.repositories[NAME].commits[1:] == ["without the curve"]
    assert files == {path for path in SHARED if "curve" not in path} | {"picture.png", ".gitattributes"}


# Failures


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failing", "status", "error", "words"),
    [
        ("large/", 500, un.RunError, "The hub failed (500"),
        ("large/", 403, un.InputError, "permission to write"),
        ("/commit/", 503, un.RunError, "The hub failed (503"),
        ("/commit/", 0, un.RunError, "failed or broke off"),
        ("/preupload/", 429, un.RunError, "The hub failed (429"),
        ("/commit/", 412, un.RunError, "changed by somebody else"),
        ("/commit/", 422, un.RunError, "refused the request (422"),
    ],
)
def test_a_failed_push_leaves_nothing_half_pushed(
    run: Path, hub: FakeHub, failing: str, status: int, error: type[Exception], words: str
) -> None:
    hub.failing[failing] = status
    with pytest.raises(error) as raised:
        un.push(run, NAME)
    assert words in str(raised.value) and "Nothing of the commit is in the repository." in str(raised.value)
    repository = hub.repositories[NAME]
    assert list(repository.files) == [".gitattributes"] and repository.commits == []
    hub.failing.clear()
    un.push(run, NAME)
    assert set(repository.files) - {".gitattributes"} == SHARED


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (None, "with a token only: log in with `hf auth login`"),
        ("hf_wrong", "refused the token (401): log in with `hf auth login`"),
        (READER, "take a token with the permission to write"),
    ],
)
def test_a_missing_or_refused_token_is_said(
    run: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, token: str | None, words: str
) -> None:
    log_in(monkeypatch, token)
    with pytest.raises(un.InputError) as raised:
        un.push(run, NAME)
    assert words in str(raised.value) and "hf_wrong" not in str(raised.value)
    assert hub.repositories == {}


@pytest.mark.slow
def test_a_private_push_does_not_go_to_a_public_repository(run: Path, hub: FakeHub) -> None:
    hub.repositories[NAME] = Repository()
    with pytest.raises(un.InputError, match="is public"):
        un.push(run, NAME, private=True)
    assert hub.repositories[NAME].commits == []
    un.push(run, "mary/secret", private=True)
    assert hub.repositories["mary/secret"].private


def test_a_repository_that_is_private_or_absent_cannot_be_pulled(
    run: Path, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    un.push(run, "mary/secret", private=True)
    log_in(monkeypatch, None)
    for name in ("mary/secret", "mary/nothing"):
        with pytest.raises(un.InputError, match=f"no model repository {name} that can be read without a token"):
            un.pull(name, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists() and leftovers(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize(("failing", "status"), [("best.safetensors", 0), ("part-00000.parquet", 500), ("/tree/", 502)])
def test_a_failed_pull_leaves_no_half_folder(
    run: Path, hub: FakeHub, tmp_path: Path, failing: str, status: int
) -> None:
    un.push(run, NAME)
    hub.failing[failing] = status
    with pytest.raises(un.RunError, match="Nothing was written"):
        un.pull(NAME, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists() and leftovers(tmp_path) == []


def test_without_a_network_the_sentence_says_so(
    run: Path, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", closed)
    for call in (lambda: un.push(run, NAME), lambda: un.pull(NAME, tmp_path / "pulled")):
        with pytest.raises(un.RunError, match="Check the network"):
            call()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(un.InputError, match="HF_HUB_OFFLINE is set"):
        un.pull(NAME, tmp_path / "pulled")


# Folders that are not shared, and repositories that are not taken


@pytest.mark.slow
def test_a_folder_with_a_link_damage_or_no_run_is_not_shared(run: Path, hub: FakeHub, tmp_path: Path) -> None:
    weights = run / "model.safetensors"
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(un.InputError, match="model.safetensors is a link"):
        un.push(run, NAME)
    weights.unlink()
    (run / "evaluation/pgd.json").unlink()
    with pytest.raises(un.InputError, match="damaged or unfinished.*interrupted"):
        un.push(run, NAME)
    (run / "best.safetensors").unlink()
    with pytest.raises(un.InputError, match="has no best.safetensors"):
        un.push(run, NAME)
    for name in ("robust", "mary/robust/more", "mary/", "../robust"):
        with pytest.raises(un.InputError, match="names no repository"):
            un.push(run, name)
    assert hub.repositories == {}


@pytest.mark.slow
def test_files_that_are_no_results_are_not_pulled(run: Path, hub: FakeHub, tmp_path: Path) -> None:
    un.push(run, NAME)
    hub.repositories[NAME].files |= dict.fromkeys(
        ("evil.py", "evaluation/.hidden.json", "evaluation/run.sh", "checkpoints/last.pt", "evaluation/a[1].json"),
        b"{}",
    )
    pulled = un.pull(NAME, tmp_path / "pulled")
    files = {path.relative_to(pulled).as_posix() for path in pulled.rglob("*") if path.is_file()}
    assert files == SHARED | {"evaluation/a[1].json"}


@pytest.mark.slow
def test_code_that_a_pulled_run_names_is_not_run_without_trust(
    run: Path, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"] = {"class_path": "evil_network:Net", "init_args": {}}
    un.push(run, NAME)
    hub.repositories[NAME].files["config.yaml"] = yaml.safe_dump(config).encode()
    (tmp_path / "evil_network.py").write_text("raise SystemExit('it ran')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    un.pull(NAME, "pulled")
    for place in ("pulled", f"hf://{NAME}"):
        with pytest.raises(un.InputError, match="--trust"):
            un.load_run(place)
    assert "evil_network" not in sys.modules


def test_what_is_no_run_is_not_taken_and_no_folder_is_replaced(run: Path, hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories["some/bert"] = Repository(files={"config.json": b"{}", "model.safetensors": b""})
    with pytest.raises(un.InputError, match="some/bert holds no run: it lacks config.yaml"):
        un.pull("some/bert", tmp_path / "bert")
    with pytest.raises(un.InputError, match="a exists: give another folder"):
        un.pull(NAME, run)


# The command line


@pytest.mark.slow
def test_the_commands_push_and_pull(
    run: Path, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["push", "a", NAME, "--license", "mit", "--tags", "digits,small", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert set(value["files"]) == SHARED and value["repository"] == NAME and "/commit/" in value["commit"]
    assert b"license: mit" in hub.repositories[NAME].files["README.md"]
    assert main(["pull", NAME]) == 0 and "unperturbed report runs/robust" in capsys.readouterr().out
    assert str(un.Run.open("runs/robust").threat) == str(un.Run.open("a").threat)
    for words in (["push", "a"], ["pull"], ["pull", NAME], ["evaluate", f"hf://{NAME}"], ["push", "a", "b", "c/d"]):
        assert main(words) == 2
    assert "unperturbed pull mary/robust" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.slow
def test_the_python_of_the_page_on_sharing_works(run: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs/sharing.md").read_text()
    first, second = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    run.rename(run.with_name("at"))
    (run.parent / "runs").mkdir()
    run.with_name("at").rename(run.parent / "runs/at")
    monkeypatch.chdir(run.parent)
    names: dict[str, Any] = {"un": un}
    exec(first + second, names)
    assert names["folder"] == Path("runs/hers") and "/commit/" in names["address"]
    assert names["rows"].startswith("network,") and len(names["arrays"]["ids"]) > 0 and Path("sheet.png").is_file()
