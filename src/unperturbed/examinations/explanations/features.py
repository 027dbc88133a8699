"""Feature visualisation by phase optimisation."""

import torch
from torch import Tensor, nn

from unperturbed.anatomy.blocks import Block, blocks
from unperturbed.anatomy.blocks import features as outputs_of
from unperturbed.errors import InputError
from unperturbed.examinations.explanations.base import Explanation, grid, is_image
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Finding, Number
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Model, PerExample

STEPS = 64
UNITS = 4
"""Number of shown units per layer."""
LAYERS = 4
"""Number of shown layers, from the last."""


def visualise(
    model: Model, block: Block, units: Tensor, spectrum: Tensor, shape: torch.Size, threat: Threat, noise: Noise
) -> tuple[Inputs, PerExample]:
    """Return for each unit of a block an image that activates it, and its activation (mean over positions).

    The magnitudes of the image's Fourier coefficients are the given mean spectrum; only the phases are optimised, by
    64 steps of NAdam (MACO, Fel et al. 2023, https://arxiv.org/abs/2306.06805). The image is clamped to the box, with
    the gradient of the unclamped one. The best image of each unit is kept.

    Args:
        model: the network.
        block: of the network, by `anatomy.blocks`.
        units: channels, or features of an output without positions.
        spectrum: the mean magnitude of the training images' coefficients, (channels, height, width // 2 + 1).
        shape: (channels, height, width).
        threat: its box.
        noise: of the first phases, one stream per unit.
    """
    half = (len(units), *spectrum.shape)
    phase = (noise.uniform(spectrum.shape, spectrum.dtype) * 2 - 1).mul_(torch.pi)
    phase[..., 0, 0] = 0.0  # the mean of the image is that of the data
    phase = phase.requires_grad_()
    optimiser = torch.optim.NAdam([phase], lr=0.1)
    best = torch.zeros(len(units), *shape, dtype=spectrum.dtype, device=spectrum.device)
    highest = best.new_full((len(units),), -torch.inf)
    rows = torch.arange(len(units), device=units.device)
    with as_reported(spectrum.device), under_attack(model), torch.enable_grad():
        for _ in range(STEPS):
            free = torch.fft.irfft2(torch.polar(spectrum.expand(half).contiguous(), phase), s=shape[-2:])
            image = free + (threat.boxed(free.detach()) - free.detach())
            activation = _by_unit(model, image, block)[rows, units]
            better = activation.detach() > highest
            best[better], highest[better] = image.detach()[better], activation.detach()[better]
            (phase.grad,) = torch.autograd.grad(-activation.sum(), phase)
            phase.grad[..., 0, 0] = 0.0
            optimiser.step()
    return threat.boxed(best), highest


def _by_unit(model: Model, image: Inputs, block: Block) -> Tensor:
    """Return the mean activation of each unit; of a channel, over its positions."""
    block_outputs: list[Tensor] = []
    shapes: list[torch.Size] = []

    def hook(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            shapes.append(output.shape)

    handle = model.get_submodule(block.path).register_forward_hook(hook)
    try:
        block_outputs = outputs_of(model, image, [block])
    finally:
        handle.remove()
    if shapes and len(shapes[0]) == 4 and block.axis == 0:
        return block_outputs[0].view(len(image), shapes[0][1], -1).mean(dim=2)
    return block_outputs[0]


def unit_images(subject: Subject, layer: str, units: Tensor) -> tuple[Inputs, PerExample]:
    """Return images for chosen units of a layer, by its name in `anatomy.blocks`, and their activations.

    Raises:
        InputError: for an unknown name, for units that the layer does not have, and if the inputs are no images.
    """
    examples = subject.test if subject.train is None else subject.train
    if not is_image(examples.x):
        raise InputError(
            f"Inputs have shape {tuple(examples.x.shape[1:])}: only images have a spectrum to optimise in."
        )
    network_blocks, _ = blocks(subject.classifier, examples.x[:3])
    block = next((candidate for candidate in network_blocks if candidate.name == layer), None)
    if block is None:
        raise InputError(
            f"There is no layer {layer!r}: the layers are {', '.join(candidate.name for candidate in network_blocks)}."
        )
    width = _width(subject, block)
    if len(units) == 0 or int(units.min()) < 0 or int(units.max()) >= width:
        raise InputError(f"The units are {units.tolist()}, but {layer} has the units 0 to {width - 1}.")
    spectrum = torch.fft.rfft2(examples.x).abs().mean(dim=0)
    noise = Noise.of(subject.seed, units)
    return visualise(subject.classifier, block, units, spectrum, examples.x.shape[1:], subject.threat, noise)


def features(subject: Subject) -> Explanation:
    """Feature visualisation: images with the data's mean spectrum whose phases activate units of the last layers.

    MACO (Fel et al. 2023, https://arxiv.org/abs/2306.06805), four units of each of the last four layers.
    """
    title = "Feature visualisation"
    examples = subject.test if subject.train is None else subject.train
    if not is_image(examples.x):
        return Explanation(Finding(title, "Not computed: the inputs are no images."))
    network_blocks, left_out = blocks(subject.classifier, examples.x[:3])
    layers, images, numbers = network_blocks[-LAYERS:], {}, list[Number]()
    for block in layers:
        units = torch.arange(min(UNITS, _width(subject, block)), device=examples.x.device)
        optimised, activation = unit_images(subject, block.name, units)
        images[block.name] = optimised
        numbers.append(
            Number(f"mean activation of the shown units, {block.name}", float(activation.mean()), len(units))
        )
    shown = min(len(layer_images) for layer_images in images.values())
    caption = "Images with the mean spectrum of the training data and optimised phases; a column a layer."
    columns = {name: (layer_images[:shown], False) for name, layer_images in images.items()}
    pictures = grid("features", title, caption, [f"unit {k}" for k in range(shown)], columns)
    arrays = {f"layer_{k}": layer_images for k, layer_images in enumerate(images.values())}
    return Explanation(Finding(title, caption, tuple(numbers), notes=left_out), pictures, arrays)


def _width(subject: Subject, block: Block) -> int:
    x = subject.test.x[:1]
    with under_attack(subject.classifier), torch.no_grad():
        return int(_by_unit(subject.classifier, x, block).shape[1])
