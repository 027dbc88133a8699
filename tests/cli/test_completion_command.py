"""Completion in a shell: bash itself is asked what it would complete."""

import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from unperturbed.catalogue import listing
from unperturbed.cli.completion import SHELLS, script
from unperturbed.cli.main import COMMANDS, main

ASK = """
source /dev/stdin
COMP_WORDS=({words}); COMP_CWORD=$(({count} - 1)); COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}
_shtab_unperturbed
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def completed(*words: str) -> set[str]:
    """Return what bash proposes for the last word."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    line = " ".join(("unperturbed", *words))
    quoted = " ".join(f"'{word}'" for word in ("unperturbed", *words))
    code = ASK.format(words=quoted, count=len(words) + 1, line=line)
    done = subprocess.run([bash, "-c", code], input=script("bash"), capture_output=True, text=True, check=True)
    return {word.strip() for word in done.stdout.split()}


@pytest.mark.long
@pytest.mark.slow
def test_bash_completes_commands_options_and_names() -> None:
    assert completed("ev") == {"evaluate"}
    assert completed("train", "--meth") == {"--method"}
    assert completed("train", "--method", "tra") == {"trades"}
    assert completed("train", "--method", "") >= set(listing("methods"))
    assert completed("train", "--epochs", "3", "--alarm", "") == {"warn", "stop", "add-steps", "off"}
    assert completed("evaluate", "--suite", "st") == {"standard"}
    assert completed("completion", "") == set(SHELLS)


def test_bash_proposes_folders_for_runs_and_files_for_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("runs", "results"):
        Path(name).mkdir()
    Path("rows.yaml").touch()
    assert completed("evaluate", "r") == {"runs", "results"}
    assert completed("evaluate", "--config", "ro") == {"rows.yaml"}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_has_every_option_of_every_command(shell: str) -> None:
    text = script(shell)
    for command in COMMANDS:
        for action in import_module(f"unperturbed.cli.{command}").parser()._actions:
            for option in action.option_strings:
                assert option.lstrip("-") in text, f"{command} {option}"


@pytest.mark.slow
def test_the_command_prints_the_script_with_its_lines_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == f"{script('bash')}\n"


def test_another_shell_is_refused_with_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zhs"]) == 2
    assert "'zsh'" in capsys.readouterr().err
