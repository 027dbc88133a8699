"""Programs from files, for evaluation: of `torch.export` (.pt2), and TorchScript (.pt, .ts, .torchscript)."""

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unperturbed.architectures.libraries.base import (
    LibraryModel,
    Numbers,
    Source,
    normalisation,
    numbers_of,
)
from unperturbed.errors import InputError
from unperturbed.types import Inputs

SUFFIXES = (".pt2", ".pt", ".ts", ".torchscript")


class Program(nn.Module):
    """A program from a file; its modes were fixed when it was written."""

    def __init__(self, program: Any) -> None:
        super().__init__()
        self.program = program

    def forward(self, x: Inputs) -> Any:
        """Return the program's output."""
        return self.program(x)

    def train(self, mode: bool = True) -> "Program":
        """Note the mode, which changes nothing: an exported program refuses a change."""
        self.training = mode
        return self


def maker(text: str) -> Callable[..., LibraryModel]:
    """Return the function that makes the model of a text."""
    path = Path(text)

    def make(input_shape: tuple[int, ...], classes: int, normalise: Numbers = None) -> LibraryModel:
        """Return the program, after the chosen normalisation (by default none)."""
        program = Program(_read(path))
        layer = normalisation(normalise, (0.0, 1.0), input_shape[0])
        record = {"input_shape": list(input_shape), "classes": classes, "normalise": numbers_of(layer)}
        place = str(path.resolve())
        return LibraryModel(program, nn.Identity(), layer, place, record, trained=True, evaluation_only=True)

    return make


def _read(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"There is no file {path}: name a program of torch.export (.pt2) or TorchScript (.pt).")
    names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
    if any("/code/" in name for name in names):
        with warnings.catch_warnings(action="ignore"):  # TorchScript as a whole is deprecated
            return torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
    if path.suffix == ".pt2":
        try:
            return torch.export.load(path).module()
        except Exception as error:  # of many kinds, by the version that wrote the file
            reason = str(error).partition("\n")[0][:200]
            raise InputError(f"{path} is no program that torch.export reads ({reason}): export it again.") from error
    raise InputError(
        f"{path} holds no program: give weights as --weights {path} beside --model, or a program of torch.export "
        "(.pt2) or TorchScript (.pt)."
    )


EXPORTED: Source = Source(
    "file",
    "a program of torch.export (.pt2) or TorchScript (.pt), for evaluation: --model network.pt2",
    fits=lambda text: text.endswith(SUFFIXES) and ":" not in text,
    maker=maker,
    is_plain=lambda text, options: False,
)
