"""A user's diagnostic, named by its import path, in this folder:

    unperturbed train --data digits --method at --epochs 3 --out runs/own-diagnostic
    unperturbed diagnose runs/own-diagnostic --diagnostics margins,own_diagnostic:steepness

It appears with the built-in ones in the table and on the page, and is compared over several runs like them.
"""

from unperturbed.curvature.products import cross_entropy_with, input_gradient
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Distribution, Finding, Number
from unperturbed.networks.modes import under_attack


def steepness(subject: Subject) -> Finding:
    """The steepness of the cross-entropy at each test example: its gradient in the dual norm of the threat."""
    batch = subject.test
    with under_attack(subject.classifier):
        _, gradient = input_gradient(subject.classifier, batch.x, cross_entropy_with(batch.y))
    steep = subject.threat.dual_norm(gradient).double()
    finite = steep.isfinite()
    values = Distribution(
        "steepness", tuple(steep[finite].tolist()), tuple(batch.ids[finite].tolist()), missing=int((~finite).sum())
    )
    mean = Number("mean steepness", float(steep[finite].mean()), len(values.values))
    linear = subject.threat.eps * mean.value
    summary = f"To first order, perturbations of this size raise the loss by {linear:.2g} on average."
    return Finding("Steepness of the loss", summary, (mean,), (values,))
