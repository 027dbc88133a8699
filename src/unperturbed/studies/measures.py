"""The measurements of trained networks, by the public functions of the package."""

import math
from pathlib import Path

import torch

from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.curvature.linearity import linearity_gap
from unperturbed.curvature.products import cross_entropy_with, dot, input_gradient
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.examinations.audit import audit
from unperturbed.examinations.explain import explain
from unperturbed.examinations.runner import diagnose
from unperturbed.findings import Distribution, Outcome
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import cross_entropy_score
from unperturbed.networks.modes import under_attack
from unperturbed.noise import Noise
from unperturbed.studies.design import Measure, Measured, Trained
from unperturbed.types import Batch

WEAK = Suite("pgd-10", (GradientAttack("PGD-10", cross_entropy, PGD(steps=10)),), "ten steps: weak on purpose")
LOCAL_STEPS = 20
"""Steps of the searches for the largest distance from linear and for the largest loss."""
EXAMINED = 200
"""Examples of diagnoses, explanations and audits."""
BUDGET = 30.0
"""Seconds of an audit, by which it chooses its checks."""
DIAGNOSTICS = ("feature_changes", "directions", "layers", "margins", "confidence")
SPREAD = "mean over layers of standard deviation of singular values (reshaped)"
SCALED_SPREAD = "mean over layers of standard deviation over largest singular value (reshaped)"
WEN_VALUES = (
    *("feature change, worst case", "directional spread", "spread of the input Jacobian's singular values"),
    *("output margin, test", "probability of the predicted class, test"),
)
ALIGNED = ("cosine of gradient and image", "perceptual alignment")


def _accuracies(trained: Trained) -> Measured:
    """Return clean and robust correctness under the setting's suite, 1 or 0; None for an unknown verdict.

    "doubted" is whether the evaluation gives reasons why the robust accuracy is not credible.
    """
    suite, out = trained.run.setting.suite, Path(trained.folder) / "evaluation"
    outcome = evaluate(trained.model, trained.test, trained.threat, suite, out=out, overwrite=True)
    return {"clean": _clean(outcome), "robust": _survived(outcome), "doubted": [float(bool(outcome.doubts))]}


def _weak(trained: Trained) -> Measured:
    """Return the correctness under ten steps of PGD."""
    out = Path(trained.folder) / "weak"
    outcome = evaluate(trained.model, trained.test, trained.threat, WEAK, out=out, overwrite=True)
    return {"weak": _survived(outcome)}


def _linearity(trained: Trained) -> Measured:
    """Return gamma, and the distance of the loss at an adversarial input from its linear model there.

    gamma is max |l(z) - l(x) - <z - x, g>| by its own search (Qin et al. 2019, https://arxiv.org/abs/1907.02610, eq.
    5). z' maximises the loss by another search: "excess" is |l(z') - l(x) - <z' - x, g>|, and "bounded" whether
    |l(z') - l(x)| <= gamma + |<z' - x, g>| (eq. 6).
    """
    test = trained.test
    batch = Batch(test.x, test.y, torch.arange(len(test)))
    noise = Noise.of(0, batch.ids)
    with under_attack(trained.model):
        gamma = linearity_gap(trained.model, batch, trained.threat, noise, PGD(steps=LOCAL_STEPS)).gap
        score = cross_entropy_score(trained.model, batch)
        worst = PGD(steps=LOCAL_STEPS)(score, batch.x, trained.threat, noise.fold(1))
        clean, gradient = input_gradient(trained.model, batch.x, cross_entropy_with(batch.y))
        with torch.no_grad():
            change = cross_entropy(trained.model(worst), batch.y) - clean
    slope = dot(worst - batch.x, gradient)
    bounded = change.abs() <= gamma + slope.abs() + 1e-6
    return {
        "gamma": _floats(gamma),
        "excess": _floats((change - slope).abs()),
        "bounded": [float(value) for value in bounded.tolist()],
    }


def _diagnosis(trained: Trained) -> Measured:
    """Return the quantities that the four claims of Wen et al. are read from."""
    found = diagnose(
        trained.model, trained.test, trained.threat, diagnostics=DIAGNOSTICS, examples=f"first:{EXAMINED}",
        out=Path(trained.folder) / "diagnosis.json",
    ).examined  # fmt: skip
    count = min(EXAMINED, len(trained.test))
    values: dict[str, list[float | None]] = {name: _by_position(found.distribution(name), count) for name in WEN_VALUES}
    return values | {name: [found.number(name)] for name in (SPREAD, SCALED_SPREAD)}


def _audit(trained: Trained) -> Measured:
    """Return the fall of the robust accuracy after an audit's remedies, and whether it found signs of obfuscation."""
    audited = audit(
        trained.model, trained.test, trained.threat, budget=BUDGET, examples=min(EXAMINED, len(trained.test)),
        out=Path(trained.folder) / "audit",
    )  # fmt: skip
    return {
        "fall after remedies": [audited.claimed.value - audited.headline.value],
        "obfuscated": [float(audited.verdict == "obfuscated")],
    }


def _alignment(trained: Trained) -> Measured:
    """Return the alignment of input gradients with images and with class means."""
    explained = explain(
        trained.model, trained.test, trained.threat, train=trained.train, explanations=("alignment",),
        examples=f"first:{EXAMINED}", out=Path(trained.folder) / "explanation",
    )  # fmt: skip
    explained.raise_failures()
    distributions = {entry.name: entry for entry in explained.explanations["alignment"].finding.distributions}
    count = min(EXAMINED, len(trained.test))
    return {name: _by_position(distributions.get(name), count) for name in ALIGNED}


def _clean(outcome: Outcome) -> list[float | None]:
    margins = outcome.examples["clean_margin"]
    return [None if math.isnan(margin) else float(margin < 0) for margin in margins]


def _survived(outcome: Outcome) -> list[float | None]:
    """Return 1 for survivors, 0 for others, and None for unknown verdicts, which never count as robust."""
    return [None if verdict == "unknown" else float(verdict == "survived") for verdict in outcome.examples["verdict"]]


def _by_position(values: Distribution | None, count: int) -> list[float | None]:
    """Return the values of the examples in the order of their ids, None for those without one."""
    by_id = {} if values is None else dict(zip(values.ids, values.values, strict=True))
    return [by_id.get(name) for name in range(count)]


def _floats(values: torch.Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.double().tolist()]


ACCURACIES = Measure("accuracies", _accuracies)
WEAK_ACCURACY = Measure("pgd-10", _weak)
LINEARITY = Measure("linearity", _linearity)
DIAGNOSIS = Measure("diagnosis", _diagnosis)
AUDIT = Measure("audit", _audit)
ALIGNMENT = Measure("alignment", _alignment)
