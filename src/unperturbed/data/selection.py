"""The selection of examples from a split: one rule for every command and function."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from unperturbed.data.split import SelectedSplit, Split
from unperturbed.errors import InputError
from unperturbed.types import Labels

How = Literal["auto", "first", "random", "stratified"]
FORMS = "N, first:N, stratified:N or random:N"
_TEXT = re.compile(r"(?:(auto|first|random|stratified):)?(\d{1,40})(?: seed (\d{1,18}))?")
_DRAWS = 1000
"""The number of random draws with which the class counts of the first examples are compared."""
_RARE = 0.05
"""Probability below which the absence of a class is not chance."""


@dataclass(frozen=True)
class Selection:
    """A number of examples of a split, and the rule for drawing them.

    Attributes:
        how: "first" in file order, "random", or "stratified": drawn from every class in proportion; "auto": the first
            if they represent the split, else stratified.
        count: number of examples.
        seed: of the draw.
    """

    how: How
    count: int
    seed: int = 0

    def __str__(self) -> str:
        """Return the text that `parse` reads back."""
        return f"{self.how}:{self.count}" + (f" seed {self.seed}" if self.how in ("random", "stratified") else "")

    @property
    def record(self) -> int | str:
        """The record in a run folder, for `parse_record`. The first examples are a plain number."""
        return self.count if self.how == "first" else str(self)


def parse(text_or_number: object, seed: int | None = None, name: str = "--examples") -> Selection:
    """Parse `N`, `first:N`, `stratified:N` or `random:N`; `N` with a seed is `random:N`.

    Raises InputError for anything else; `name` is the setting's name in messages.
    """
    text = (
        str(text_or_number).strip()
        if isinstance(text_or_number, int | np.integer | str) and not isinstance(text_or_number, bool)
        else ""
    )
    match = _TEXT.fullmatch(text)
    if match is None:
        below = re.fullmatch(r"-\d+", text) is not None
        must = "but must be at least 1" if below else f"but must be {FORMS}, with N a whole number"
        raise InputError(f"{name} is {str(text_or_number)[:60]}, {must}.")
    how, count, own_seed = match[1] or ("auto" if seed is None else "random"), int(match[2]), match[3]
    if count < 1:
        raise InputError(f"{name} is {text}, but must be at least 1.")
    if how in ("auto", "first") and (seed is not None or own_seed is not None):
        raise InputError(f"{name} is {text} and a seed was given: write stratified:{count} or random:{count}.")
    if own_seed is not None and seed is not None and int(own_seed) != seed:
        raise InputError(f"{name} is {text}, but the seed {seed} was given too: leave one of them out.")
    drawn = int(own_seed) if own_seed is not None else seed or 0
    if not 0 <= drawn < 2**63:
        raise InputError(f"The seed of {name} is {drawn}, but must lie in [0, 2**63).")
    return Selection(how, count, drawn)  # type: ignore[arg-type]


def parse_record(value: int | str) -> Selection:
    """Return the selection recorded in a run folder; a plain number means the first examples."""
    return parse(f"first:{value}" if isinstance(value, int) else value, name="examples")


def choose(
    split: Split,
    chosen: Selection,
    classes: Sequence[str] = (),
    kind: str = "test",
) -> tuple[Split, Selection]:
    """Return the selected examples, in file order and with their ids in the split, and the selection.

    With "auto", the first `count` are taken unless
    - they lack a class, though they could hold all, and either the split is ordered by class (neighbours share their
      class more often than in a random order) or fewer than 5% of random draws would lack that class; or
    - their class counts have a larger chi-square distance from the split's shares than all of 1,000 random draws.
    Then `count` are drawn stratified. `split.notes` reports this, and missing classes. If the split has no more than
    `count` examples, all are taken.

    Args:
        split: the split.
        chosen: how many, and how.
        classes: names of the classes, for messages.
        kind: the noun for the examples in messages.
    """
    n = len(split)
    if chosen.count >= n:
        notes = [f"There are only {n} {kind} examples, not {chosen.count}: all are used."] if chosen.count > n else []
        return SelectedSplit(split, torch.arange(n), (*split.notes, *notes)), Selection("first", n)
    notes = []
    if chosen.how == "auto":
        why = _unlike(split.labels, chosen.count, classes)
        chosen = Selection("stratified" if why else "first", chosen.count, chosen.seed)
        if why:
            notes.append(
                f"The first {chosen.count} of {n} {kind} examples {why}: {chosen.count} were drawn from all classes in "
                f"proportion instead ({chosen}). first:{chosen.count} takes the first ones."
            )
    ids = positions(split.labels, chosen)
    return SelectedSplit(split, ids, (*split.notes, *notes, *_missing(split.labels[ids], classes))), chosen


def positions(labels: Labels, selection: Selection) -> Tensor:
    """Return the positions of a selection (not "auto"), in ascending order.

    Raises InputError if the split has fewer examples.
    """
    n = len(labels)
    if selection.count > n:
        raise InputError(f"{selection} examples were asked for, but there are {n}: take 1 to that.")
    if selection.how == "stratified":
        return _stratified(labels, selection.count, selection.seed)
    first = torch.arange(n) if selection.how == "first" else _shuffled(n, selection.seed)
    return first[: selection.count].sort().values


def _unlike(labels: Labels, count: int, classes: Sequence[str]) -> str:
    """Return the way in which the first `count` labels differ from all by more than chance; "" if they do not."""
    kinds, inverse, sizes = _classes_of(labels)
    counts = torch.bincount(inverse[:count], minlength=len(kinds))
    ordered = _ordered(inverse, sizes)
    unlikely = [ordered or _absence(len(labels), size, count) < _RARE for size in sizes.tolist()]
    missing = kinds[(counts == 0) & torch.tensor(unlikely)]
    if len(missing) and (count >= len(kinds) or (ordered and int((counts > 0).sum()) < count)):
        return f"hold no example of {_names(missing, classes)}"
    drawn = np.random.default_rng(0).multivariate_hypergeometric(sizes.numpy(), count, _DRAWS, method="marginals")
    expected = sizes.double() * count / len(labels)
    distance = ((torch.from_numpy(drawn) - expected).square() / expected).sum(1)
    if float(((counts - expected).square() / expected).sum()) <= float(distance.max()) + 1e-9:
        return ""
    peak = int((counts - expected).abs().argmax())
    return (
        f"are far from the classes' shares ({int(counts[peak])} of {_names(kinds[peak : peak + 1], classes)}, where "
        f"{float(expected[peak]):.0f} would be in proportion)"
    )


def _ordered(kinds: Tensor, sizes: Tensor) -> bool:
    """Tell whether neighbours share their class more often than in a random order, by 2.5 standard deviations."""
    n = len(kinds)
    same_class = float((sizes.double() * (sizes - 1)).sum()) / (n * (n - 1))
    spread = math.sqrt((n - 1) * same_class * (1 - same_class))
    return int((kinds[1:] == kinds[:-1]).sum()) - (n - 1) * same_class > 2.5 * spread


def _absence(n: int, size: int, count: int) -> float:
    """Return the probability that `count` random ones of n examples hold none of `size` of them (hypergeometric)."""
    if size + count > n:
        return 0.0
    ways = (
        math.lgamma(n - size + 1) - math.lgamma(n - size - count + 1) - math.lgamma(n + 1) + math.lgamma(n - count + 1)
    )
    return math.exp(ways)


def _stratified(labels: Labels, count: int, seed: int) -> Tensor:
    """Return `count` positions: of each class its share, rounded by largest remainders, and 1 at least if they suffice.

    Equal remainders are ordered at random, so that no class is preferred for its number.
    """
    kinds, inverse, sizes = _classes_of(labels)
    share = sizes.double() * count / len(labels)
    least = torch.full_like(sizes, int(count >= len(kinds)))
    excess = (share - least).clamp(min=0)
    excess *= (count - int(least.sum())) / max(float(excess.sum()), 1e-12)
    quota = least + (excess + 1e-9).floor().long()
    remainder = count - int(quota.sum())
    ties = _shuffled(len(kinds), seed)
    by_remainder = ties[(excess - (quota - least))[ties].argsort(descending=True, stable=True)]
    quota[by_remainder[:remainder]] += 1
    order = _shuffled(len(labels), seed)
    by_class = order[inverse[order].argsort(stable=True)]
    starts = sizes.cumsum(0) - sizes
    ids = [by_class[s : s + q] for s, q in zip(starts.tolist(), quota.tolist(), strict=True)]
    return torch.cat(ids).sort().values


def _classes_of(labels: Labels) -> tuple[Tensor, Tensor, Tensor]:
    """Return the distinct labels, the index of every label among them, and their counts."""
    kinds, inverse, sizes = np.unique(labels.numpy(), return_inverse=True, return_counts=True)
    return torch.from_numpy(kinds), torch.from_numpy(inverse), torch.from_numpy(sizes)


def _shuffled(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def _missing(labels: Labels, classes: Sequence[str]) -> list[str]:
    """Return a warning if examples lack some of the classes."""
    missing = sorted(set(range(len(classes))) - set(labels.tolist()))
    if not missing:
        return []
    kind = "class is" if len(missing) == 1 else "classes are"
    names = _names(torch.tensor(missing), classes)
    return [f"Among these {len(labels)} examples {len(missing)} {kind} missing ({names})."]


def _names(labels: Tensor, classes: Sequence[str]) -> str:
    names = [classes[k] if 0 <= k < len(classes) else f"class {k}" for k in labels[:5].tolist()]
    return ", ".join(names) + ", ..." * (len(labels) > 5)
