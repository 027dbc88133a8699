"""Small networks in the styles that are met outside: transformers, grouped convolutions, residual parts."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from unperturbed.architectures.mlp import MLP
from unperturbed.architectures.preact_resnet import PreActResNet
from unperturbed.types import Inputs, Logits

SHAPE = (3, 8, 8)


class EncoderBlock(nn.Module):
    """torchvision's style: attention as a module that returns a tuple."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, h: Tensor) -> Tensor:
        normed = self.ln_1(h)
        h = h + self.self_attention(normed, normed, normed, need_weights=False)[0]
        out: Tensor = h + self.mlp(self.ln_2(h))
        return out


class Encoder(nn.Module):
    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.randn(1, tokens, width) / 10)
        self.layers = nn.Sequential(EncoderBlock(width), EncoderBlock(width))
        self.ln = nn.LayerNorm(width)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.ln(self.layers(h + self.pos_embedding))
        return out


class VisionTransformer(nn.Module):
    def __init__(self, width: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(3, width, 4, stride=4)
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.encoder = Encoder(width, 5)
        self.heads = nn.Sequential(nn.Linear(width, classes))

    def forward(self, x: Inputs) -> Logits:
        h = self.conv_proj(x).flatten(2).transpose(1, 2)
        h = self.encoder(torch.cat([self.class_token.expand(len(x), -1, -1), h], dim=1))
        out: Tensor = self.heads(h[:, 0])
        return out


class Attention(nn.Module):
    """timm's style: queries, keys and values of one linear layer, and the fused kernel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        n, tokens, width = h.shape
        q, k, v = self.qkv(h).reshape(n, tokens, 3, 2, width // 2).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(n, tokens, width))
        return out


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(h)))
        return out


class TimmBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = Attention(width), Mlp(width)

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.attn(self.norm1(h))
        out: Tensor = h + self.mlp(self.norm2(h))
        return out


class PatchEmbed(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 4, stride=4)

    def forward(self, x: Inputs) -> Tensor:
        out: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return out


class TimmTransformer(nn.Module):
    def __init__(self, width: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(width)
        self.blocks = nn.Sequential(*(TimmBlock(width) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Inputs) -> Logits:
        h = self.norm(self.blocks(self.patch_embed(x))).mean(1)
        out: Tensor = self.head(h)
        return out


class SequenceFirst(nn.Module):
    """Tokens before examples, as torch's own attention has it by default."""

    def __init__(self, width: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.embed = nn.Linear(24, width)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(width, 2, 16, dropout=0.0) for _ in range(2))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Inputs) -> Logits:
        h = self.embed(x.transpose(1, 2).flatten(2).transpose(0, 1))
        for layer in self.layers:
            h = layer(h)
        out: Tensor = self.head(h.mean(0))
        return out


class ConvNormReLU(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class InvertedResidual(nn.Module):
    """MobileNet's style: a depthwise convolution, and a residual connection where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        wide = 2 * inputs
        self.conv = nn.Sequential(
            ConvNormReLU(inputs, wide, 1),
            ConvNormReLU(wide, wide, 3, stride, groups=wide),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.conv(h)
        return h + out if self.residual else out


class Grouped(nn.Module):
    """Features in one list, pooled without a module: MobileNet's style as a whole."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(ConvNormReLU(3, 4, 3), InvertedResidual(4, 6, 2), InvertedResidual(6, 6, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(6, classes))

    def forward(self, x: Inputs) -> Logits:
        out: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return out


def grouped() -> nn.Module:
    """Return a grouped network whose batch norms have seen images."""
    model = Grouped()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(images(16, seed=1))
    return model


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "torchvision": VisionTransformer,
    "timm": TimmTransformer,
    "sequence first": SequenceFirst,
    "grouped": grouped,
    "mlp": lambda: MLP(SHAPE, 3, hidden=(16, 12)),
    "resnet": lambda: PreActResNet(SHAPE, 3, depth=10, width=4),
}


def built(name: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Module:
    """Return one of them with random weights."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return BUILDERS[name]().to(dtype)


def images(n: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Inputs:
    """Return inputs in [0, 1], channels last in memory."""
    draw = torch.Generator().manual_seed(seed)
    return torch.rand((n, *SHAPE), generator=draw, dtype=dtype).contiguous(memory_format=torch.channels_last)
