"""Single attacks of other libraries in Linf, at the same settings: torchattacks, foolbox, ART and adv_lib.

Part of `python -m benchmarks`. Each function returns perturbed inputs, and raises ImportError where its library, or one
that it needs, is not installed.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import nn

from unperturbed.types import Inputs, Labels

Peer = Callable[[nn.Module, Inputs, Labels, float], Inputs]
"""Of the network, the inputs in [0, 1], their labels, and eps."""
PGD_STEPS, APGD_STEPS = 40, 100
PGD_STEP = 2.5 / PGD_STEPS
"""In units of eps."""


def torchattacks_pgd(model: nn.Module, x: Inputs, y: Labels, eps: float) -> Inputs:
    import torchattacks

    points: Inputs = torchattacks.PGD(model, eps=eps, alpha=PGD_STEP * eps, steps=PGD_STEPS)(x, y)
    return points


def foolbox_pgd(model: nn.Module, x: Inputs, y: Labels, eps: float) -> Inputs:
    from foolbox import PyTorchModel
    from foolbox.attacks import LinfPGD

    attack = LinfPGD(rel_stepsize=PGD_STEP, steps=PGD_STEPS)
    points: Inputs = attack.run(PyTorchModel(model, bounds=(0, 1), device=x.device), x, y, epsilon=eps)
    return points


def art_pgd(model: nn.Module, x: Inputs, y: Labels, eps: float) -> Inputs:
    from art.attacks.evasion import ProjectedGradientDescent

    attack = ProjectedGradientDescent(
        _art(model, x),
        eps=eps,
        eps_step=PGD_STEP * eps,
        max_iter=PGD_STEPS,
        num_random_init=1,
        batch_size=len(x),
        verbose=False,
    )
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


def adv_lib_pgd(model: nn.Module, x: Inputs, y: Labels, eps: float) -> Inputs:
    from adv_lib.attacks import pgd_linf

    points: Inputs = pgd_linf(model, x, y, eps, steps=PGD_STEPS, relative_step_size=PGD_STEP)
    return points


def art_apgd(model: nn.Module, x: Inputs, y: Labels, eps: float) -> Inputs:
    from art.attacks.evasion import AutoProjectedGradientDescent

    attack = AutoProjectedGradientDescent(
        _art(model, x),
        eps=eps,
        eps_step=2 * eps,
        max_iter=APGD_STEPS,
        nb_random_init=1,
        batch_size=len(x),
        loss_type="cross_entropy",
        verbose=False,
    )
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


def adv_lib_apgd(model: nn.Module, x: Inputs, y: Labels, eps: float) -> Inputs:
    from adv_lib.attacks import apgd

    points: Inputs = apgd(model, x, y, eps, math.inf, n_iter=APGD_STEPS, loss_function="ce")
    return points


def torchattacks_apgd(model: nn.Module, x: Inputs, y: Labels, eps: float) -> Inputs:
    import torchattacks

    points: Inputs = torchattacks.APGD(model, eps=eps, steps=APGD_STEPS, n_restarts=1, loss="ce")(x, y)
    return points


def _art(model: nn.Module, x: Inputs):  # type: ignore[no-untyped-def]
    """Return the network as ART takes it."""
    from art.estimators.classification import PyTorchClassifier

    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    loss, shape = nn.CrossEntropyLoss(), tuple(x.shape[1:])
    return PyTorchClassifier(model, loss, shape, classes, clip_values=(0.0, 1.0), device_type="cpu")


PGD_PEERS: Mapping[str, Peer] = {
    "torchattacks": torchattacks_pgd,
    "foolbox": foolbox_pgd,
    "ART": art_pgd,
    "adv_lib": adv_lib_pgd,
}
APGD_PEERS: Mapping[str, Peer] = {"torchattacks": torchattacks_apgd, "ART": art_apgd, "adv_lib": adv_lib_apgd}
