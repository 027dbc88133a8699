"""Class prototypes."""

import torch

from unperturbed.examinations.explanations.ascents import large_threat, synthesise
from unperturbed.examinations.explanations.base import Explanation, grid
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Finding
from unperturbed.maximise.frank_wolfe import FrankWolfe
from unperturbed.noise import Noise
from unperturbed.statistics.per_example import average

MOST = 10
"""The largest number of classes."""


def prototypes(subject: Subject) -> Explanation:
    """Class prototypes: the input near the mean image with the highest probability of each class.

    Log p_t is maximised in an L2 threat set around the mean of the training examples, or of the test examples without
    training examples.
    """
    examples = subject.test if subject.train is None else subject.train
    classes = min(subject.classes, MOST)
    target = torch.arange(classes, device=examples.x.device)
    centre = examples.x.mean(dim=0, keepdim=True).expand(classes, *examples.x.shape[1:]).contiguous()
    threat = large_threat(centre, subject.threat, "L2")
    centre = threat.boxed(centre)
    noise = Noise.of(subject.seed, target)
    z = synthesise(subject.classifier, centre, target, threat, noise, FrankWolfe(steps=60), subject.batch_size)
    probability = subject.logits(z).double().softmax(dim=1).gather(1, target[:, None])[:, 0]
    means = torch.stack(
        [examples.x[examples.y == k].mean(dim=0) if (examples.y == k).any() else centre[0] for k in range(classes)]
    )
    title, caption = "Class prototypes", f"The mean image, moved within {threat} towards each class; and class means."
    columns = {"prototype": (z, False), "class mean": (means, False)}
    pictures = grid("prototypes", title, caption, [f"class {k}" for k in range(classes)], columns)
    numbers = average("probability of the class at its prototype", probability.tolist(), "%")
    return Explanation(Finding(title, caption, numbers), pictures, {"prototype": z, "class_mean": means})
