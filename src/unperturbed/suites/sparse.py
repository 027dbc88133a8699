"""Attacks that change few features: the suite in L0."""

from unperturbed.attacks.gradient import Suite
from unperturbed.attacks.sigma_zero import SigmaZero
from unperturbed.attacks.sparse_search import SparseSearch

SPARSE: Suite = Suite(
    "sparse",
    (SigmaZero(), SparseSearch()),
    "L0 only, sigma-zero and then a random search: an upper bound, no AutoAttack",
)
