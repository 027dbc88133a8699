"""The result of one explanation, and grids of pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from unperturbed.examinations.subject import Subject
from unperturbed.findings import Finding
from unperturbed.reports.charts.pictures import Grid
from unperturbed.types import Inputs

PICTURED = 6
"""The largest number of examples in a grid of pictures."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """Scores, pictures and arrays of one explanation.

    Attributes:
        finding: title, summary, numbers with intervals, lines and notes.
        grids: pictures in rows and columns; none for inputs that are no images.
        arrays: the tensors behind the pictures, by name.
    """

    finding: Finding
    grids: tuple[Grid, ...] = ()
    arrays: Mapping[str, Tensor] = field(default_factory=dict)


Explainer = Callable[[Subject], Explanation]
"""The first line of its docstring is its description."""


def is_image(x: Inputs) -> bool:
    """Tell whether inputs are grey or colour images, (n, 1 or 3, height, width)."""
    return x.dim() == 4 and x.shape[1] in (1, 3)


def grid(
    name: str, title: str, caption: str, rows: Sequence[str], columns: Mapping[str, tuple[Inputs, bool]]
) -> tuple[Grid, ...]:
    """Return a grid with one row per example and one column per tensor; True marks signed values.

    Empty if the tensors are no images or there are none.
    """
    tensors = [tensor for tensor, _ in columns.values()]
    if not rows or not tensors or not all(is_image(tensor) for tensor in tensors):
        return ()
    cells = tuple(
        tuple((tensor[row].detach().double().cpu().numpy(), signed) for tensor, signed in columns.values())
        for row in range(len(rows))
    )
    return (Grid(name, title, caption, tuple(rows), tuple(columns), cells),)
