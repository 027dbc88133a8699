"""The program in a process of its own: interrupted and gone on with, and the demonstration."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import unperturbed.cli.main

PROGRAM = (sys.executable, "-m", "unperturbed")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(unperturbed.cli.main.__file__).parents[2])}


def with_interrupts() -> None:
    """Let the process be interrupted even where the tests run in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.long
@pytest.mark.slow
def test_an_interrupted_run_goes_on_with_resume(tmp_path: Path) -> None:
    words = (*PROGRAM, "train", "--data", "digits", "--method", "rs-fgsm", "--epochs", "12", "--out", "run", "--json")
    process = subprocess.Popen(
        words, cwd=tmp_path, env=ENVIRONMENT, text=True, preexec_fn=with_interrupts,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    until = time.monotonic() + 120
    while not (tmp_path / "run/checkpoints/last.pt").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), err
    assert "--resume" in err and "The last checkpoint is" in err

    done = subprocess.run((*words, "--resume"), cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["epochs"] == 12, done.stderr
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 13))


@pytest.mark.long
@pytest.mark.slow
def test_the_demonstration_prints_its_table(tmp_path: Path) -> None:
    done = subprocess.run((*PROGRAM, "demo"), cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "an upper bound, checked by standard" in done.stdout and "n=359" in done.stdout
    result = json.loads((tmp_path / "runs/demo/evaluation/fast.json").read_text())
    assert "runs/demo/report.html" in done.stdout and (tmp_path / "runs/demo/report.html").exists()
    assert result["clean_accuracy"] > 0.9 and result["robust_accuracy"] > 0.5


def test_an_unforeseen_error_ends_in_a_sentence_and_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from unperturbed.cli import main as module

    def broken() -> int:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(module, "main", broken)
    monkeypatch.setattr(sys, "argv", ["unperturbed", "evaluate"])
    assert module.program() == 1
    text = capsys.readouterr().err
    assert "ZeroDivisionError: division by zero" in text and "--debug" in text and "Traceback" not in text
    monkeypatch.setattr(sys, "argv", ["unperturbed", "evaluate", "--debug"])
    with pytest.raises(ZeroDivisionError):
        module.program()


def test_an_unforeseen_error_names_the_innermost_line_of_the_users_own_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not that of the library which the user's code calls, nor this package's, which calls the user's."""
    from unperturbed.cli import main as module

    own = tmp_path / "own.py"
    own.write_text("import json\n\ndef outer():\n    return inner()\n\ndef inner():\n    return json.loads('{')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["unperturbed", "evaluate"])
    monkeypatch.setattr(module, "main", __import__("own").outer)
    assert module.program() == 1
    assert f"in your code, {own}:7" in "".join(capsys.readouterr().err.split("\n"))

    monkeypatch.setattr(module, "main", lambda: json.loads("{"))
    monkeypatch.setattr(module.sysconfig, "get_path", lambda _: str(Path(json.__file__).parents[1]))
    monkeypatch.setattr(module.site, "getsitepackages", lambda: [str(Path(__file__).parent)])
    assert module.program() == 1
    err = capsys.readouterr().err
    assert "your code" not in err and "decoder.py" in "".join(err.split("\n"))
