"""The files around the package agree with it: version, package data, extras, workflows, citation."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

import unperturbed

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def test_one_version_is_named_everywhere() -> None:
    version = PROJECT["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version == unperturbed.__version__
    newest = re.findall(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert newest == version


def test_every_file_that_is_no_module_is_package_data() -> None:
    package = ROOT / "src/unperturbed"
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["unperturbed"]
    files = [path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    names = [path.relative_to(package).as_posix() for path in files]
    assert len(names) > 3
    for name in names:
        assert any(fnmatch(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns), name


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "src/unperturbed").rglob("*.py")}
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_extras_that_other_extras_name_exist() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    requirements = [requirement for group in extras.values() for requirement in group]
    names = [re.findall(r"\w+", text) for text in re.findall(r"unperturbed\[([^]]*)\]", " ".join(requirements))]
    assert names and all(name in extras for group in names for name in group)


@pytest.mark.parametrize("extra", sorted(PROJECT["project"]["optional-dependencies"]))
def test_the_readme_and_contributing_name_an_extra(extra: str) -> None:
    pages = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    assert f"`{extra}`" in pages or extra in ("test", "dev")


def test_the_pythons_of_the_classifiers_are_those_that_are_tested() -> None:
    listed = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["project"]["classifiers"]))
    tests = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    for job in ("test", "wheel"):
        assert tests["jobs"][job]["strategy"]["matrix"]["python"] == listed
    assert PROJECT["project"]["requires-python"] == f">={listed[0]}"


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_what_a_workflow_makes_is_a_target(file: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    jobs = yaml.safe_load(file.read_text())["jobs"]
    made = [
        word
        for job in jobs.values()
        for step in job["steps"]
        for line in step.get("run", "").splitlines()
        for word in re.findall(r"^make (.*)$", line)[:1]
    ]
    assert made and all(target in targets for words in made for target in words.split())


def test_only_the_job_that_publishes_may_ask_for_an_identity() -> None:
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    asking = [name for name, job in release["jobs"].items() if "id-token" in job.get("permissions", {})]
    assert asking == ["publish"] and release["permissions"] == {"contents": "read"}
    texts = [file.read_text() for file in WORKFLOWS]
    assert not any("secrets." in text for text in texts)
