"""Saliency maps as pictures, on natural and adversarial inputs."""

import torch
from torch import Tensor

from unperturbed.examinations.explanations.base import PICTURED, Explanation, grid
from unperturbed.examinations.explanations.maps import maps_of, natural_maps
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Finding
from unperturbed.noise import Noise
from unperturbed.reports.charts.pictures import Grid


def saliency(subject: Subject) -> Explanation:
    """Saliency: gradient, gradient x input, integrated gradients, SmoothGrad and occlusion, clean and under attack.

    Of the margin f_y - max_{j != y} f_j of the true class.
    """
    n = min(PICTURED, len(subject.test.x))
    rows = torch.arange(n, device=subject.test.x.device)
    noise = Noise.of(subject.seed, subject.test.ids).rows(rows)
    y = subject.test.y[:n]
    adversarial = subject.worst_test[:n]
    maps = {
        "natural": {name: map_[:n] for name, map_ in natural_maps(subject).items()},
        "adversarial": maps_of(subject.classifier, adversarial, y, noise, subject.batch_size),
    }
    grids, arrays = tuple[Grid, ...](), dict[str, Tensor]()
    for kind, x in (("natural", subject.test.x[:n]), ("adversarial", adversarial)):
        columns = {"image": (x, False)} | {name: (map_, True) for name, map_ in maps[kind].items()}
        caption = f"Contributions to the margin of the true class, {kind} inputs; orange raises it, purple lowers it."
        names = [f"class {int(label)}" for label in y]
        grids += grid(f"saliency-{kind}", f"Saliency, {kind} inputs", caption, names, columns)
        arrays |= {f"{kind}_{name.replace(' ', '_')}": map_ for name, map_ in maps[kind].items()}
        arrays[f"{kind}_image"] = x
    summary = f"Maps of five methods on {n} examples, clean and within {subject.threat}; scores are in the other parts."
    return Explanation(Finding("Saliency", summary), grids, arrays)
