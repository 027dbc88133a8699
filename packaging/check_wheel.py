"""Check the installed wheel: its files are those of the source tree, and its command runs.

Run it with the Python of the environment that the wheel is installed in, from anywhere: `make dist` does.
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "unperturbed"
COMMAND = Path(sys.executable).with_name("unperturbed")


def source_files() -> set[str]:
    """Return the files of the package in the source tree, relative to `src`."""
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(PACKAGE.parent).as_posix() for path in files}


def installed_files() -> set[str]:
    """Return the files of the installed package; fails if it is installed from the source tree in editable mode."""
    installed = [file for file in distribution("unperturbed").files or () if "__pycache__" not in file.parts]
    assert not any(Path(str(file.locate())).is_relative_to(PACKAGE) for file in installed), "an editable install"
    return {file.as_posix() for file in installed if file.parts[0] == "unperturbed"}


def sdist_files() -> set[str]:
    """Return the files of the package in the source distribution, relative to `src`."""
    (archive,) = (ROOT / "dist").glob("unperturbed-*.tar.gz")
    with tarfile.open(archive) as opened:
        names = [member.name.split("/", 2) for member in opened.getmembers() if member.isfile()]
    return {rest for _, folder, rest in (name for name in names if len(name) == 3) if folder == "src"}


def run(folder: str, *words: str) -> str:
    """Run the installed command in a folder, and return what it prints; fails where the command does."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(COMMAND), *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"unperturbed {' '.join(words)}: exit code {done.returncode}\n{done.stderr}"
    return done.stdout


def main() -> None:
    """Compare the files, then run the command."""
    expected = source_files()
    for where, files in (("wheel", installed_files()), ("source distribution", sdist_files())):
        missing = sorted(expected - files)
        assert not missing, f"the {where} lacks {', '.join(missing)}"
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    with tempfile.TemporaryDirectory() as folder:
        assert run(folder, "--version").strip() == f"unperturbed {version}"
        assert "trades" in run(folder, "methods")
        result = json.loads(run(folder, "demo", "--epochs", "2", "--json"))
        assert 0 < result["robust_accuracy"] < result["clean_accuracy"] <= 1, result
        assert "<style" in (Path(folder) / result["report"]).read_text(encoding="utf-8"), "the page has no style"
    print(
        f"unperturbed {version} on Python {sys.version.split()[0]}: {len(expected)} files, the demo's clean accuracy "
        f"{result['clean_accuracy']:.1%}, robust {result['robust_accuracy']:.1%}"
    )


if __name__ == "__main__":
    main()
