"""Pages of the site that are made from the code, and what makes the repository's texts fit the site."""

import os
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import unperturbed as un
from unperturbed.catalogue import summary_of
from unperturbed.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "README.md": "generated/readme",
    "CONTRIBUTING.md": "generated/contributing",
    "CHANGELOG.md": "generated/changelog",
    "tests/README.md": "generated/tests",
}
"""Pages outside `docs/`, and their names on the site."""
PACKAGES = ("methods", "maximise", "attacks", "architectures")
TITLES = {"maximise": "maximisers", "architectures": "networks"}
LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)")
CODE = re.compile(r"``.*?``|`[^`]*`")


def write(folder: Path) -> None:
    """Write the pages made from the code into a folder; a page that has not changed keeps its date."""
    folder.mkdir(exist_ok=True)
    pages = {
        "commands.md": _commands(),
        "python.md": _names("Functions and types", _outside_the_packages(), un),
        **{f"{name}.md": _package(name) for name in PACKAGES},
        **{f"{place.partition('/')[2]}.md": (ROOT / file).read_text() for file, place in OUTSIDE.items()},
        "files.md": _files(),
    }
    for name, text in pages.items():
        page = folder / name
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def links_within_the_site(app: Any, page: str, source: list[str]) -> None:
    """Turn the links of the repository into links of the site. A link to a file of code becomes its name."""
    outside = {f"generated/{place.partition('/')[2]}": file for file, place in OUTSIDE.items()}
    home = ROOT / outside.get(page, f"docs/{page}.md")
    here = Path(app.srcdir, page).parent

    def linked(match: re.Match[str]) -> str:
        target = (home.parent / match[1]).resolve()
        if not target.is_relative_to(ROOT):
            return match[1]
        name = target.relative_to(ROOT).as_posix()
        if name in OUTSIDE:
            return os.path.relpath(ROOT / "docs" / f"{OUTSIDE[name]}.md", here)
        if name.startswith("docs/"):
            return os.path.relpath(target, here)
        return os.path.relpath(ROOT / "docs/generated/files.md", here)

    if page.startswith("generated/") and page not in outside:
        return
    source[0] = LINK.sub(linked, source[0])


def plain_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    r"""Escape what would be markup in a docstring outside of code: `|x|`, `a * b` and `x_`."""
    text = "\n".join(lines)
    parts, end = [], 0
    for match in CODE.finditer(text):
        parts += [_escaped(text[end : match.start()]), match[0]]
        end = match.end()
    lines[:] = "".join([*parts, _escaped(text[end:])]).split("\n")


def _escaped(text: str) -> str:
    return re.sub(r"(?<![\\*])[|*](?!\*)|(?<=\w)_(?=\W|$)", r"\\\g<0>", text)


def _commands() -> str:
    pages = [
        "# Commands\n\nWhat `unperturbed COMMAND --help` prints. The [page on the command line](../command_line.md) "
    ]
    pages += ["has the options that hold for all commands, and the exit codes.\n"]
    for command in COMMANDS:
        module = import_module(f"unperturbed.cli.{command}")
        summary = summary_of(Path(str(module.__file__)))
        pages.append(f"\n## {command}\n\n{summary}\n\n```text\n{module.parser().format_help().strip()}\n```\n")
    return "".join(pages)


def _names(title: str, names: list[str], package: ModuleType) -> str:
    entries = "".join(_entry(name, getattr(package, name)) for name in names if not name.startswith("__"))
    return f"# {title}\n{entries}"


def _outside_the_packages() -> list[str]:
    """Return the public names that no page of a package describes."""
    homes = tuple(f"unperturbed.{package}." for package in PACKAGES)
    return [
        name for name in un.__all__ if not str(getattr(getattr(un, name), "__module__", homes[0])).startswith(homes)
    ]


def _package(name: str) -> str:
    package = import_module(f"unperturbed.{name}")
    return _names(f"Classes of {TITLES.get(name, name)}", dir(package), package)


def _entry(name: str, value: Any) -> str:
    path = f"{value.__module__}.{value.__qualname__}"
    directive = "autoclass" if isinstance(value, type) else "autofunction"
    options = "\n:members:" if isinstance(value, type) and not issubclass(value, Exception) else ""
    return f"\n## {name}\n\n```{{eval-rst}}\n.. {directive}:: {path}{options.replace(chr(10), chr(10) + '   ')}\n```\n"


def _files() -> str:
    text = "# Files of code\n\nFiles of the repository that other pages name.\n"
    for file in sorted([*(ROOT / "examples").glob("*.py"), *(ROOT / "docs/images").glob("*.py")]):
        text += f"\n## {file.relative_to(ROOT)}\n\n```python\n{file.read_text()}```\n"
    return text
