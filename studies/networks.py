"""Networks of other projects' tables, for comparisons."""

from torch import nn

from unperturbed.architectures.normalise import Normalise
from unperturbed.types import Inputs, Logits


class LargerCNN(nn.Module):
    """Two 3x3 convolutions of 32 and 64 channels, 2x2 max-pooling, 9216-128-10: the usual MNIST example network."""

    def __init__(self, mean: tuple[float, ...] = (0.0,), std: tuple[float, ...] = (1.0,)) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Normalise(mean, std),
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10),
        )  # fmt: skip

    def forward(self, x: Inputs) -> Logits:
        """Return the logits: (n, 1, 28, 28) -> (n, 10)."""
        logits: Logits = self.layers(x)
        return logits
