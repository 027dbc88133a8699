"""The largest and smallest singular values of each layer, and their spread."""

import math
from collections.abc import Callable, Mapping

from unperturbed.anatomy.linear_maps import LinearMap
from unperturbed.anatomy.maps import Maps, linear_maps
from unperturbed.anatomy.spectra import Spectrum, circular, real, reshaped
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Finding, Line, Number

EXAMPLES = 8
"""Number of examples for the shapes, and for the check of folded batch norms."""
OPERATORS: Mapping[str, Callable[[LinearMap], Spectrum]] = {"reshaped": reshaped, "circular": circular, "real": real}
QUANTITIES: Mapping[str, Callable[[Spectrum], float]] = {
    "smallest singular value": lambda s: s.smallest,
    "largest singular value": lambda s: s.largest,
    "mean singular value": lambda s: s.mean,
    "standard deviation of singular values": lambda s: s.deviation,
    "standard deviation over largest singular value": lambda s: s.spread,
    "condition number": lambda s: s.condition,
    "stable rank": lambda s: s.stable_rank,
}
MEANING = (
    "Reshaped: the weights as a matrix, outputs times all that an output sees in one window, by groups. Circular: the"
    " convolution, its strides kept, on a torus of the input's size (up to a multiple of the stride); of a convolution"
    " with zero padding this is the usual approximation. Real: the layer as it is. Of matrices all three are the same.",
    "Standard deviations over the largest singular value do not change where weights are scaled; other values do.",
    "A product of largest singular values bounds how the network stretches changes only where its layers follow each"
    " other; skip connections, attention and what is noted as left out are not in it.",
)


def layers(subject: Subject) -> Finding:
    """The singular values of every linear layer: the strength and the evenness of its stretching.

    The quantities of Wen, Li & Jia 2020 (https://arxiv.org/abs/2011.07478), for three operators: the weights reshaped
    to a matrix, the convolution on a torus, and the layer as it is. Batch norms that directly follow a layer are folded
    into it; others are separate layers.
    """
    maps = linear_maps(subject.classifier, subject.test.x[:EXAMPLES])
    if not maps.maps:
        return Finding("Layers", "The network has no linear layers that can be examined.", notes=maps.notes)
    numbers: list[Number] = []
    lines: list[Line] = []
    notes: list[str] = []
    names = tuple(linear.name for linear in maps.maps)
    of_operators = {name: [spectrum(linear) for linear in maps.maps] for name, spectrum in OPERATORS.items()}
    for operator, spectra in of_operators.items():
        for name, quantity in QUANTITIES.items():
            values = [quantity(s) for s in spectra]
            lines.append(_line(f"{name} ({operator})", names, values, spectra))
            if all(map(math.isfinite, values)):
                numbers.append(
                    Number(f"mean over layers of {name} ({operator})", math.fsum(values) / len(values), len(values))
                )
        for extreme in ("smallest", "largest"):
            values = [QUANTITIES[f"{extreme} singular value"](s) for s in spectra]
            if min(values) > 0:
                product = math.fsum(map(math.log10, values))
                numbers.append(
                    Number(f"log10 of the product of {extreme} singular values ({operator})", product, len(values))
                )
        notes += _caveats(operator, names, spectra)
    largest, spreads = [s.largest for s in of_operators["real"]], [s.spread for s in of_operators["real"]]
    summary = (
        f"The largest singular values of the {len(names)} layers as they are run from {min(largest):.3g} to"
        f" {max(largest):.3g}; their standard deviations over the largest from {min(spreads):.2f} to"
        f" {max(spreads):.2f}."
    )
    return Finding("Layers", summary, tuple(numbers), lines=tuple(lines), notes=(*MEANING, *_of_maps(maps), *notes))


def _line(name: str, names: tuple[str, ...], values: list[float], spectra: list[Spectrum]) -> Line:
    """Return the values by layer, with ranges for those that depend on an unsettled smallest singular value."""
    y = tuple(value if math.isfinite(value) else None for value in values)
    low: tuple[float | None, ...] | None = None
    high: tuple[float | None, ...] | None = None
    about = ""
    open_ends = [not s.smallest_settled for s in spectra]
    if any(open_ends) and name.startswith(("smallest", "condition")):
        smallest = name.startswith("smallest")
        low = tuple((0.0 if smallest else v) if is_open else None for v, is_open in zip(y, open_ends, strict=True))
        high = tuple((v if smallest else None) if is_open else None for v, is_open in zip(y, open_ends, strict=True))
        about = "where there is a range, the search for the smallest singular value ended before it had settled"
    return Line(name, names, y, low, high, log=name.startswith("condition"), about=about)


def _caveats(operator: str, names: tuple[str, ...], spectra: list[Spectrum]) -> list[str]:
    """Return notes on values that are missing or not exact."""
    notes = []
    unsettled = [name for name, s in zip(names, spectra, strict=True) if not s.smallest_settled]
    if unsettled:
        notes.append(
            f"The smallest singular values ({operator}) of {_listed(unsettled)} are upper bounds, and their condition"
            " numbers lower ones: the search ended before it had settled."
        )
    short = [name for name, s in zip(names, spectra, strict=True) if not s.largest_settled]
    if short:
        notes.append(
            f"The largest singular values ({operator}) of {_listed(short)} are lower bounds: the search ended before it"
            " had settled."
        )
    estimated = [s.error / s.mean for s in spectra if s.error > 0]
    if estimated:
        notes.append(
            f"Means and standard deviations ({operator}) of {len(estimated)} large layers are estimates from random"
            f" vectors; the standard error of a mean is at most {max(estimated):.2%}."
        )
    flat = [name for name, s in zip(names, spectra, strict=True) if s.smallest == 0]
    if flat:
        notes.append(
            f"The smallest singular value ({operator}) of {_listed(flat)} is 0: these have no condition number, and"
            " there is no mean of condition numbers and no product of smallest singular values."
        )
    return notes


def _of_maps(maps: Maps) -> tuple[str, ...]:
    back = [linear.name for linear in maps.maps if linear.transposed]
    separate = [linear.name for linear in maps.maps if linear.kind.startswith(("BatchNorm", "SyncBatchNorm"))]
    return (
        *([f"{maps.folded} batch norms are folded into the layers before them."] if maps.folded else []),
        *(
            [f"{_listed(separate)} follow no single layer: they are separate layers, one factor per channel."]
            if separate
            else []
        ),
        *([f"{_listed(back)} are transposed convolutions: their values are those of the convolution."] if back else []),
        *maps.notes,
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} others"
