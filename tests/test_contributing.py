"""Each example of CONTRIBUTING works as it stands: one file, put into a copy of the package, and used at once."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FILES: dict[str, str] = {
    path: code
    for path, code in re.findall(
        r"`src/unperturbed/([\w/]+\.py)`(?:(?!`src/).)*?\n```python\n(.*?)```",
        (ROOT / "CONTRIBUTING.md").read_text(),
        re.DOTALL,
    )
}
COMMANDS = {
    "train": "train --data two_moons --model linear --method noise --method.size 0.5 --epochs 1 --out run --device cpu",
    "suite": "evaluate run --suite quick --examples 8",
    "attack": "evaluate run --suite random-points,pgd-10 --examples 8",
    "diagnostic": "diagnose run --diagnostics steepness --examples 20",
    "form": "evaluate run --data points.svm --suite quick --batch-size 16",
    "engine": "evaluate run --suite quick --examples 8 --engine retrying --out again",
    "datasets": "datasets",
    "models": "models",
}
RUN = """
import json, sys
from contextlib import redirect_stdout
from io import StringIO
from unperturbed.cli.main import main
values = {}
for name, line in json.loads(sys.argv[1]).items():
    with redirect_stdout(StringIO()) as printed:
        code = main([*line.split(), "--json"])
    values[name] = json.loads(printed.getvalue()) if code == 0 else code
print(json.dumps(values))
"""


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what each command prints, in a copy of the package that holds the examples' files."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "src/unperturbed", folder / "unperturbed", ignore=shutil.ignore_patterns("__pycache__"))
    for path, code in FILES.items():
        (folder / "unperturbed" / path).write_text(code)
    work = folder / "work"
    work.mkdir()
    (work / "points.svm").write_text("".join(f"{k % 2} 1:{k / 40} 2:{1 - k / 40}\n" for k in range(40)))
    arguments = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r}){RUN}", json.dumps(COMMANDS)]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=work, check=False)
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout)
    assert all(not isinstance(value, int) for value in made.values()), done.stderr
    return made


def test_the_examples_are_one_file_each_and_no_file_of_the_package_but_the_method() -> None:
    kinds = (
        "methods",
        "attacks",
        "suites",
        "examinations/diagnostics",
        "data/named",
        "data/forms",
        "architectures",
        "engines",
    )
    assert sorted(str(Path(path).parent) for path in FILES) == sorted(kinds)
    there = [path for path in FILES if (ROOT / "src/unperturbed" / path).exists()]
    assert there == ["methods/random_noise.py"]
    assert FILES[there[0]] == (ROOT / "src/unperturbed" / there[0]).read_text()


@pytest.mark.long
@pytest.mark.slow
def test_a_data_set_a_model_and_a_method_are_trained_with_by_their_names(values: dict[str, Any]) -> None:
    assert "two_moons" in [entry["name"] for entry in values["datasets"]]
    assert "linear" in [entry["name"] for entry in values["models"]]
    assert values["train"]["validation_examples"] == 40 and values["suite"]["threat"] == "L2:0.1"


@pytest.mark.slow
def test_a_form_of_data_is_found_by_its_file(values: dict[str, Any]) -> None:
    assert values["form"]["n"] == 8 and values["form"]["environment"]["batch_size"] == 8


@pytest.mark.slow
def test_an_engine_executes_the_blocks_by_its_name(values: dict[str, Any]) -> None:
    assert values["engine"]["counts"] == values["suite"]["counts"]
    assert not any("Loaded from" in text for text in values["engine"]["warnings"])


@pytest.mark.slow
def test_a_suite_and_an_attack_are_evaluated_with_by_their_names(values: dict[str, Any]) -> None:
    assert (values["suite"]["suite"], values["suite"]["n"]) == ("quick", 8)
    assert [attack["name"] for attack in values["suite"]["attacks"]] == ["PGD-10"]
    assert [attack["name"] for attack in values["attack"]["attacks"]] == ["Random-points", "PGD-10"]
    assert values["attack"]["attacks"][0]["forwards"] > 0


@pytest.mark.slow
def test_a_diagnostic_is_run_by_its_name(values: dict[str, Any]) -> None:
    (finding,) = values["diagnostic"]["models"][0]["findings"]
    assert finding["title"] == "Steepness of the loss" and finding["numbers"][0]["value"] > 0
