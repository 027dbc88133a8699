"""The files around the package agree with it: version, package data, extras, workflows, citation."""

import re
import shlex
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
    words = [word for line in made for word in shlex.split(line)]
    variables = [word.partition("=")[0] for word in words if "=" in word]
    assert words and all(word in targets for word in words if "=" not in word)
    assert all(re.search(rf"^{name} [?:]?=", (ROOT / "Makefile").read_text(), re.MULTILINE) for name in variables)


def test_only_the_job_that_publishes_may_ask_for_an_identity() -> None:
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    asking = [name for name, job in release["jobs"].items() if "id-token" in job.get("permissions", {})]
    assert asking == ["publish"] and release["permissions"] == {"contents": "read"}
    texts = [file.read_text() for file in WORKFLOWS]
    assert not any("secrets." in text for text in texts)


SURROUNDINGS = (
    *("CITATION.cff", "SECURITY.md", "CONTRIBUTING.md", "Dockerfile", "Makefile", "pyproject.toml", "constraints.txt"),
    *(".pre-commit-config.yaml", ".dockerignore", "MANIFEST.in"),
)


@pytest.mark.parametrize("file", [*(ROOT / name for name in SURROUNDINGS), *WORKFLOWS], ids=lambda file: file.name)
def test_no_file_names_the_host_of_a_registry(file: Path) -> None:
    """Where packages come from is the choice of the machine that installs them."""
    hosts = r"(pypi\.org|pythonhosted|pytorch\.org/whl|anaconda\.org|index-url\s*=?\s*http|docker\.io|ghcr\.io)"
    assert re.findall(hosts, file.read_text()) == []


def test_the_citation_has_what_its_format_requires() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "license", "version"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0" and all("name" in author for author in citation["authors"])
    assert citation["license"] == PROJECT["project"]["license"]


def test_the_hooks_before_a_commit_are_the_programs_of_make_check() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = [hook["entry"].split() for hook in repository["hooks"]]
    assert repository["repo"] == "local" and all(hook["language"] == "system" for hook in repository["hooks"])
    (check,) = re.findall(r"^check: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    programs = re.findall(r"\$\(BIN\)/(\w+)(?: (check|format))?", check)
    assert [tuple(entry[:2]) if entry[0] == "ruff" else entry[0] for entry in entries[:3]] == [
        name if name == "mypy" else (name, verb) for name, verb in programs
    ]
    (layers,) = entries[3:]
    assert layers[:3] == ["python", "-m", "pytest"] and all((ROOT / path).is_file() for path in layers[3:])


def test_the_image_copies_files_that_exist_and_starts_the_command() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from=" not in line]
    names = [name for line in copied for name in line]
    assert names and all((ROOT / name).exists() for name in names)
    ignored = [line.strip() for line in (ROOT / ".dockerignore").read_text().splitlines()]
    assert not set(names) & set(ignored)
    (entry,) = (line for line in lines if line.startswith("ENTRYPOINT "))
    (program,) = PROJECT["project"]["scripts"]
    assert entry == f'ENTRYPOINT ["{program}"]'
    python = re.findall(r"^FROM python:(3\.\d+)-slim", "\n".join(lines), re.MULTILINE)
    assert len(python) == 2 and f"Programming Language :: Python :: {python[0]}" in PROJECT["project"]["classifiers"]


def test_the_policy_on_versions_and_on_vulnerabilities_is_written_down() -> None:
    policy = (ROOT / "CONTRIBUTING.md").read_text().partition("## Versions and deprecation")[2]
    assert "DeprecationWarning" in policy and "minor version" in policy
    assert "## Reporting" in (ROOT / "SECURITY.md").read_text()
