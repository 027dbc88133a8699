"""The page on models of other libraries: its Python runs."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from unperturbed.architectures.libraries.base import LibraryModel

PAGE = (Path(__file__).parents[1] / "docs/foreign_models.md").read_text()


def test_the_block_of_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm", reason="timm is not installed: make test-foreign installs it")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(code, names)
    trained, again = names["trained"].model, names["again"]
    x = names["data"].test.x[:5]
    assert isinstance(again, LibraryModel) and torch.equal(trained.eval()(x), again(x))


def test_the_way_to_export_makes_a_program_for_any_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```\n(batch = .*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
    exec(code, {"torch": torch, "model": model})
    program, x = torch.export.load("network.pt2").module(), torch.rand(7, 3, 32, 32)
    torch.testing.assert_close(program(x), model(x))
