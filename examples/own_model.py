"""A user's network, trained and evaluated from the command line by its import path, in this folder:

    unperturbed train --data digits --model own_model:Residual --model.width 32 --epochs 5 --out runs/own-model
    unperturbed evaluate runs/own-model --trust

`input_shape`, `classes`, `mean` and `std` are filled in from the data where the class has arguments of these names;
everything else is set with --model.NAME.
"""

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """Raw inputs in, logits out; the normalisation is part of the network, so that eps is in input units."""

    def __init__(self, input_shape: tuple[int, ...], classes: int, mean: tuple[float, ...], std: tuple[float, ...],
                 width: int = 16) -> None:  # fmt: skip
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        self.enter = nn.Conv2d(input_shape[0], width, 3, padding=1)
        self.inside = nn.Conv2d(width, width, 3, padding=1)
        self.leave = nn.Linear(width * input_shape[1] * input_shape[2], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        hidden = self.enter((x - self.mean) / self.std).relu()
        hidden = hidden + self.inside(hidden).relu()
        return self.leave(hidden.flatten(1))
