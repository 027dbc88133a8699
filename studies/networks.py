"""Networks of other projects' tables and a small transformer, for comparisons."""

import torch
from torch import Tensor, nn
from torch.nn import functional

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


class SmallViT(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929) for images of one channel.

    Patches of 7x7 pixels, two blocks of four heads (layer norm first), the mean of the tokens, a linear layer.
    """

    def __init__(self, classes: int = 10, width: int = 64, depth: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, stride=7)
        self.position = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, x: Inputs) -> Logits:
        """Return the logits: (n, 1, 28, 28) -> (n, 10)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            tokens = block(tokens)
        logits: Logits = self.head(tokens.mean(1))
        return logits


class Block(nn.Module):
    """Self-attention of four heads and a layer of twice the width, each after a layer norm and beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.heads, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the tokens after the block: (n, tokens, width)."""
        n, count, width = tokens.shape
        query, key, value = self.heads(self.before(tokens)).view(n, count, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(n, count, width)
        tokens = tokens + self.merge(mixed)
        after: Tensor = tokens + self.expand(self.between(tokens))
        return after
