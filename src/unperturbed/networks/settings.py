"""The settings of how a network runs, as options: this file imports no torch."""

from dataclasses import dataclass
from typing import Literal

from unperturbed.checks import POSITIVE, check_fields

Layout = Literal["auto", "contiguous", "channels-last"]
Compile = bool | Literal["reduce-overhead"]
"""Whether the network is compiled; "reduce-overhead": and its kernels are launched as CUDA graphs."""
Seconds = Literal["off", "auto"] | float
"""The seconds for measuring: none, a share of the expected seconds of a long job, or a number."""


@dataclass(frozen=True)
class Tuning:
    """How an evaluation runs the network in its searches: by a fixed rule, measured, or by hand.

    Verdicts are those of the eager network in the precision of its weights, whatever runs the searches.

    Attributes:
        tune: "auto" (where the evaluation is expected to take five minutes or more, layout, batch size and compilation
            are chosen by measured times, within 4% of that time), "off" (by rules, so that two evaluations agree in
            every bit), or the seconds for measuring. A resumed evaluation keeps its choice.
        layout: of images in memory: "auto" (channels-last with bfloat16), "contiguous" or "channels-last".
        compile: whether the searches compile the network (needs a C++ compiler on a processor); "reduce-overhead": with
            CUDA graphs.
    """

    tune: Seconds = "off"
    layout: Layout = "auto"
    compile: Compile = False

    def __post_init__(self) -> None:
        """Raise InputError for seconds that are not positive, and unknown layouts."""
        check_fields(self, tune=POSITIVE)


def compiled_in_words(compiled: Compile) -> list[str]:
    """Return the words for a compiled network; none for one that is not."""
    return ["compiled with CUDA graphs"] if compiled == "reduce-overhead" else ["compiled"] * bool(compiled)


UNTUNED = Tuning()
"""The choice by rules."""
