"""The page that shows commands next to their Python: both sides run on small data, and give the same."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import unperturbed as un
from support.golden import steady
from support.shares import in_ci
from unperturbed.attacks.gradient import Gate, GradientAttack, Suite
from unperturbed.cli.main import main
from unperturbed.data import sources
from unperturbed.data.names import DATASETS
from unperturbed.data.split import Data, Split, array_split
from unperturbed.evaluation import accuracy, curve
from unperturbed.examinations.clock import Start
from unperturbed.imports import OWN, Trust
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/python.md").read_text()
PAIRS = dict(re.findall(r"^```\n(unperturbed [^\n]*)\n```\n\n```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
(SETUP,) = re.findall(r"start with\n\n```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
FUNCTION = """
import torch
from unperturbed.data.split import Data, array_split

def load():
    points = torch.rand(40, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    split = array_split(points, (points[:, 0] > 0).long())
    return Data("points", split, split, ("left", "right"), bounds=(-1.0, 1.0))
"""
NETWORK = """
from torch import nn

def trained():
    return nn.Linear(6, 2)
"""
SHORTER = (
    *((r"=1,3,6", "=1,3"), (r"=0,1,2", "=0")),
    *((r"epochs=20", "1"), (r"epochs=\d+(, )?", ""), (r"un\.Recipe\((?!1)", "un.Recipe(epochs=1, batch_size=16, ")),
    *((r"preact-resnet( --model.width 16)?(?= -)", "preact-resnet --model.width 4"),),
    *((r'"preact-resnet"(, width=16)?', '"preact-resnet", width=4'),),
    *((r"\[1, 3, 6\]", "[1, 3]"), (r"\[0, 1, 2\]", "[0]")),
    (r"--trials \d+", "--trials 3"),
    (r'out="runs/diagnosis"\)', 'out="runs/diagnosis", diagnostics=["margins"])'),
)
"""Replacements that make both sides quick."""
MINUTES = (
    "unperturbed audit",
    "unperturbed explain runs/at runs/trades --examples 200",
    "unperturbed curve runs/at --threat L0",
)
"""Commands that take long also on a few small examples."""
VERDICTS = ("doctor", "audit")
"""Commands whose exit code 1 says what they found."""
ADDED = {
    **dict.fromkeys(("train", "sweep"), "--epochs 1 --batch-size 16"),
    "demo": "--epochs 1",
    "diagnose": "--diagnostics margins",
}


def shorter(text: str) -> str:
    for pattern, replacement in SHORTER:
        text = re.sub(pattern, replacement, text)
    return text


def small(name: str, digits: Data) -> Data:
    """Return 60 training and 16 test examples: digits of three classes, in colour for CIFAR-10."""
    channels = 3 if name == "cifar10" else 1

    def part(split: Split, count: int) -> Split:
        ids = torch.nonzero(split.y < 3).flatten()[:count]
        pixels = split.x[ids].repeat(1, channels, 1, 1).mul(255).round().to(torch.uint8)
        return array_split(pixels, split.y[ids])

    assert digits.test is not None
    return Data(name, part(digits.train, 60), part(digits.test, 16), ("0", "1", "2"), place=name)


def command(line: str) -> Any:
    """Run a command in this process, and return its JSON value."""
    _, verb, *words = re.sub(r"--epochs \d+|--json", "", shorter(line)).split()
    words = [verb, *words, *ADDED.get(verb, "").split(), "--json"]
    words += ["--epochs", "3"] if "asha" in words else []  # it stops runs after a third of their epochs
    printed, said = StringIO(), StringIO()
    with redirect_stdout(printed), redirect_stderr(said):
        code = main(words)
    assert code == 0 or (code == 1 and verb in VERDICTS), f"{line}: {said.getvalue()}"
    return json.loads(printed.getvalue())


def python(code: str) -> dict[str, Any]:
    """Run the page's first lines and these, and return the names that they define; `printed` holds what they print."""
    names: dict[str, Any] = {"printed": []}
    exec("def print(*values): printed.append(values)\n" + SETUP + shorter(code), names)
    return names


def same(shown: Mapping[str, Any], value: Mapping[str, Any]) -> None:
    """Check that a command's JSON has all that a Python result has, but for times and paths."""
    expected = json.loads(json.dumps(steady(value)))
    assert expected
    assert {key: steady(shown)[key] for key in expected} == expected


def same_training(shown: Any, names: Mapping[str, Any], command_folder: Path) -> None:
    trained = names["trained"]
    same(shown, trained.json())
    weights = load_file(command_folder / shown["run"] / "best.safetensors")
    assert all(torch.equal(value.cpu(), weights[name]) for name, value in trained.model.state_dict().items())


def same_evaluation(shown: Any, names: Mapping[str, Any]) -> None:
    same(shown, names["outcome"].json())


def same_radii(shown: Any, names: Mapping[str, Any]) -> None:
    ((printed,),) = names["printed"]
    same(shown, printed)
    accuracies = [outcome.robust_accuracy.value for outcome in names["outcomes"]]
    assert [point["robust_accuracy"] for point in shown["curve"]] == accuracies


def same_worst_case(shown: Any, names: Mapping[str, Any]) -> None:
    same(shown, {key: value for key, value in names["worst"].json().items() if key != "threats"})
    for listed, outcome, image in zip(shown["threats"], names["outcomes"], names["images"], strict=True):
        same(listed, outcome.json())
        same(listed["quantised"], image.json())


def same_curve(shown: Any, names: Mapping[str, Any]) -> None:
    same(shown, names["distances"].json())
    assert names["printed"] == [(names["distances"].curve(),)]


def same_sweep(shown: Any, names: Mapping[str, Any]) -> None:
    sides = (shown["runs"], names["sweep"].json()["runs"])
    of_command, of_python = ([(run["values"], run["evaluation"]["robust_accuracy"]) for run in side] for side in sides)
    assert len(of_command) == 2 and of_command == of_python


def same_checkup(shown: Any, names: Mapping[str, Any]) -> None:
    assert shown["symptoms"] == json.loads(json.dumps(names["checkup"].json()["symptoms"]))


def same_audit(shown: Any, names: Mapping[str, Any]) -> None:
    """Compare two audits; the claim of the command is the stored evaluation, which may round otherwise.

    The verdict follows from the claim, too.
    """
    value = json.loads(json.dumps(names["audit"].json()))
    alike = ("verdict",) if shown["claimed"] == value["claimed"] else ()
    for key in ("causes", "headline", "clean", *alike):
        assert shown[key] == value[key]


def same_diagnosis(shown: Any, names: Mapping[str, Any]) -> None:
    findings = [finding for model in shown["models"] for finding in model["findings"]]
    assert names["printed"] == [([finding["summary"] for finding in findings],)]


def same_report(shown: Any, names: Mapping[str, Any]) -> None:
    """The runs of the command have an evaluation more, and so at least the sections of those of Python."""
    assert {"Training", "Glossary"} <= set(names["printed"][0][0]) <= set(shown["sections"])
    report = names["report"]
    assert Path(shown["page"]).name == report.page.name == "report.html"
    assert Path(shown["card"]).name == report.card.name == "card.md"


def same_explanations(shown: Any, names: Mapping[str, Any]) -> None:
    findings = [each for model in shown["models"] for each in model["explanations"].values()]
    assert names["printed"] == [([finding["summary"] for finding in findings],)]


def same_names(package: Any) -> Callable[[Any, Mapping[str, Any]], None]:
    def check(shown: Any, names: Mapping[str, Any]) -> None:
        listed = {vars(getattr(package, name)).get("name") for name in names["printed"][0][0]}
        built_in = {entry["name"] for entry in shown if ".libraries." not in entry["path"]}
        assert built_in == listed - {None}

    return check


def same_data(shown: Any, names: Mapping[str, Any]) -> None:
    assert {entry["name"]: entry["summary"] for entry in shown} == names["printed"][0][0]


def without_bars(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return certificates without the attacked accuracies, which depend on the other results in the folder."""
    return {name: part for name, part in value.items() if name != "bars"}


CHECKS: dict[str, Callable[[Any, Mapping[str, Any]], None]] = {
    "demo": same_evaluation,
    "evaluate": same_evaluation,
    "evaluate --eps": same_radii,
    "evaluate --quantize": same_worst_case,
    "evaluate --suite corruptions": lambda shown, names: same(shown, names["corrupted"].json()),
    "curve": same_curve,
    "sweep": same_sweep,
    "probable": lambda shown, names: same(shown, names["probable"].json()),
    "certify": lambda shown, names: same(without_bars(shown), without_bars(names["certificates"].json())),
    "transfer": lambda shown, names: same(shown, names["matrix"].json()),
    "compare": lambda shown, names: same(shown, names["comparison"].json()),
    "diagnose": same_diagnosis,
    "explain": same_explanations,
    "doctor": same_checkup,
    "audit": same_audit,
    "report": same_report,
    "methods": same_names(un.methods),
    "models": same_names(un.architectures),
    "datasets": same_data,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """Yield a folder for commands and one for Python, each with two trained runs and a user's files in it."""
    with pytest.MonkeyPatch.context() as patch:
        load, digits = sources._load, sources.load_data("digits")

        def load_small(spec: str, trust: Trust = OWN) -> Data:
            return small(spec, digits) if spec in DATASETS else load(spec, trust)

        patch.setattr(sources, "_load", load_small)
        attack = GradientAttack("PGD-CE", cross_entropy, PGD(steps=3))
        for suites, name in ((accuracy, "pgd"), (accuracy, "standard"), (curve, "nearest")):
            patch.setitem(suites.SUITES, name, Suite(name, (attack,), "a short one"))  # type: ignore[attr-defined]
        fast = Suite("fast", (attack,), "a short one", gate=Gate(accuracy.SUITES["standard"]))  # type: ignore[attr-defined]
        patch.setitem(accuracy.SUITES, "fast", fast)  # type: ignore[attr-defined]
        patch.setattr(sys, "path", [str(ROOT / "examples"), *sys.path])
        patch.setattr(Start, "seconds", 0.001)  # so that the budget of an audit reaches as far on a busy machine
        made = tmp_path_factory.mktemp("command"), tmp_path_factory.mktemp("python")
        patch.syspath_prepend(str(made[0]))
        for folder in made:
            with chdir(folder):
                write_files()
        data, recipe = un.load_data("mnist"), un.Recipe(epochs=1, batch_size=16)
        for method in (un.methods.AT(), un.methods.TRADES()):
            out = f"runs/{method.name}"
            un.train(un.model_for(data), data, un.Threat("Linf", 0.3), method, recipe, out=made[1] / out)
            with chdir(made[0]):
                command(f"unperturbed train --data mnist --threat Linf:0.3 --method {method.name} --out {out}")
                command(f"unperturbed evaluate {out}")
        yield made


def write_files() -> None:
    """Write the files that the page names."""
    draw = np.random.default_rng(0)
    inputs, labels = draw.random((40, 6), dtype=np.float32), np.arange(40) % 2
    np.savez("measurements.npz", x_train=inputs, y_train=labels, x_test=inputs, y_test=labels)
    people = "\n".join(f"{20 + k},{300 * k},{k % 2},{k % 2}" for k in range(40))
    Path("people.csv").write_text(f"age,income,member,label\n{people}\n")
    Path("my_package").mkdir()
    Path("my_package/__init__.py").touch()
    Path("my_package/data.py").write_text(FUNCTION)
    Path("my_package/nets.py").write_text(NETWORK)
    for number in range(24):
        place = Path("path/to/folder") / ("train", "test")[number % 2] / ("cat", "dog")[number // 2 % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(place / f"{number}.png")
    network = un.model_for(un.load_data("cifar10"), "preact-resnet", width=4, seed=3)
    torch.save(network.state_dict(), "theirs.pt")


def _quick_first(lines: Iterable[str]) -> list[Any]:
    """Return the commands; those of minutes last, which run outside CI."""
    rows = sorted(lines, key=lambda line: line.startswith(MINUTES))
    return in_ci(sum(not line.startswith(MINUTES) for line in rows), rows)


@pytest.mark.slow
@pytest.mark.parametrize("line", _quick_first(PAIRS), ids=lambda line: line[12:60])
def test_a_command_and_its_python_give_the_same(line: str, folders: tuple[Path, Path]) -> None:
    verb, code = line.split()[1], PAIRS[line]
    with chdir(folders[0]):
        shown = command(line if "--resume" in line else line.replace("--out runs/at", "--out runs/new"))
    with chdir(folders[1]):
        names = python(code if "resume=" in code else code.replace('out="runs/at"', 'out="runs/new"'))
    if verb == "train":
        return same_training(shown, names, folders[0])
    option = next((option for option in (" --eps", " --quantize", " --suite corruptions") if option in line), "")
    return CHECKS[verb + option](shown, names)


OTHERS = ("CONTRIBUTING.md", "docs/diagnosing.md", "docs/evaluating.md", "docs/methods.md", "docs/defences.md")
NOT_RUN = {
    "--devices": "processes do not see the small data: tests/cli/test_devices.py launches them",
    "CIFAR-10-C": "the published files are large: tests/data/test_corrupted.py makes a folder of their form",
    "torchvision": "an optional package: tests/architectures/test_libraries.py has such networks",
}
"""Why commands of these pages are not executed here; those of docs/results.md took hours of training."""


def other_commands() -> list[str]:
    """Return the commands of the other pages, each once."""
    texts = "".join((ROOT / page).read_text() for page in OTHERS)
    lines = {line.partition(" #")[0].strip() for line in texts.splitlines() if line.startswith("unperturbed ")}
    return sorted(lines - set(PAIRS))


@pytest.mark.slow
@pytest.mark.parametrize("line", _quick_first(other_commands()), ids=lambda line: line[12:60])
def test_a_command_of_another_page_runs(line: str, folders: tuple[Path, Path]) -> None:
    reason = next((reason for text, reason in NOT_RUN.items() if text in line), None)
    if reason is not None:
        pytest.skip(reason)
    with chdir(folders[0]):
        for eps in ("0", "0.1", "0.2", "0.3"):
            if f"runs/eps-{eps}" in line and not Path(f"runs/eps-{eps}").exists():
                command(f"unperturbed train --data mnist --threat Linf:{eps} --method at --out runs/eps-{eps}")
        own_folder = line.replace("--out runs/sweep", f"--out runs/sweep-{other_commands().index(line)}")
        assert command(own_folder.replace("--train-examples 500", "--train-examples 50"))


def test_a_python_side_has_three_lines_at_most() -> None:
    assert all(len([line for line in code.splitlines() if line]) <= 3 for code in PAIRS.values())


def test_the_page_has_every_command_of_the_readme() -> None:
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("unperturbed ")]
    assert lines and set(lines) <= set(PAIRS)
