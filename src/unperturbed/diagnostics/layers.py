"""How much each layer stretches its input, in the direction of most and of least and on the whole."""

import math
from collections.abc import Callable

from unperturbed.diagnostics.linear_maps import LinearMap
from unperturbed.diagnostics.maps import linear_maps
from unperturbed.diagnostics.spectra import Spectrum, circular, real, reshaped
from unperturbed.diagnostics.subject import Subject
from unperturbed.findings import Finding, Line, Number

EXAMPLES = 8
"""That are run to see the shapes, and whether folding batch norms changes anything."""
OPERATORS: dict[str, Callable[[LinearMap], Spectrum]] = {"reshaped": reshaped, "circular": circular, "real": real}
QUANTITIES: dict[str, Callable[[Spectrum], float]] = {
    "smallest singular value": lambda s: s.smallest,
    "largest singular value": lambda s: s.largest,
    "mean singular value": lambda s: s.mean,
    "standard deviation of singular values": lambda s: s.deviation,
    "condition number": lambda s: s.condition,
    "stable rank": lambda s: s.stable_rank,
    "standard deviation over largest singular value": lambda s: s.spread,
}
"""Wen, Li & Jia 2020 (https://arxiv.org/abs/2011.07478) look at such values of layers; the last does not change if the
weights are scaled."""


def layers(subject: Subject) -> Finding:
    """The singular values of every linear layer: how strongly and how evenly it passes changes on.

    Of three operators: the weights reshaped to a matrix; the convolution on a torus; and the layer as it is, with its
    strides and padding. Batch norms that follow a layer are folded into it.
    """
    found = linear_maps(subject.classifier, subject.test.x[:EXAMPLES])
    if not found.maps:
        return Finding("Layers", "The network has no linear layers that could be examined.", notes=found.notes)
    spectra = {name: [spectrum(linear) for linear in found.maps] for name, spectrum in OPERATORS.items()}
    names = tuple(linear.name for linear in found.maps)
    numbers: list[Number] = []
    for operator, each in spectra.items():
        for which, quantity in (("smallest", QUANTITIES["smallest singular value"]), ("largest", lambda s: s.largest)):
            numbers += _number(f"log10 of the product of {which} singular values ({operator})", map(_log10, map(quantity, each)), math.fsum)
        for name, quantity in QUANTITIES.items():
            numbers += _number(f"mean over layers of {name} ({operator})", map(quantity, each), _mean)
    lines = tuple(_line(name, operator, names, each) for operator, each in spectra.items() for name in QUANTITIES)
    largest = [s.largest for s in spectra["real"]]
    summary = (
        f"The largest singular values of the {len(names)} layers as they are run from {min(largest):.3g} to"
        f" {max(largest):.3g}, and the standard deviation over the largest from"
        f" {min(s.spread for s in spectra['real']):.2f} to {max(s.spread for s in spectra['real']):.2f}."
    )
    return Finding("Layers", summary, tuple(numbers), lines=lines, notes=(*_notes(found.maps, spectra["real"]), *found.notes))
