"""Models of other libraries by their text, such as "timm:resnet18"; the sources are found by file."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from unperturbed.catalogue import listing
from unperturbed.imports import OWN, Trust, follow

if TYPE_CHECKING:
    from unperturbed.architectures.libraries.base import LibraryModel, Source


@cache
def sources() -> "tuple[Source, ...]":
    """Return the sources of models that have a file in `libraries`."""
    entries = listing("architectures/libraries").values()
    return tuple(cast("Source", follow(entry.path, "--model", OWN)) for entry in entries)


def source_of(text: str) -> "Source | None":
    """Return the source of the model that a text names; None for names and import paths."""
    return next((source for source in sources() if source.fits(text)), None)


def maker_of(text: str, options: Sequence[str], option: str, trust: Trust) -> "Callable[..., LibraryModel] | None":
    """Return the function that makes the model of a text with options of these names; None without a source.

    Raises InputError for a text in a file that leads to more than code of an installed library, unless the caller
    named it or trusts the file.
    """
    source = source_of(text)
    if source is None:
        return None
    if not source.is_plain(text, options):
        trust.check(text, option)
    return source.maker(text)


def needs_trust(text: str, options: Sequence[str]) -> bool:
    """Tell whether a model that a file names, with options of these names, is built only with the user's trust."""
    source = source_of(text)
    return ":" in text if source is None else not source.is_plain(text, options)


def without_download(class_path: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments of a recorded model for weights that are loaded afterwards: nothing is downloaded."""
    if source_of(class_path) is None or "pretrained" not in arguments:
        return arguments
    return {**arguments, "pretrained": False}
