"""Every script of benchmarks/ answers `--help` without measuring anything."""

import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if 'if __name__ == "__main__":' in path.read_text())
CASES = [
    pytest.param(path, id=path.name, marks=[pytest.mark.slow] if path.name in ("__main__.py", "tuning.py") else [])
    for path in SCRIPTS
]
"""Those that import most of the package are slow."""


def test_the_scripts_are_found() -> None:
    assert {"__main__.py", "evaluation.py", "distances.py"} <= {path.name for path in SCRIPTS}


@pytest.mark.parametrize("script", CASES)
def test_a_script_answers_help(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    monkeypatch.syspath_prepend(str(FOLDER))  # as for a script
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(script), run_name="__main__")
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith("usage:")
