"""The description of a network: everything that its outputs can depend on, as a flat table of short texts."""

import hashlib
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from unperturbed.networks.code import Child, Unseen
from unperturbed.networks.contents import Indescribable, of_the_process, opened, plain

MOST = 500_000
"""The largest number of described parts."""


@dataclass(frozen=True)
class Description:
    """A network in words.

    Attributes:
        parts: a short text or hash for each object that was reached, by its path from the network.
        doubts: the paths of objects that cannot be described, with the reason.
    """

    parts: Mapping[str, str]
    doubts: tuple[str, ...]

    def hash(self, earlier: "Description") -> str:
        """Return a SHA-256 of the parts that are equal in two descriptions; the others change with every forward."""
        moved = {path for path, text in self.parts.items() if earlier.parts.get(path) != text}
        digest = hashlib.sha256()
        for path, text in self.parts.items():
            if not (moved and _moves(path, moved)):
                digest.update(f"{path}\0{text}\n".encode(errors="surrogatepass"))
        return digest.hexdigest()


def _moves(path: str, moved: AbstractSet[str]) -> bool:
    """Tell whether a path, or an object on it, has changed."""
    ends = [match.start() for match in re.finditer(r"[.\[]", path)] + [len(path)]
    return any(path[:end] in moved for end in ends)


def describe(network: object) -> Description:
    """Return everything reachable from a network (or any object) that its outputs can depend on.

    Bytecode of the classes and functions met, with their closures, defaults and the globals that they name; plain
    attributes; tensors, arrays and networks in any container or object; hooks, also those for all modules. Addresses,
    names of files, random states and the order of sets are excluded, so that a new process describes the same network
    in the same way.
    """
    parts, doubts = dict[str, str](), list[str]()
    visited = dict[int, tuple[object, str]]()  # the objects are kept, so that their ids stay unique
    stack: list[Child] = [("network", network), *(("process" + path, value) for path, value in of_the_process())]
    while stack:
        path, value = stack.pop()
        if len(parts) >= MOST:
            doubts.append(f"{path} (more than {MOST:,} parts)")
            break
        text = plain(value)
        if text is None and id(value) in visited:
            text = f"the same as {visited[id(value)][1]}"
        if text is not None:
            parts[path] = text
            continue
        visited[id(value)] = (value, path)
        try:
            parts[path], inner = opened(value)
            stack.extend((path + step, part) for step, part in reversed(list(inner)))
        except Exception as error:  # a foreign object may raise anything
            parts[path] = f"unknown {type(value).__qualname__}"
            reason = str(error) if isinstance(error, Indescribable) else f"{type(error).__name__} when looked at"
            kind = "" if isinstance(value, Unseen) else f", a {type(value).__qualname__}"
            doubts.append(f"{path}{kind} ({reason})")
    return Description(parts, tuple(doubts))
