"""Record what `unperturbed demo` prints as a picture, demo.svg beside this file: python docs/images/record.py."""

import os
import re
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from unperturbed.cli import console
from unperturbed.cli.main import main

PICTURE = Path(__file__).with_name("demo.svg")
# The fonts of the reader's own machine; rich would have them fetched.
LOCAL = re.sub(r"@font-face \{\{.*?\}\}|<!--.*?-->", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
FORMAT = re.sub(r"[ \t]+\n", "\n", LOCAL).replace("Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono")


def record(*words: str) -> Console:
    """Run the command in a folder of its own, and return the console that took down all it printed."""
    recorder = Console(record=True, width=88, force_terminal=False, highlight=False)
    recorder.print(f"$ unperturbed {' '.join(words)}", style="bold")
    console.Console = lambda **_: recorder  # type: ignore[assignment, misc]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        code = main(words)
        os.chdir(PICTURE.parent)
    if code != 0:
        raise SystemExit(code)
    return recorder


if __name__ == "__main__":
    record("demo").save_svg(str(PICTURE), title="unperturbed", code_format=FORMAT, unique_id="demo")
