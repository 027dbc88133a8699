"""SIGTERM and SIGHUP as interruptions, which keep finished work and print the command that resumes."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from unperturbed.engines.ending import ENDING


class Interrupted(KeyboardInterrupt):
    """The end of the process by a signal; its number is the argument."""


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `Interrupted` in this block, unless they are ignored (as under nohup)."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return

    def interrupt(number: int, _: object) -> None:
        raise Interrupted(number)

    before = {number: signal.getsignal(number) for number in ENDING}
    mine = [number for number, handler in before.items() if handler is not signal.SIG_IGN and handler is not None]
    for number in mine:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, before[number])


def code_of(error: KeyboardInterrupt) -> int:
    """Return the exit code of an interruption: 128 and the number of the signal, which is 130 for Ctrl-C."""
    return 128 + (int(error.args[0]) if isinstance(error, Interrupted) else signal.SIGINT)


def words_of(error: KeyboardInterrupt) -> str:
    """Return the message of an interruption."""
    return f"interrupted by {signal.Signals(error.args[0]).name}" if isinstance(error, Interrupted) else "interrupted"
