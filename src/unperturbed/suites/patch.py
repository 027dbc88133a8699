"""Attacks that change one square of an image: the suite in the norm Patch."""

from unperturbed.attacks.gradient import Suite
from unperturbed.attacks.patch_climb import PatchClimb
from unperturbed.attacks.patch_search import PatchSearch

PATCH: Suite = Suite(
    "patch",
    (PatchClimb(), PatchSearch()),
    "patches only, climbs at the likeliest places and then a random search: an upper bound, no AutoAttack",
)
