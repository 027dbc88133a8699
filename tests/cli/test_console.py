"""The progress display."""

import io
import math
import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from unperturbed.cli import console


@pytest.mark.slow
@given(speed=st.floats(0.01, 100), done=st.integers(1, 50), total=st.integers(51, 1000))
def test_at_a_steady_speed_the_time_left_is_right(speed: float, done: int, total: int) -> None:
    left = console.seconds_left(done / speed, done, total - done)
    assert left is not None and math.isclose(left, (total - done) / speed)


def test_before_anything_is_done_no_time_is_known() -> None:
    assert console.seconds_left(5.0, 0, 100) is None


@pytest.mark.parametrize(("count", "shown"), [(1, "0% -:--:--"), (2, "25% 0:05:00"), (3, "50% 0:03:20")])
def test_the_bar_shows_the_bound_and_the_time_left_in_80_columns(
    count: int, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With reports minutes apart, and more words than there is room for."""
    screen, clock = io.StringIO(), [1000.0]
    plain = Console(file=screen, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(console, "Console", lambda **_: plain)
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    with console.progress() as report:
        for number in range(count):
            clock[0] += 100
            report(100 * number, 400, "Linf:8/255: 865 of 1000 examples still stand, with many more words after it")
    (line, *_) = [line for line in screen.getvalue().replace("\r", "\n").splitlines() if shown[:3] in line]
    assert "Linf:8/255: 865 of 1000 exam" in line and all(part in line for part in shown.split())


def test_nothing_is_shown_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress() as report:
        report(1, 2, "half")
    assert capsys.readouterr() == ("", "")


def test_piped_work_writes_a_line_an_epoch_and_an_estimate_every_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    with console.progress() as report:
        for step in range(1, 7):
            clock[0] += 5
            report(step, 6, f"epoch {(step + 1) // 2}/3: loss {7 - step}.5")
    lines = capsys.readouterr().err.splitlines()
    told = [line.partition(", about")[0] for line in lines]
    assert told == ["epoch 1/3 done: loss 5.5", "epoch 2/3 done: loss 3.5", "epoch 3/3 done: loss 1.5"]
    with console.progress() as report:
        for minute in range(6):
            clock[0] += 30
            report(minute, 6, "APGD-CE: 100 examples")
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[0] == "APGD-CE: 100 examples: 17%, about 0:02:30 left"
    assert len(err.splitlines()) == 3


def test_control_characters_of_strangers_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """An escape sequence in a class name could rename the window, or hide what was written before it."""
    hostile = "\x1b]0;title\x07 \u202eabc"
    console.say(hostile, "warning")
    console.show(hostile)
    console.show(console.table(hostile, [hostile], [[hostile]]))
    seen = "".join(capsys.readouterr())
    assert not {"\x1b]", "\x07", "\u202e"} & {seen[k : k + n] for k in range(len(seen)) for n in (1, 2)}
    assert "\\x1b]0;title\\x07" in seen


@pytest.mark.parametrize(
    "word", ["runs/at", "two words", "it's", "Grün", "a\x1bb", "tab\there", "b\udcffad", "\\x41", ""]
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_shell_reads_the_words_of_a_suggested_command(
    word: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    line = console.shell_words([word, "x"])
    line.encode(encoding)
    assert console.printable(line) == line
    command = ["bash", "-c", f"printf '%s\\0' {line}"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == os.fsencode(word) + b"\0x\0"
