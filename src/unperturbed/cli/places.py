"""Places in object stores on the command line: URLs of folders become folders on this machine."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from unperturbed.cli.console import show_as
from unperturbed.cli.options import FLAGS
from unperturbed.errors import InputError
from unperturbed.storage.file_copy import file_copy, is_in_published_folder
from unperturbed.storage.manifest import root_of
from unperturbed.storage.opened import (
    all_files,
    check_object_store,
    opened,
    opened_file,
    opened_objects,
    results_and_weights,
)
from unperturbed.storage.places import divided, is_object_store, is_url

READ = ("data", "extra", "weights")
"""Options whose URLs are read where they are used, and recorded."""
CONFIG = "config"
"""The option of a file with further options."""
ONLY_READ = ("compare", "doctor", "export", "push", "suite", "transfer")
"""Commands that write nothing into the run folders that they are given."""
ALSO_WITH_OUT = ("diagnose", "explain")
"""Commands that write into the run folders that they are given also with --out."""
ABOVE = ("report", "diagnose", "explain")
"""Commands that write into the folder above several run folders, without --out."""
FILES = (("report", "out"), ("export", "adversarial"), ("export", "sheet"))
"""Options with the name of a file to be written."""
FOLDERS = (("report", "figures"),)
"""Options with the name of a folder of files to be written."""


@contextmanager
def on_this_machine(command: str, words: Sequence[str]) -> Iterator[list[str]]:
    """Yield the words of a command with paths on this machine in place of URLs; changes there are published.

    Raises:
        InputError: for a URL in an option that takes none, and as `opened` does.
    """
    places = {} if command == "pull" else dict(_places(words))
    has_out = any(word.partition("=")[0] == "--out" for word in words)
    runs = [url for option, url in places.values() if option is None]
    if command in ABOVE and not has_out and runs and len(_positionals(words)) > 1:
        raise InputError(f"Several runs are given, one of them as {runs[0]}: give the place of the result by --out.")
    local, folders = list(words), dict[str, bool]()
    with ExitStack() as stack:
        roots, configs = dict[int, str](), dict[int, str]()
        for index, (option, url) in places.items():
            if (command, option) in FILES:
                file = stack.enter_context(opened_file(url))
                local[index] = _with(words[index], url, file)
                show_as(file, url)
                continue
            if option == CONFIG:
                configs[index] = url
                continue
            _check(command, option, url)
            if (command, option) in FOLDERS and not is_in_published_folder(url):
                folder = stack.enter_context(opened_objects(url))
                local[index] = _with(words[index], url, folder)
                show_as(folder, url)
                continue
            roots[index] = root_of(url)
            into = option is not None or not (command in ONLY_READ or (has_out and command not in ALSO_WITH_OUT))
            folders[roots[index]] = folders.get(roots[index], False) or into
        needs = all_files if command == "train" else results_and_weights
        opened_folders = {root: stack.enter_context(opened(root, writing, needs)) for root, writing in folders.items()}
        for index, root in roots.items():
            url = places[index][1]
            within = divided(url)[1][len(divided(root)[1]) :]
            local[index] = _with(words[index], url, opened_folders[root].joinpath(*within))
            show_as(opened_folders[root], root)
        for index, url in configs.items():  # perhaps in an opened folder
            copy = file_copy(url)
            local[index] = _with(words[index], url, copy)
            show_as(copy, url)
        yield local


def _places(words: Sequence[str]) -> Iterator[tuple[int, tuple[str | None, str]]]:
    """Yield the position of every URL among the words, with its option (None: an argument).

    URLs of data and weights are left out, and so are runs on the hub, which `push` and `pull` take.
    """
    for index, (option, word) in enumerate(_with_options(words)):
        value = word.partition("=")[2] if option is not None and word.startswith("--") else word
        if is_url(value) and option not in READ and (option is not None or is_object_store(value)):
            yield index, (option, value)


def _with_options(words: Sequence[str]) -> Iterator[tuple[str | None, str]]:
    """Yield every word with its option; None for a positional argument."""
    waiting: str | None = None
    for word in words:
        if word.startswith("--"):
            option, equals, _ = word[2:].partition("=")
            waiting = None if equals or option in FLAGS else option
            yield option, word
        else:
            yield waiting, word
            waiting = None


def _positionals(words: Sequence[str]) -> list[str]:
    return [word for option, word in _with_options(words) if option is None]


def _check(command: str, option: str | None, url: str) -> None:
    """Raise InputError for a URL of an option that takes none."""
    if option not in (None, "out") and (command, option) not in FOLDERS:
        raise InputError(f"--{option} takes a place on this machine, not {url}: download it first.")
    check_object_store(url)


def _with(word: str, url: str, path: Path) -> str:
    return word.removesuffix(url) + str(path)
