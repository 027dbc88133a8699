"""A diagnostic of one's own, given by its import path, in this folder:

    unperturbed train --data digits --method at --epochs 3 --out runs/own-diagnostic
    unperturbed diagnose runs/own-diagnostic --diagnostics margins,own_diagnostic:steepness

It appears with the built-in ones in the table and on the page, and is compared over several runs like them.
"""

from unperturbed.curvature.products import cross_entropy_with, input_gradient
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Distribution, Finding, Number
from unperturbed.networks.modes import under_attack


def steepness(subject: Subject) -> Finding:
    """How fast the cross-entropy can rise at each test example: its gradient in the dual norm of the threat's."""
    batch = subject.test
    with under_attack(subject.classifier):
        _, gradient = input_gradient(subject.classifier, batch.x, cross_entropy_with(batch.y))
    steep = subject.threat.dual_norm(gradient).double()
    known = steep.isfinite()
    values = Distribution(
        "steepness", tuple(steep[known].tolist()), tuple(batch.ids[known].tolist()), missing=int((~known).sum())
    )
    mean = Number("mean steepness", float(steep[known].mean()), len(values.values))
    linear = subject.threat.eps * mean.value
    summary = f"To first order, perturbations of this size raise the loss by {linear:.2g} on average."
    return Finding("Steepness of the loss", summary, (mean,), (values,))
