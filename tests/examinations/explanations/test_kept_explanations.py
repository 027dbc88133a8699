"""A killed `explain` resumes: what was finished is read, and the result is that of an undisturbed call."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_explain import LINF, images, network_of_images

from unperturbed.examinations.explain import explain
from unperturbed.examinations.explanations.base import Explanation
from unperturbed.examinations.kept_explanations import KeptExplanations
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Distribution, Finding, Line, Number
from unperturbed.reports.charts.pictures import Grid

NAMES = ("saliency", "agreement", "alignment", "prototypes", "counterfactuals")
PROGRAM = """
import sys
import torch
sys.path[:0] = {paths!r}
import test_kept_explanations
torch.set_num_threads(1)
test_kept_explanations.explained({out!r})
"""


def explained(out: str, **changed: Any) -> None:
    settings = {"train": images(12), "explanations": NAMES, "out": out} | changed
    explain(network_of_images(), images(), LINF, **settings)
    (Path(out) / "whole").touch()


def counted(subject: Subject) -> Explanation:
    """Count calls in a log: the hash of a function covers the globals that it reads."""
    logging.getLogger("counted").warning("called")
    return Explanation(Finding("Count", f"{len(subject.test.x)} inputs."))


def result(folder: Path) -> dict[str, Any]:
    """Return every file that a reader of the folder sees: scores, arrays and pictures."""
    files = [path for path in folder.iterdir() if path.suffix in (".json", ".png")]
    arrays = load_file(folder / "explanation.safetensors")
    return {path.name: path.read_bytes() for path in files} | {name: value.tolist() for name, value in arrays.items()}


def finished(folder: Path) -> int:
    return len(list((folder / "finished").glob("[!.]*.safetensors")))


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_call_resumes_and_its_result_is_that_of_an_undisturbed_one(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    program = PROGRAM.format(paths=[str(Path(__file__).parent), *sys.path], out=str(killed))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for count in (1, 3):
        process = subprocess.Popen([sys.executable, "-c", program], env=environment)
        while finished(killed) < count and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL and not (killed / "whole").exists()
    times = {path.name: path.stat().st_mtime_ns for path in (killed / "finished").glob("[!.]*.safetensors")}
    assert len(times) >= 3
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert all((killed / "finished" / name).stat().st_mtime_ns == at for name, at in times.items()), "made again"
    subprocess.run([sys.executable, "-c", program.replace(str(killed), str(whole))], env=environment, check=True)
    assert result(killed) == result(whole)


@pytest.mark.slow
def test_what_differs_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number, changed in enumerate(
        [{}, {"seed": 1}, {"train": images(9)}, {"examples": 4}, {"judge": network_of_images()}]
    ):
        caplog.clear()
        for _ in range(2):
            explained(str(tmp_path), explanations=[counted], **changed)
        assert caplog.messages.count("called") == 1, number
    caplog.clear()
    (file,) = (tmp_path / "finished").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-9] + b"?" * 9)
    explained(str(tmp_path), explanations=[counted], judge=network_of_images())
    assert caplog.messages.count("called") == 1, "a damaged file is not read"


def test_an_explanation_is_read_as_it_was_written(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    cell = torch.rand(1, 4, 4, generator=draw, dtype=torch.float64).numpy()
    finding = Finding(
        "Title",
        "A sentence.",
        (Number("a", 0.1, 3, 0.0, 0.3, "%"),),
        (Distribution("d", (0.1, 0.2), (4, 7)),),
        (Line("l", ("1", "2"), (None, 0.5)),),
        ("note",),
    )
    grid = Grid("g", "Grid", "About.", ("row",), ("image", "map"), (((cell, False), (-cell, True)),))
    explanation = Explanation(finding, (grid,), {"x": torch.arange(6).view(2, 3).T})
    kept = KeptExplanations(tmp_path, {"weights": "1"})
    kept.write("n", "code", explanation)
    read = kept.read("n", "code")
    assert read is not None and read.finding == finding and torch.equal(read.arrays["x"], explanation.arrays["x"])
    (copy,) = read.grids
    assert (copy.name, copy.rows, copy.columns, copy.alt) == (grid.name, grid.rows, grid.columns, grid.alt)
    assert [(values.tolist(), signed) for values, signed in copy.cells[0]] == [
        (cell.tolist(), False), ((-cell).tolist(), True),
    ]  # fmt: skip
    assert kept.read("n", "other code") is None and kept.read("m", "code") is None
    assert KeptExplanations(tmp_path, {"weights": "2"}).read("n", "code") is None


@pytest.mark.slow
def test_pictures_of_other_examples_do_not_stay_beside_new_ones(tmp_path: Path) -> None:
    explained(str(tmp_path), explanations=["saliency", "agreement"])
    (tmp_path / "mine.json").write_text("{}")
    (tmp_path / "saliency-natural.png").touch()
    explained(str(tmp_path), explanations=["agreement"])
    assert (tmp_path / "saliency-natural-0-0.png").exists(), "of the same examples"
    index = json.loads((tmp_path / "explanation.json").read_text())
    outside = tmp_path.parent / "outside.json"
    outside.touch()
    index["figures"] = [{"file": name} for name in ("saliency-natural.json", "../outside.json", "config.yaml", 3)]
    (tmp_path / "config.yaml").touch()
    (tmp_path / "explanation.json").write_text(json.dumps(index))
    explained(str(tmp_path), explanations=["agreement"], examples=4)
    left = {path.name for path in tmp_path.iterdir()}
    assert "saliency-natural.json" not in left and "saliency-natural-0-0.png" not in left
    assert {"mine.json", "config.yaml", "agreement.json"} <= left and outside.exists()
