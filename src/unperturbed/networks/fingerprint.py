"""What a network is: everything that its answers can depend on, as a flat table of short texts."""

import hashlib
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from unperturbed.networks.code import Child, Unseen
from unperturbed.networks.contents import Indescribable, of_the_process, opened, plain

MOST = 500_000
"""Parts that are described at most."""


@dataclass(frozen=True)
class Description:
    """A network in words.

    Attributes:
        parts: a short text or hash for each object that was reached, by its path from the network.
        doubts: the paths of what cannot be described, with the reason.
    """

    parts: Mapping[str, str]
    doubts: tuple[str, ...]

    def hash(self, other: "Description") -> str:
        """Return a SHA-256 over what two descriptions of one network share: the rest changes with every forward."""
        moved = {path for path, text in self.parts.items() if other.parts.get(path) != text}
        digest = hashlib.sha256()
        for path, text in self.parts.items():
            if not (moved and _moves(path, moved)):
                digest.update(f"{path}\0{text}\n".encode(errors="surrogatepass"))
        return digest.hexdigest()


def _moves(path: str, moved: AbstractSet[str]) -> bool:
    """Tell whether a path, or an object that it leads through, is among those that changed."""
    ends = [match.start() for match in re.finditer(r"[.\[]", path)] + [len(path)]
    return any(path[:end] in moved for end in ends)


def describe(network: object) -> Description:
    """Return everything that can be reached from a network (or any object), and that its answers can depend on.

    Bytecode of the classes and functions met, with their closures, defaults and the globals that they name; plain
    attributes; tensors, arrays and networks in any container or object; hooks, also those for all modules. Places in
    memory, names of files, random states and the order of sets do not enter, so that a new process describes the
    same network alike.
    """
    parts, doubts = dict[str, str](), list[str]()
    seen = dict[int, tuple[object, str]]()  # the objects are kept, or their ids would be given away again
    stack: list[Child] = [("network", network), *(("process" + path, value) for path, value in of_the_process())]
    while stack:
        path, value = stack.pop()
        if len(parts) >= MOST:
            doubts.append(f"{path} (more than {MOST:,} parts)")
            break
        text = plain(value)
        if text is None and id(value) in seen:
            text = f"the same as {seen[id(value)][1]}"
        if text is not None:
            parts[path] = text
            continue
        seen[id(value)] = (value, path)
        try:
            parts[path], inner = opened(value)
            stack.extend((path + step, each) for step, each in reversed(list(inner)))
        except Exception as error:  # a foreign object may raise anything when looked at
            parts[path] = f"unknown {type(value).__qualname__}"
            reason = str(error) if isinstance(error, Indescribable) else f"{type(error).__name__} when looked at"
            kind = "" if isinstance(value, Unseen) else f", a {type(value).__qualname__}"
            doubts.append(f"{path}{kind} ({reason})")
    return Description(parts, tuple(doubts))
