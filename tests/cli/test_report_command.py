"""`unperturbed report` as a user meets it."""

import json
from pathlib import Path

import pytest
from test_main import Run, runner


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs a command in a folder with the trained run `a`."""
    call = runner(tmp_path, monkeypatch, capsys, 100)
    words = ("--data", "blobs.npz", "--threat", "Linf:0.05", "--epochs", "1", "--method", "erm", "--out", "a")
    assert call("train", *words)[0] == 0
    return call


@pytest.mark.long
@pytest.mark.slow
def test_a_report_is_written_and_its_place_is_printed(run: Run) -> None:
    code, out, err = run("report", "a", "--card", "card.md", "--figures", "figures")
    assert code == 0 and "Report: a/report.html" in out and "Model card: card.md" in out, err
    assert Path("a/report.html").read_text().count("<html") == 1 and list(Path("figures").glob("*.pdf"))
    assert run("evaluate", "a", "--suite", "pgd")[0] == 0
    code, out, _ = run("report", "a", "--json", "--out", "page.html")
    value = json.loads(out)
    assert code == 0 and value["page"] == "page.html" and "Results" in value["sections"] and value["damaged"] == []
    assert "vectors" in Path("page.html").read_text()


def test_no_runs_are_wrong_usage(run: Run) -> None:
    for words in ((), ("nowhere",), (".",)):
        code, _, err = run("report", *words)
        assert code == 2 and "unperturbed train" in " ".join(err.split())


def test_damage_is_a_warning(run: Run) -> None:
    Path("a/result.json").write_text("{")
    code, _, err = run("report", "a")
    assert code == 0 and "result.json" in err and "result.json" in Path("a/report.html").read_text()
