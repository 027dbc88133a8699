"""Parsers for untrusted text files, with limits: a small file cannot fill memory or run for hours."""

import errno
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from unperturbed.errors import InputError

LARGEST = 16 * 2**20
"""The largest file that is parsed as text, in bytes."""
MOST_VALUES = 2_000_000
"""The largest number of values in a YAML document; a value behind aliases counts at every use."""
DEEPEST = 200
"""The largest depth of a YAML or JSON document."""

_ENDLESS = 10**100
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def regular(path: Path) -> Path:
    """Return the path of a regular file; raises OSError for a device or a pipe, and for a file beyond the memory.

    A sparse file of terabytes takes no space on a disk, nor in an archive.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    if path.exists() and path.stat().st_size > memory():
        raise OSError(errno.EFBIG, "it is larger than the memory", str(path))
    return path


def read_bytes(path: Path, limit: int) -> bytes:
    """Return the bytes of a regular file.

    Raises InputError for a device, a pipe or a folder, and for a file above the limit.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is not a regular file: give a regular file.")
        if (size := path.stat().st_size) > limit:
            raise InputError(f"{path} has {size:,} bytes, but at most {limit:,} are read: is it the right file?")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): check the path.") from error


def read_small(path: Path, limit: int = LARGEST) -> str:
    """Return the text of a UTF-8 file; raises InputError for other encodings, and like `read_bytes`."""
    try:
        text = read_bytes(path, limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8 ({error}): restore it, or give another file.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_yaml(text: str, where: object) -> Any:
    """Return the value of a YAML document; `where` names it in messages.

    Raises InputError for a text that is not YAML, nests too deeply, or expands by aliases (`*name`) to more than
    2,000,000 values: a few lines of nested aliases expand to more values than any memory holds.
    """
    try:
        count = _expanded(text, where)
        if count > MOST_VALUES:
            raise InputError(
                f"{where} stands for {_about(count)} values through its aliases (*name), but at most {MOST_VALUES:,} "
                "are read: write the values out."
            )
        return _Loader(text).get_single_data()
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"{where} is not YAML ({' '.join(str(error).split())}).") from error


def yaml_parts(text: str, where: object) -> Iterator[str | tuple[str, str]]:
    """Yield the unconverted texts of a YAML document, and its entries (key, value) of two texts.

    Yields nothing for a text that is not YAML. Raises InputError for one that nests too deeply.
    """
    try:
        _expanded(text, where)
        nodes = [yaml.compose(text, Loader=_Loader)]
    except (yaml.YAMLError, ValueError):
        return
    seen = set[int]()
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.ScalarNode):
            yield str(node.value)
        elif node is not None and id(node) not in seen:  # aliases lead to a node again
            seen.add(id(node))
            for part in node.value:
                pair = part if isinstance(part, tuple) else (part,)
                nodes += pair
                if len(pair) == 2 and all(isinstance(side, yaml.ScalarNode) for side in pair):
                    yield str(pair[0].value), str(pair[1].value)


def parse_json(text: str | bytes, where: object) -> Any:
    """Return the value of a JSON text; raises InputError for a text that is not JSON or nests too deeply."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise InputError(f"{where} nests too deeply to be read: is it the right file?") from error
    except ValueError as error:
        raise InputError(f"{where} is not JSON ({error}).") from error
    level = [value]
    for _ in range(DEEPEST):  # whoever walks through the value later does so by recursion
        level = [part for parts in map(_parts, level) for part in parts if isinstance(part, dict | list)]
        if not level:
            return value
    raise InputError(f"{where} nests more than {DEEPEST} levels deep: is it the right file?")


def memory() -> int:
    """Return the memory of this machine in bytes, within its control group's limit; 2^40 if unknown.

    An upper bound for allocations: the free memory varies, and the system may swap.
    """
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        total = 2**40
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(file).read_text()))
        except (OSError, ValueError):
            continue
    return total


def free_memory() -> int:
    """Return the memory that could be taken now without swapping, in bytes; `memory` where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kibibytes = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return memory()
    return min(memory(), 1024 * kibibytes)


def check_memory(size: int, noun: str, remedy: str) -> None:
    """Raise InputError where `size` bytes exceed the machine's memory, before they are allocated."""
    if size > (limit := memory()):
        raise InputError(f"{noun} would take {in_words(size)} of memory, but there are {in_words(limit)}: {remedy}.")


def in_words(size: int) -> str:
    """Return a number of bytes in words."""
    for power, unit in enumerate(("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")):
        if size < 1024 ** (power + 1) or unit == "PiB":
            return f"{size / 1024**power:,.4g} {unit}"
    raise AssertionError(size)


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _expanded(text: str, where: object) -> int:
    """Return the number of values of a YAML document with aliases expanded; 10^100 or more if it contains itself.

    Reads only the events and stops at the deepest nesting allowed: the parser's time grows with its square.
    """
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            if len(open_nodes) > DEEPEST:
                raise InputError(f"{where} nests more than {DEEPEST} levels deep: is it the right file?")
            open_nodes.append((event.anchor, 1))
            size = 0
            sizes |= {event.anchor: _ENDLESS} if event.anchor else {}  # until its end: it may hold itself
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
            sizes |= {anchor: size} if anchor else {}
        elif isinstance(event, yaml.AliasEvent):
            size = sizes.get(event.anchor, 1)
        else:
            size = int(isinstance(event, yaml.ScalarEvent))
            sizes |= {event.anchor: 1} if getattr(event, "anchor", None) else {}
        open_nodes[-1] = open_nodes[-1][0], open_nodes[-1][1] + size
    return open_nodes[0][1]


def _about(count: int) -> str:
    return "endlessly many" if count >= _ENDLESS else f"10^{math.floor(math.log10(count))} or more"
