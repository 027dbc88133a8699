"""The terms of a report."""

from unperturbed.reports.document import Definitions, Part, Section

TERMS = (
    (
        "adversarial example",
        "An input that was perturbed within the threat set so that the network misclassifies it.",
    ),
    (
        "threat set, eps",
        "All inputs within the radius eps of an example, measured in the named norm and in input units, and "
        "within the bounds of the data.",
    ),
    (
        "norm",
        "The measure of the size of a perturbation. Linf: the largest change of one input value; L2: the "
        "Euclidean length; L1: the sum of all changes.",
    ),
    (
        "clean accuracy",
        "The share of test examples that are classified correctly without an attack.",
    ),
    (
        "robust accuracy",
        "The share of test examples that are classified correctly, with and without the attacks of the suite. An upper "
        "bound of the true value.",
    ),
    (
        "suite",
        "An ordered list of attacks. Each runs on the examples that the earlier ones did not break. "
        "`standard` is AutoAttack.",
    ),
    (
        "verdict",
        "For one example: misclassified without an attack, broken by an attack (verified by a fresh forward pass), "
        "survived, or unknown if it could not be evaluated. Unknown never counts as robust.",
    ),
    (
        "interval",
        "A 95% confidence interval: Wilson's for shares. Unknown examples count against the lower end and for "
        "the upper end.",
    ),
    (
        "not to be believed",
        "Something in the evaluation, such as a gradient of zero, shows that the attacks could not do their "
        "work: the true robust accuracy may be far lower.",
    ),
    (
        "distance",
        "The distance from an example to the nearest known misclassified point, an upper bound.",
    ),
    (
        "certified accuracy",
        "The share of test examples with a proof that no perturbation within the radius changes the correct answer: a "
        "lower bound.",
    ),
    (
        "transfer",
        "The effect of adversarial examples of one network on another network.",
    ),
    (
        "probe",
        "A quick look after each epoch on held-out training examples. It chooses the best epoch; it is no evaluation.",
    ),
    (
        "catastrophic overfitting",
        "The network resists one-step attacks and fails under several steps (Wong et al. 2020).",
    ),
    (
        "robust overfitting",
        "Robust accuracy on held-out examples falls while the training loss still falls (Rice et al. 2020).",
    ),
    (
        "paired difference",
        "The difference of two networks on the same examples. It is more precise than the difference of two "
        "separate accuracies.",
    ),
    (
        "McNemar's p",
        "The probability of so unequal numbers of gained and lost examples, or more unequal ones, if both "
        "networks were equally good.",
    ),
    (
        "margin",
        "Of an evaluated example: the largest logit of a wrong class less that of the true class, negative if it is "
        "classified correctly. The output margin of a diagnosis has the other sign.",
    ),
    (
        "gradient masking, obfuscation",
        "The network hides its gradient, so that gradient attacks fail though adversarial examples exist "
        "(Athalye et al. 2018).",
    ),
)


def glossary() -> Section:
    """Return the section."""
    return Section("Glossary", (Part("", (Definitions(TERMS),)),))
