"""Certify robust accuracy: a proved lower bound, by randomised smoothing and by the norms of layers."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from unperturbed.cli.console import (
    Result,
    is_first_process,
    progress,
    repeatable,
    results_only_on_stdout,
    say,
    table,
)
from unperturbed.cli.engine import engine_of
from unperturbed.cli.evaluate import DEVICES_HELP
from unperturbed.cli.options import Parsed, add_data_options, add_measuring_options, new_parser, parse
from unperturbed.errors import InputError
from unperturbed.runs.verify import write_sealed

if TYPE_CHECKING:
    from unperturbed.cli.setup import Setup
    from unperturbed.evaluation.certificates import Certificates
    from unperturbed.threat import Threat

POSITIONAL = "run"
SIGMA_HELP = "standard deviation of the noise, in input units (default: that of training by smoothing or noise)"


def parser() -> ArgumentParser:
    """Return the command's parser."""
    command_parser = new_parser("certify", str(__doc__))
    command_parser.add_argument(
        "run", type=str | None, nargs="?", help="a run folder; or give --model, --weights and --data"
    )
    add_data_options(command_parser)
    command_parser.add_argument("--sigma", type=float | None, metavar="S", help=SIGMA_HELP)
    command_parser.add_argument(
        "--draws", type=int, default=10_000, help="noisy inputs of each example that are counted"
    )
    command_parser.add_argument("--selection-draws", type=int, default=100, help="noisy inputs that choose the class")
    command_parser.add_argument(
        "--alpha", type=float, default=0.001, help="chance that the certificate of an example is false"
    )
    command_parser.add_argument(
        "--eps", type=str | None, metavar="EPS,...", help="these radii; default: ten even steps up to the threat's"
    )
    add_measuring_options(command_parser, "of the noise", "32")
    command_parser.add_argument("--devices", type=Literal["auto"] | int, default=1, metavar="N|auto", help=DEVICES_HELP)
    command_parser.add_argument(
        "--overwrite", action="store_true", help="replace other certificates in the same folder"
    )
    return command_parser


def run(parsed: Parsed) -> Result:
    """Certify, and return the certified accuracy at each radius."""
    from unperturbed.engines.launch import together
    from unperturbed.networks.device import number_of_devices

    number = number_of_devices(parsed.devices, parsed.device)
    if number == 1:
        return _certificates(parsed)
    with repeatable():
        return together(number, _certificates_of_one_of_several, tuple(parsed.argv))


def _certificates_of_one_of_several(words: Sequence[str]) -> Result:
    from unperturbed.networks.device import own_device

    parsed = parse(parser(), words, POSITIONAL)
    parsed.plain.device = own_device(parsed.device)
    with results_only_on_stdout():
        return _certificates(parsed)


def _certificates(parsed: Parsed) -> Result:
    from unperturbed.cli.setup import find_setup
    from unperturbed.cli.threat_options import radii_of
    from unperturbed.engines.group import meet
    from unperturbed.evaluation.certify import certify

    if "," in (parsed.threat or ""):
        raise InputError(f"--threat is {parsed.threat}, but certificates are in one norm: name one threat.")
    engine = engine_of(parsed)
    subject = find_setup(parsed)
    radii = None if parsed.eps is None else [threat.eps for threat in radii_of(subject.threat, parsed.eps)]
    sigma = parsed.sigma if parsed.sigma is not None else _sigma_of_training(parsed, subject)
    folder = subject.folder()
    meet()  # all processes have read the unchanged folder
    if is_first_process():
        subject.keep()
    with progress() as report, repeatable():
        certificates = certify(
            subject.model,
            subject.split,
            subject.threat,
            sigma,
            radii=radii,
            draws=parsed.draws,
            selection_draws=parsed.selection_draws,
            alpha=parsed.alpha,
            out=folder,
            overwrite=parsed.overwrite,
            seed=parsed.seed,
            batch_size=parsed.batch_size,
            engine=engine,
            progress=report,
        )
    for text in certificates.warnings:
        say(text, "warning")
    value = certificates.json() | {"selection": subject.examples}
    if is_first_process():
        write_sealed(folder / f"certify-{subject.threat.norm}-{sigma!r}.json", value)
    views = [_headline(certificates, subject.examples), _certified(certificates), *_bars(certificates)]
    return Result({"run": str(subject.home)} | value, views)


def _sigma_of_training(parsed: Parsed, subject: "Setup") -> float:
    """Return the deviation of the noise in the run's training; raises InputError if there was none."""
    import torch

    from unperturbed.methods.base import Wrapper
    from unperturbed.methods.random_noise import RandomNoise
    from unperturbed.methods.smoothing import Smoothing
    from unperturbed.training.run import Run

    method = None if parsed.run is None else Run.open(parsed.run, parsed.trust).method
    innermost = [*method.inside()][-1] if isinstance(method, Wrapper) else method
    sigma = 0.0
    if isinstance(innermost, Smoothing):
        sigma = innermost.sigma * subject.usual.eps
    if isinstance(innermost, RandomNoise):
        sigma = innermost.size * _deviation(subject.usual, subject.split.inputs(torch.tensor([0])).numel())
    if sigma == 0:
        raise InputError(
            "--sigma is missing, and the network was not trained on noise: give the standard deviation of the noise in "
            "input units, such as 0.25. A network that was not trained on it may lose its accuracy under it."
        )
    say(f"sigma is {sigma:.6g}, the standard deviation of the noise in training.")
    return sigma


def _deviation(threat: "Threat", d: int) -> float:
    """Return the standard deviation of each of d features of a point that is uniform in the ball, without the box."""
    shares = {"Linf": 1 / 3, "L2": 1 / (d + 2), "L1": 2 / ((d + 1) * (d + 2))}
    return threat.eps * math.sqrt(shares[threat.norm])


def _headline(certificates: "Certificates", chosen: str) -> Any:
    radii = sorted(certificates.examples["radius"])
    rows = [
        ("clean accuracy", str(certificates.clean_accuracy)),
        ("smoothed", f"{certificates.smoothed(0.0)}: certified at a radius above 0"),
        ("", ", ".join(f"{count} {answer}" for answer, count in certificates.counts.items())),
        ("noise", f"sigma {certificates.sigma:.4g}, {certificates.draws} draws, alpha {certificates.alpha:g}"),
        ("median radius", f"{radii[(len(radii) - 1) // 2]:.4g} (0 where the vote abstained)"),
        (
            "network",
            f"nothing proved: {certificates.unproven}"
            if certificates.unproven
            else "bounds by the norms of its layers",
        ),
        ("", certificates.note),
        *([("not to be believed", "; ".join(certificates.doubts))] if certificates.doubts else []),
        *([("examples", chosen)] if chosen != "all" else []),
        ("time", f"{certificates.seconds:.1f} s"),
    ]
    return table("", ("", certificates.threat), rows)


def _certified(certificates: "Certificates") -> Any:
    proved = not certificates.unproven
    rows = [
        (f"{eps:.4g}", str(certificates.smoothed(eps)), *([str(certificates.network(eps))] if proved else []))
        for eps in certificates.radii
    ]
    return table("Certified accuracy", ("eps", "smoothed", *(["network"] if proved else [])), rows)


def _bars(certificates: "Certificates") -> list[Any]:
    """Return a table of the bounds from both sides, if there are any."""
    rows = [(f"{bar.eps:.4g}", str(bar), bar.suite) for bar in certificates.bars]
    title = "The network itself: certified <= truth <= attacked"
    return [table(title, ("eps", "robust accuracy", "attacked by"), rows)] if rows else []
