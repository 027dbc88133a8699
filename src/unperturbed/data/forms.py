"""The forms of data, and the choices behind a place (`PLACE?label=COLUMN`) that apply to each form."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

from unperturbed.data import pictures
from unperturbed.errors import InputError


@dataclass(frozen=True)
class Choice:
    """Choices within a dataset: a configuration, the image and the label column; None: the only one.

    Written behind the place of the data: `PLACE?config=NAME&image=COLUMN&label=COLUMN`. `resize=HEIGHT,WIDTH` applies
    to images, `scale=unit` to tables.
    """

    config: str | None = None
    image: str | None = None
    label: str | None = None
    resize: str | None = None
    scale: str | None = None

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
    """A form of data.

    Attributes:
        name: its name in messages.
        takes: the choices that apply.
        remedy: the alternative to choices that do not apply.
    """

    name: str
    takes: tuple[str, ...]
    remedy: str

    def check(self, choice: Choice, place: str) -> None:
        """Raise InputError for a choice that does not apply to this form."""
        for name in NAMES:
            value = getattr(choice, name)
            if value is not None and name not in self.takes:
                option = _OPTIONS.get(name, f"?{name}=")
                raise InputError(
                    f"{name}={value} ({option}) does not apply to {place}, which is {self.name}: {self.remedy}."
                )


BUILT_IN = Form("a built-in data set", (), "leave it out")
FUNCTION = Form("a function", (), "leave it out, and do this in the function")
NPZ = Form(
    "an .npz file",
    (),
    "its arrays go by the names x_train, y_train, x_test, y_test (or x, y), so rename or resize them in the file",
)
TABLE = Form("a table", ("label", "scale"), "it takes label=COLUMN and scale=unit, and all other columns are features")
IMAGES = Form("a folder of image files", ("resize",), "it takes resize=H,W, and its class folders are the labels")
PARQUET = Form(
    "data in Parquet files",
    ("config", "image", "label", "resize"),
    "scale=unit is of tables (--scale 255 is of the model), so leave it out",
)
