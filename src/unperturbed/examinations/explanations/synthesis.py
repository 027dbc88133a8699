"""Inputs of a target class, synthesised in a large threat set."""

import torch

from unperturbed.examinations.explanations.ascents import DEFAULT, large_threat, synthesise
from unperturbed.examinations.explanations.base import PICTURED, Explanation, grid
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Finding, Number
from unperturbed.maximise.pgd import PGD
from unperturbed.noise import Noise
from unperturbed.statistics.per_example import portion
from unperturbed.types import Inputs, Labels


def synthesis(subject: Subject) -> Explanation:
    """Targeted synthesis: an input that the network classifies as the next class, near an image, another image and
    noise.

    Log p_t is maximised by Frank-Wolfe (from images in each norm, and from noise) and by PGD. A network with
    perceptually aligned features draws the class.
    """
    test = subject.test
    target = (test.y + 1) % subject.classes
    noise = Noise.of(subject.seed, test.ids)
    synthesised: dict[str, Inputs] = {"image": test.x}
    numbers: list[Number] = []
    for norm in ("Linf", "L2", "L1"):
        threat = large_threat(test.x, subject.threat, norm)
        z = synthesise(subject.classifier, test.x, target, threat, noise, DEFAULT, subject.batch_size)
        synthesised[f"{norm} {threat.eps:.3g}, Frank-Wolfe"] = z
        numbers += _reached(subject, f"target class predicted, {norm}", z, target, threat.contains(test.x, z))
    threat = large_threat(test.x, subject.threat, "L2")
    z = synthesise(subject.classifier, test.x, target, threat, noise, PGD(steps=30), subject.batch_size)
    synthesised["L2, PGD"] = z
    numbers += _reached(subject, "target class predicted, L2, PGD", z, target, threat.contains(test.x, z))
    start = _of_another_class(test.x, test.y)
    low, high = subject.threat.limits(test.x)
    box = (high - low) if bool((high - low).isfinite().all()) else test.x.amax() - test.x.amin()
    floor = low if bool(low.isfinite().all()) else test.x.amin()
    grey = floor + box * noise.fold(1).uniform(test.x.shape[1:], test.x.dtype)
    for name, centre in (("another class", start), ("noise", grey)):
        z = synthesise(subject.classifier, centre, target, threat, noise, DEFAULT, subject.batch_size)
        synthesised[f"L2, from {name}"] = z
        numbers += _reached(subject, f"target class predicted, L2, from {name}", z, target, threat.contains(centre, z))
    rows = [f"{int(a)} to {int(b)}" for a, b in zip(test.y[:PICTURED], target[:PICTURED], strict=True)]
    title, caption = "Targeted synthesis", "Inputs that raise the probability of the next class, in large threat sets."
    pictures = grid("synthesis", title, caption, rows, {name: (z[:PICTURED], False) for name, z in synthesised.items()})
    shown = {name.replace(" ", "_").replace(",", ""): z[:PICTURED] for name, z in synthesised.items()}
    return Explanation(Finding(title, f"{caption} {len(test.x)} examples.", tuple(numbers)), pictures, shown)


def _reached(subject: Subject, name: str, z: Inputs, target: Labels, inside: torch.Tensor) -> tuple[Number, ...]:
    logits = subject.logits(z)
    hit = (logits.argmax(dim=1) == target) & inside & logits.isfinite().all(dim=1)
    return portion(name, int(hit.sum()), len(z))


def _of_another_class(x: Inputs, y: Labels) -> Inputs:
    """Return for each example the next one, cyclically, with another label; itself without one."""
    rows = []
    for row in range(len(y)):
        later = ((row + k) % len(y) for k in range(1, len(y)))
        rows.append(next((row_of_other for row_of_other in later if y[row_of_other] != y[row]), row))
    return x[torch.tensor(rows, device=x.device)]
