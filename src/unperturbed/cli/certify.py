"""Prove on how many examples no perturbation within a radius changes the answer: a lower bound."""

import math
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from unperturbed.cli.console import Result, progress, repeatable, say, table
from unperturbed.cli.options import Parsed, add_data_options, add_measuring_options, new_parser
from unperturbed.errors import InputError
from unperturbed.runs import write_json

if TYPE_CHECKING:
    from unperturbed.cli.setup import Setup
    from unperturbed.evaluation.certificates import Certificates
    from unperturbed.threat import Threat

POSITIONAL = "run"
SIGMA_HELP = "standard deviation of the noise, in input units (default: that of training by smoothing or noise)"


def parser() -> ArgumentParser:
    """Return the command's parser."""
    made = new_parser("certify", str(__doc__))
    made.add_argument("run", type=str | None, nargs="?", help="a run folder; or give --model, --weights and --data")
    add_data_options(made)
    made.add_argument("--sigma", type=float | None, metavar="S", help=SIGMA_HELP)
    made.add_argument("--draws", type=int, default=10_000, help="noisy inputs of each example that are counted")
    made.add_argument("--selection-draws", type=int, default=100, help="noisy inputs that choose the class")
    made.add_argument("--alpha", type=float, default=0.001, help="chance that the certificate of an example is false")
    made.add_argument(
        "--eps", type=str | None, metavar="EPS,...", help="these radii; default: ten even steps up to the threat's"
    )
    add_measuring_options(made, "of the noise", "32")
    made.add_argument("--overwrite", action="store_true", help="replace other certificates in the same folder")
    return made


def run(given: Parsed) -> Result:
    """Certify, and return the certified accuracy at each radius."""
    from unperturbed.cli.setup import find_setup, radii_of
    from unperturbed.engines.by_name import find_engine
    from unperturbed.evaluation.certify import certify

    if "," in (given.threat or ""):
        raise InputError(f"--threat is {given.threat}, but certificates are in one norm: name one threat.")
    engine = None if given.engine is None else find_engine(given.engine, given.trust)
    subject = find_setup(given)
    radii = None if given.eps is None else [threat.eps for threat in radii_of(subject.threat, given.eps)]
    sigma = given.sigma if given.sigma is not None else _sigma_of_training(given, subject)
    folder = subject.folder()
    subject.keep()
    with progress() as report, repeatable():
        found = certify(
            subject.model,
            subject.split,
            subject.threat,
            sigma,
            radii=radii,
            draws=given.draws,
            selection_draws=given.selection_draws,
            alpha=given.alpha,
            out=folder,
            overwrite=given.overwrite,
            seed=given.seed,
            batch_size=given.batch_size,
            engine=engine,
            progress=report,
        )
    for text in found.warnings:
        say(text, "warning")
    value = found.json() | {"selection": subject.examples}
    write_json(folder / f"certify-{subject.threat.norm}-{sigma!r}.json", value)
    views = [_headline(found, subject.examples), _certified(found), *_bars(found)]
    return Result({"run": str(subject.home)} | value, views)


def _sigma_of_training(given: Parsed, subject: "Setup") -> float:
    """Return the deviation of the noise that the run was trained on; raises InputError where it was trained on none."""
    import torch

    from unperturbed.methods.base import Wrapper
    from unperturbed.methods.random_noise import RandomNoise
    from unperturbed.methods.smoothing import Smoothing
    from unperturbed.training.run import Run

    method = None if given.run is None else Run.open(given.run, given.trust).method
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


def _headline(found: "Certificates", chosen: str) -> Any:
    radii = sorted(found.examples["radius"])
    rows = [
        ("clean accuracy", str(found.clean_accuracy)),
        ("smoothed", f"{found.smoothed(0.0)}: certified at a radius above 0"),
        ("", ", ".join(f"{count} {answer}" for answer, count in found.counts.items())),
        ("noise", f"sigma {found.sigma:.4g}, {found.draws} draws, alpha {found.alpha:g}"),
        ("median radius", f"{radii[(len(radii) - 1) // 2]:.4g} (0 where the vote abstained)"),
        ("network", f"nothing proved: {found.unproven}" if found.unproven else "bounds by the norms of its layers"),
        ("", found.note),
        *([("not to be believed", "; ".join(found.doubts))] if found.doubts else []),
        *([("examples", chosen)] if chosen != "all" else []),
        ("time", f"{found.seconds:.1f} s"),
    ]
    return table("", ("", found.threat), rows)


def _certified(found: "Certificates") -> Any:
    proved = not found.unproven
    rows = [
        (f"{eps:.4g}", str(found.smoothed(eps)), *([str(found.network(eps))] if proved else [])) for eps in found.radii
    ]
    return table("Certified accuracy", ("eps", "smoothed", *(["network"] if proved else [])), rows)


def _bars(found: "Certificates") -> list[Any]:
    """Return a table of the bounds from both sides, where there are any."""
    rows = [(f"{bar.eps:.4g}", str(bar), bar.suite) for bar in found.bars]
    title = "The network itself: certified <= truth <= attacked"
    return [table(title, ("eps", "robust accuracy", "attacked by"), rows)] if rows else []
