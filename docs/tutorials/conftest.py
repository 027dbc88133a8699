"""The Python of the tutorials is executed by pytest, page by page, each in a new folder."""

import os
from tempfile import TemporaryDirectory
from typing import Any

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser


def enter(names: dict[str, Any]) -> None:
    """Change into a new folder before the first block of a page."""
    names["_home"], names["_folder"] = os.getcwd(), TemporaryDirectory()
    os.chdir(names["_folder"].name)


def leave(names: dict[str, Any]) -> None:
    """Change back, and delete the folder."""
    os.chdir(names["_home"])
    names["_folder"].cleanup()


pytest_collect_file = Sybil([PythonCodeBlockParser()], patterns=["*.md"], setup=enter, teardown=leave).pytest()
