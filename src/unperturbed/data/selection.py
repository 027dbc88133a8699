"""Which examples of a split are used where fewer than all are asked for: one rule for every command and function."""

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
_TEXT = re.compile(r"(?:(auto|first|random|stratified):)?(\d{1,18})(?: seed (\d{1,18}))?")
_DRAWS = 1000
"""Random draws whose class counts the first examples are compared with."""
_RARE = 0.05
"""Probability below which the absence of a class is not chance."""


@dataclass(frozen=True)
class Selection:
    """So many examples of a split.

    Attributes:
        how: "first" in file order, "random", or "stratified": drawn from every class in proportion; "auto": the first
            ones where they represent the split, else stratified.
        count: how many.
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
        """What a run folder keeps: `parse_record` reads it back. The first examples are a plain number."""
        return self.count if self.how == "first" else str(self)


def parse(asked: object, seed: int | None = None, name: str = "--examples") -> Selection:
    """Return what `N`, `first:N`, `stratified:N` or `random:N` means; `N` with a seed is `random:N`.

    Raises InputError for everything else; `name` is what the message calls the setting.
    """
    text = str(asked).strip() if isinstance(asked, int | np.integer | str) and not isinstance(asked, bool) else ""
    found = _TEXT.fullmatch(text)
    if found is None:
        below = re.fullmatch(r"-\d+", text) is not None
        must = "but must be at least 1" if below else f"but must be {FORMS}, with N a whole number"
        raise InputError(f"{name} is {str(asked)[:60]}, {must}.")
    how, count, own_seed = found[1] or ("auto" if seed is None else "random"), int(found[2]), found[3]
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
    """Return the selection that a run folder keeps: a plain number stands for the first examples."""
    return parse(f"first:{value}" if isinstance(value, int) else value, name="examples")


def choose(
    split: Split,
    asked: Selection,
    classes: Sequence[str] = (),
    what: str = "test",
) -> tuple[Split, Selection]:
    """Return the examples asked for, in file order and with the names that they have in the split, and the selection.

    Where "auto" is asked for, the first `count` are taken unless
    - they lack a class, though they could hold all, and either the split is ordered by class (neighbours share their
      class more often than in a random order) or fewer than 5% of random draws would lack that class; or
    - their class counts have a larger chi-square distance from the split's shares than all of 1,000 random draws.
    Then `count` are drawn stratified. `split.notes` says so, and which classes are missing. Where there are no more
    than `count`, all are taken.

    Args:
        split: what is chosen from.
        asked: how many, and how.
        classes: names of the classes, for messages.
        what: what messages call the examples.
    """
    n = len(split)
    if asked.count >= n:
        notes = [f"There are only {n} {what} examples, not {asked.count}: all are used."] if asked.count > n else []
        return SelectedSplit(split, torch.arange(n), (*split.notes, *notes)), Selection("first", n)
    notes = []
    if asked.how == "auto":
        why = _unlike(split.labels, asked.count, classes)
        asked = Selection("stratified" if why else "first", asked.count, asked.seed)
        if why:
            notes.append(
                f"The first {asked.count} of {n} {what} examples {why}: {asked.count} were drawn from all classes in "
                f"proportion instead ({asked}). first:{asked.count} takes the first ones."
            )
    ids = positions(split.labels, asked)
    return SelectedSplit(split, ids, (*split.notes, *notes, *_missing(split.labels[ids], classes))), asked


def positions(labels: Labels, selection: Selection) -> Tensor:
    """Return the positions that a selection means (not "auto"), in ascending order.

    Raises InputError where there are fewer than that.
    """
    n = len(labels)
    if selection.count > n:
        raise InputError(f"{selection} examples were asked for, but there are {n}: take 1 to that.")
    if selection.how == "stratified":
        return _stratified(labels, selection.count, selection.seed)
    first = torch.arange(n) if selection.how == "first" else _shuffled(n, selection.seed)
    return first[: selection.count].sort().values


def _unlike(labels: Labels, count: int, classes: Sequence[str]) -> str:
    """Return how the first `count` labels differ from all of them by more than chance; "" if they do not."""
    kinds, inverse, sizes = _classes_of(labels)
    seen = torch.bincount(inverse[:count], minlength=len(kinds))
    ordered = _ordered(inverse, sizes)
    unlikely = [ordered or _absence(len(labels), size, count) < _RARE for size in sizes.tolist()]
    missing = kinds[(seen == 0) & torch.tensor(unlikely)]
    if len(missing) and (count >= len(kinds) or (ordered and int((seen > 0).sum()) < count)):
        return f"hold no example of {_names(missing, classes)}"
    drawn = np.random.default_rng(0).multivariate_hypergeometric(sizes.numpy(), count, _DRAWS, method="marginals")
    expected = sizes.double() * count / len(labels)
    distance = ((torch.from_numpy(drawn) - expected).square() / expected).sum(1)
    if float(((seen - expected).square() / expected).sum()) <= float(distance.max()) + 1e-9:
        return ""
    most = int((seen - expected).abs().argmax())
    return (
        f"are far from the classes' shares ({int(seen[most])} of {_names(kinds[most : most + 1], classes)}, where "
        f"{float(expected[most]):.0f} would be in proportion)"
    )


def _ordered(kinds: Tensor, sizes: Tensor) -> bool:
    """Tell whether neighbours share their class more often than in a random order, by 2.5 standard deviations."""
    n = len(kinds)
    alike = float((sizes.double() * (sizes - 1)).sum()) / (n * (n - 1))
    spread = math.sqrt((n - 1) * alike * (1 - alike))
    return int((kinds[1:] == kinds[:-1]).sum()) - (n - 1) * alike > 2.5 * spread


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

    Remainders that tie are served in a random order, so that no class is preferred for its number.
    """
    kinds, inverse, sizes = _classes_of(labels)
    share = sizes.double() * count / len(labels)
    least = torch.full_like(sizes, int(count >= len(kinds)))
    excess = (share - least).clamp(min=0)
    excess *= (count - int(least.sum())) / max(float(excess.sum()), 1e-12)
    quota = least + (excess + 1e-9).floor().long()
    left = count - int(quota.sum())
    ties = _shuffled(len(kinds), seed)
    by_remainder = ties[(excess - (quota - least))[ties].argsort(descending=True, stable=True)]
    quota[by_remainder[:left]] += 1
    order = _shuffled(len(labels), seed)
    by_class = order[inverse[order].argsort(stable=True)]
    starts = sizes.cumsum(0) - sizes
    ids = [by_class[s : s + q] for s, q in zip(starts.tolist(), quota.tolist(), strict=True)]
    return torch.cat(ids).sort().values


def _classes_of(labels: Labels) -> tuple[Tensor, Tensor, Tensor]:
    """Return the labels that occur, which of them each label is, and how often each occurs."""
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
    found = [classes[k] if 0 <= k < len(classes) else f"class {k}" for k in labels[:5].tolist()]
    return ", ".join(found) + ", ..." * (len(labels) > 5)
