"""The documentation speaks of the code as it is: its code runs, its commands are understood, its tables are true."""

import ast
import importlib.util
import re
import shlex
import sys
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch
from lightning_fabric import Fabric

import test_layers
import unperturbed.methods
from support.examples import Counted, find_classes, make_batch, network, noise_for
from unperturbed import catalogue as names
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.cli.options import Parsed, parse
from unperturbed.evaluation import accuracy
from unperturbed.examinations.by_name import BUILT_IN
from unperturbed.examinations.compare import CLAIMS
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method
from unperturbed.networks.precision import InPrecision
from unperturbed.specs.trees import choose
from unperturbed.suites.fast import FAST
from unperturbed.threat import Threat
from unperturbed.training.step import optimisation_step

ROOT = Path(__file__).parents[1]
PACKAGE = Path(names.__file__).parent
FOLDERS = ("", "explanation", "tutorials")
PAGES = [*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / "docs" / folder).glob("*.md"))]
METHODS = {kind.name: kind for kind in find_classes(unperturbed.methods, Method)}  # type: ignore[attr-defined]


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page that are in a language ("" for none)."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    return [code for tag, code in found if tag == language]


def commands() -> list[str]:
    lines = [line for page in PAGES for block in blocks(str(page.relative_to(ROOT)), "") for line in block.splitlines()]
    return sorted({line.partition(" #")[0].strip() for line in lines if line.startswith("unperturbed ")})


def sections() -> dict[str, str]:
    """Return the text on each method."""
    methods, _, _ = (ROOT / "docs/methods.md").read_text().partition("\n# Maximisers")
    return dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", methods, re.DOTALL | re.MULTILINE))


def step(method: Method) -> tuple[Counted, dict[str, torch.Tensor]]:
    """Take one optimisation step, and return the network, which counted its passes, and the terms."""
    counted = Counted(network("norm"))
    fabric = Fabric(accelerator="cpu", devices=1)
    wrapped, optimiser = fabric.setup(counted, torch.optim.SGD(counted.parameters(), lr=0.1))
    batch = make_batch(8)
    threat, noise = Threat("Linf", 0.1), noise_for(batch)
    terms, _ = optimisation_step(
        fabric, InPrecision(counted), wrapped, optimiser, method, batch, threat, noise
    )  # fmt: skip
    return counted, terms


# Links and paths


ADDED = {
    "src/unperturbed/data/forms/svmlight.py",
    "src/unperturbed/engines/retrying.py",
    "src/unperturbed/methods/random_noise.py",
    "tests/methods/test_random_noise.py",
    "src/unperturbed/attacks/random_points.py",
    "src/unperturbed/suites/quick.py",
    "src/unperturbed/examinations/diagnostics/steepness.py",
    "src/unperturbed/data/named/two_moons.py",
    "src/unperturbed/architectures/linear.py",
}
"""Files that CONTRIBUTING adds as examples."""


def slug(heading: str) -> str:
    """Return what a link calls a heading."""
    return re.sub(r"[^\w -]", "", heading.lstrip("#").strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith("http"):
            place, _, part = target.partition("#")
            file = page.parent / place if place else page
            assert file.exists(), target
            assert not part or part in {slug(line) for line in file.read_text().splitlines() if line[:1] == "#"}, target
    for target in re.findall(r"`((?:src|tests|docs|examples)/[\w/]+(?:\.\w+)?/?)`", text):
        assert (ROOT / target).exists() or target in ADDED, target


def test_the_architecture_names_every_room_and_no_other_file() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    rows = dict(re.findall(r"^\| `([\w./]+)` \| (.*) \|$", text, re.MULTILINE))
    files = {path.name for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")}
    folders = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    assert set(rows) == files | folders
    for room, content in rows.items():
        for file in re.findall(r"`(\w+\.py)`", content):
            assert (PACKAGE / room / file).is_file(), f"{room}{file}"


def test_the_architecture_gives_the_order_of_layers() -> None:
    (order,) = (block for block in blocks("docs/architecture.md", "") if block.startswith("errors "))
    assert tuple(order.split()) == test_layers.LAYERS


def test_the_table_of_silent_failures_names_files_that_test_them() -> None:
    rows = re.findall(r"^\| (S\d+) \| .* \| `(.*)` \|$", (ROOT / "tests/README.md").read_text(), re.MULTILINE)
    assert [number for number, _ in rows] == [f"S{number}" for number in range(1, 26)]
    for number, file in rows:
        assert re.search(rf"{number}\b|_{number.lower()}\b|_{number.lower()}_", (ROOT / "tests" / file).read_text()), (
            number
        )


# Commands


@pytest.mark.parametrize("line", commands())
def test_a_command_is_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "examples")])
    _, command, *words = shlex.split(line)
    over = [each for option, each in pairwise(words) if option == "--over"]
    swept = [each.split(",")[0].replace("=log:", "=").partition("..")[0] for each in over]
    words += [f"--{each}" for each in swept if each.startswith("method")]
    module = import_module(f"unperturbed.cli.{command}")
    given: Parsed = parse(module.parser(), words, module.POSITIONAL)
    assert isinstance(choose(given.trees["method"], "methods", "method", default=AT()).build(), Method)
    if getattr(given.plain, "threat", None):
        assert all(Threat.parse(each).eps >= 0 for each in given.threat.split(","))


def test_the_pages_show_every_command() -> None:
    from unperturbed.cli.main import COMMANDS

    shown = {line.split()[1] for line in commands()} | {"demo"}
    assert shown == set(COMMANDS)


PYTHON = {
    "README.md": 1,
    "CONTRIBUTING.md": 9,
    "docs/defences.md": 1,
    "docs/diagnosing.md": 1,
    "docs/evaluating.md": 1,
    "docs/foreign_models.md": 1,
    "docs/loops.md": 5,
    "docs/python.md": 30,
    "docs/really_robust.md": 1,
    "docs/sharing.md": 2,
    "docs/tutorials/explain.md": 3,
    "docs/tutorials/first_model.md": 3,
    "docs/tutorials/tables.md": 3,
}
"""Blocks of Python, each of which is executed: those of docs/python.md in test_docs_python.py, those of
CONTRIBUTING in test_contributing.py, too, that of docs/sharing.md in test_push_and_pull.py, those of the tutorials in
test_site.py, the others below."""


def test_every_block_of_python_is_executed() -> None:
    counts = {str(page.relative_to(ROOT)): len(blocks(str(page.relative_to(ROOT)), "python")) for page in PAGES}
    assert {page: count for page, count in counts.items() if count} == PYTHON


# The README


def test_the_tree_of_the_readme_has_every_folder_within_forty_lines() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    start = lines.index("src/unperturbed/")
    end = lines.index("```", start)
    listed = [line.split()[0] for line in lines[start + 1 : end] if line.startswith("  ")]
    assert sorted(listed) == sorted(f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py"))
    assert lines.index("## Where things are") < 20
    assert all(line[:19].strip() and line[19:].strip() for line in lines[start + 1 : end])


def test_the_python_of_the_readme_works(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a single epoch and a short suite."""
    quick = Suite("fast", (GradientAttack("PGD-CE", cross_entropy, PGD(steps=3)),), FAST.note)
    monkeypatch.setitem(accuracy.SUITES, "fast", quick)
    (code,) = blocks("README.md", "python")
    assert len([line for line in code.splitlines() if line]) <= 10 and "epochs=5" in code
    exec(code.replace("epochs=5", "epochs=1"), {})
    first, second = capsys.readouterr().out.splitlines()
    assert "n=143" in first and FAST.note in second and "n=359" in second


def test_the_python_of_the_page_on_evaluating_works(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("docs/evaluating.md", "python")
    exec(code, {})
    assert "n=20" in capsys.readouterr().out


def test_the_python_of_the_page_on_diagnosing_works(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("docs/diagnosing.md", "python")
    exec(code, {})
    assert "margin" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.long
def test_the_python_of_the_page_on_real_robustness_works(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("docs/really_robust.md", "python")
    exec(code, {"__name__": "page"})
    honest, masked = capsys.readouterr().out.splitlines()
    assert honest.startswith("no sign of obfuscation;") and masked.startswith("obfuscated (zero gradient, shattered)")


def test_the_page_on_diagnosing_names_every_diagnostic_and_claim() -> None:
    text = (ROOT / "docs/diagnosing.md").read_text()
    measured = text.partition("## The diagnostics")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", measured, re.MULTILINE)) == sorted(BUILT_IN)
    assert re.findall(r"^\| (.*?) \| .* \| it falls \|$", text, re.MULTILINE) == [each.sentence for each in CLAIMS]


@pytest.mark.long
@pytest.mark.slow
def test_the_defence_of_the_docs_falls_once_it_has_a_gradient(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With short suites and fewer examples."""
    for name, draws in (("pgd", 1), ("rand", 6)):
        attack = GradientAttack("PGD-CE", cross_entropy, PGD(steps=8), draws=draws)
        monkeypatch.setitem(accuracy.SUITES, name, Suite(name, (attack,), "a test"))
    (code,) = blocks("docs/defences.md", "python")
    exec(code.replace("torch.arange(100)", "torch.arange(40)"), {})
    lines = capsys.readouterr().out.splitlines()
    clean, robust = zip(*(map(float, re.findall(r"([\d.]+)% \[", line)) for line in lines), strict=True)
    assert clean[1] == clean[2] < clean[0] and robust[2] < robust[1] - 10


def test_the_readme_lists_the_methods_that_there_are() -> None:
    text = (ROOT / "README.md").read_text()
    (line,) = re.findall(r"\*\*Methods\*\*: (.*?);", text, re.DOTALL)
    assert set(re.findall(r"`([\w-]+)`", line)) == set(METHODS)
    (line,) = re.findall(r"\*\*Models\*\*: (.*?);", text, re.DOTALL)
    assert set(re.findall(r"`([\w-]+)`", line)) == set(names.listing("architectures"))


# The methods


def shown(value: object) -> str:
    """Return a default as the pages write it: of a maximiser, its steps and what it does not do by default."""
    if not is_dataclass(value):
        return repr(value)
    plain = type(value)()
    given = [f for f in fields(value) if f.name == "steps" or getattr(value, f.name) != getattr(plain, f.name)]
    return f"{type(value).__name__}({', '.join(f'{f.name}={shown(getattr(value, f.name))}' for f in given)})"


def defaults(kind: type[Method]) -> set[str]:
    options = {f.name: getattr(kind(), f.name) for f in fields(kind)} if is_dataclass(kind) else {}
    assert all(f.default is not MISSING or f.default_factory is not MISSING for f in fields(kind)) if options else True
    found = options | {"ramp": kind.ramp} | ({"repeats": kind.repeats} if kind.repeats > 1 else {})
    return {f"{name}={shown(value)}" for name, value in found.items()}


def test_every_method_has_a_section() -> None:
    assert list(sections()) == [name for name in sections() if name in METHODS]
    assert set(sections()) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_section_gives_the_defaults_and_the_cost(name: str) -> None:
    text = " ".join(sections()[name].split())
    found = re.search(r"- Defaults: (.*?)\. - Cost: (\d+) forward, (\d+) backward to the inputs, (\d+) to the", text)
    assert found is not None and " - When: " in text
    assert set(re.findall(r"`([^`]+)`", found[1])) == defaults(METHODS[name])
    counted, _ = step(METHODS[name]())
    counts = (counted.forwards, counted.to_inputs, counted.to_weights)
    assert tuple(8 * int(number) for number in found.groups()[1:]) == counts


def test_every_maximiser_has_a_row() -> None:
    _, _, text = (ROOT / "docs/methods.md").read_text().partition("\n# Maximisers")
    assert set(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE)) == set(names.listing("maximise"))


# The worked example


@pytest.fixture
def worked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the method that CONTRIBUTING adds, imported from a file, under the name that it would have."""
    code, *_ = blocks("CONTRIBUTING.md", "python")
    (tmp_path / "methods").mkdir()
    file = tmp_path / "methods/random_noise.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location("unperturbed.methods.random_noise", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(names, "PACKAGE", tmp_path)
    names.listing.cache_clear()
    return module


@pytest.fixture(autouse=True)
def listings_are_read_again() -> object:
    yield
    names.listing.cache_clear()


def test_the_worked_example_trains(worked: ModuleType) -> None:
    counted, terms = step(worked.RandomNoise(size=0.5))
    assert set(terms) == {"noisy"} and terms["noisy"].isfinite()
    assert (counted.forwards, counted.to_inputs, counted.to_weights) == (8, 0, 8)


def test_the_worked_example_is_listed_with_its_first_line(worked: ModuleType) -> None:
    entry = names.listing("methods")["noise"]
    assert entry.path.endswith(".methods.random_noise.RandomNoise")
    assert entry.summary == (worked.RandomNoise.__doc__ or "").partition("\n")[0]


def test_the_worked_examples_reference_test_passes_and_can_fail(
    worked: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, code, *_ = blocks("CONTRIBUTING.md", "python")
    (name,) = (node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef))
    scope: dict[str, object] = {}
    exec(code, scope)
    check = scope[name]
    assert callable(check)
    check()
    monkeypatch.setattr(worked.RandomNoise, "perturb", lambda self, model, batch, *_: worked.Inner(batch.x))
    with pytest.raises(AssertionError):
        check()


def test_the_worked_diagnostic_is_the_example() -> None:
    (code,) = (block for block in blocks("CONTRIBUTING.md", "python") if "def steepness" in block)
    _, _, body = (ROOT / "examples/own_diagnostic.py").read_text().split('"""', 2)
    assert code.strip() == body.strip()
