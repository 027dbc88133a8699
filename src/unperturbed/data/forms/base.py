"""The definition of a form of data, and the choices behind a place (`PLACE?label=COLUMN`)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from unperturbed.data import pictures
from unperturbed.data.split import Data
from unperturbed.errors import InputError


@dataclass(frozen=True)
class Choice:
    """Choices within a dataset: a configuration, the image and the label column; None: the only one.

    Written behind the place of the data: `PLACE?config=NAME&image=COLUMN&label=COLUMN`. `resize=HEIGHT,WIDTH` applies
    to images, `scale=unit` to tables, `root=FOLDER` to a class of datasets (`torchvision.datasets:CIFAR10?root=data`).
    """

    config: str | None = None
    image: str | None = None
    label: str | None = None
    resize: str | None = None
    scale: str | None = None
    root: str | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of resized images; raises InputError for other texts."""
        match = None if self.resize is None else re.fullmatch(r"(\d{1,5}),(\d{1,5})", self.resize)
        size = None if match is None else (int(match[1]), int(match[2]))
        if self.resize is not None and (size is None or not 1 <= size[0] * size[1] <= pictures.MOST_PIXELS):
            raise InputError(f"The size is {self.resize!r}, but must be HEIGHT,WIDTH in pixels, such as 32,32.")
        return size


NAMES = tuple(field.name for field in fields(Choice))
_OPTIONS: Mapping[str, str] = {"label": "--label, or ?label=", "resize": "--resize, or ?resize="}
"""The spelling of a choice, with the option of the command line if it has one."""


@dataclass(frozen=True)
class Form:
    """A form of data; a new form is a value of this type in a file of this folder.

    Attributes:
        name: its name in messages.
        example: an example of a place, for messages.
        fits: whether a place, which need not exist, is of this form; no place is of two forms.
        load: returns the data from their place, their name and the choices.
        takes: the choices that apply.
        remedy: the alternative to choices that do not apply.
        load_copy: for data on other machines, returns them from a copy on this one, and raises InputError without one.
    """

    name: str
    example: str
    fits: Callable[[str], bool]
    load: Callable[[str, str, Choice], Data]
    takes: tuple[str, ...] = ()
    remedy: str = "leave it out"
    load_copy: Callable[[str, str, Choice], Data] | None = None

    def check(self, choice: Choice, place: str) -> None:
        """Raise InputError for a choice that does not apply to this form."""
        for name in NAMES:
            value = getattr(choice, name)
            if value is not None and name not in self.takes:
                option = _OPTIONS.get(name, f"?{name}=")
                raise InputError(
                    f"{name}={value} ({option}) does not apply to {place}, which is {self.name}: {self.remedy}."
                )
