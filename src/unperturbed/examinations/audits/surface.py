"""The loss around an example as a picture: tilted where gradients tell the truth, rugged or flat where they do not."""

from unperturbed.examinations.audited import Audited, CheckResult, Grid
from unperturbed.examinations.behaviour import drawn
from unperturbed.examinations.explanations.surface import loss_surface
from unperturbed.findings import Number
from unperturbed.networks.modes import under_attack
from unperturbed.noise import Noise
from unperturbed.types import Batch

PASSES = 60
EXAMPLES, POINTS = 4, 21


def surface(audited: Audited) -> CheckResult:
    """What is the mean loss over the square of the gradient's and a random direction, up to eps both ways?

    (The loss surfaces of Qin et al. 2019, https://arxiv.org/abs/1907.02610.) A picture, without a threshold; the
    roughness is the largest difference from the tangent plane.
    """
    few = audited.few
    batch = Batch(few.x[:EXAMPLES], few.y[:EXAMPLES], few.ids[:EXAMPLES])
    noise = Noise.of(audited.seed, batch.ids).fold(191)
    with under_attack(audited.reachable), drawn(audited.seed, batch.x.device):
        found = loss_surface(audited.reachable, batch, audited.threat, noise, points=POINTS)
    mean = found.values.double().mean(0)
    if not bool(mean.isfinite().all()):
        text = "the loss is not finite around the examples"
        return CheckResult("surface", "What does the loss look like?", "not run", text, "", reason="not applicable")
    rough, n = float(found.roughness.double().mean()), len(batch.y)
    tilt = float(found.slopes[:, 0].abs().double().mean())
    caption = f"mean of {n} examples, roughness {rough:.2g} nats"
    return CheckResult(
        "surface",
        "What does the loss look like around an example?",
        "pass",
        f"the gradient promises a rise of {tilt:.2g} nats at eps; the surface leaves the tangent plane by up to "
        f"{rough:.2g} nats (mean of {n} examples; see the picture)",
        "no threshold: a picture",
        numbers=(Number("roughness of the loss surface", rough, n, unit="nats"),),
        surface=Grid(found.along, tuple(map(tuple, mean.tolist())), caption),
    )
