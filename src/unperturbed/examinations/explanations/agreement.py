"""Agreement between saliency methods."""

from itertools import combinations

from unperturbed.examinations.explanations.base import Explanation
from unperturbed.examinations.explanations.maps import natural_maps
from unperturbed.examinations.explanations.scores import rank_correlation
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Finding, Number
from unperturbed.statistics.per_example import average


def agreement(subject: Subject) -> Explanation:
    """Agreement between methods: Spearman's correlation of the magnitudes of their maps, a mean over the examples.

    Krishna et al. 2022, https://arxiv.org/abs/2202.01602. If methods disagree, none is reliable.
    """
    numbers = list[Number]()
    for (first, u), (second, v) in combinations(natural_maps(subject).items(), 2):
        values = rank_correlation(u, v)
        numbers += average(f"rank correlation, {first} and {second}", values[values.isfinite()].tolist())
    summary = f"Rank correlations of five methods on {len(subject.test.x)} test examples."
    return Explanation(Finding("Agreement", summary, tuple(numbers)))
