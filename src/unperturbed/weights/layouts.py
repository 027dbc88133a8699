"""The layouts of other projects' weights files: containers and names.

RobustBench: under "state_dict", or bare, or under "last"; names behind "module." or "model."; buffers `mu` and `sigma`.
MadryLab/robustness: under "model" (older: "state_dict"); the network twice, as "module.model." and
"module.attacker.model.", with `normalizer.new_mean` and `new_std`. TRADES: bare, at times behind "module.". MAIR: under
"rmodel"; "model." (parallel: "model.module."), together with `n_classes`, `mean` and `std`, or `model.0.mean` and the
network as "model.1.". timm: under "state_dict", the average under "state_dict_ema". DeepSpeed: under "module".
Lightning: under "state_dict", behind the name of the module's attribute, at times next to a loss with weights. Only
complete leading prefixes that every weight has are removed; of several networks in a file, `networks_in` returns each.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

_CONTAINERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "rmodel",
    "net",
    "network",
    "weights",
    "last",
    "best",
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "module",
    "net_state_dict",
    "model_sd",
    "params_ema",
    "params",
    "swa_model",
)
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "attacker.model.")
_NO_NETWORK = ("optim", "sched", "scaler", "loops", "callbacks", "rng", "hyper")
"""Parts of the names of entries that hold tensors, but no network."""
_BOOKKEEPING = ("n_classes", "n_averaged")
_NORMALISER = re.compile(
    r"(?P<owner>(?:(?:attacker\.)?normali[sz](?:e|er|ation)\.|0\.)?)(?:new_)?(?P<role>mean|mu|std|sigma)"
)
MEAN, STD = "normalise.mean", "normalise.std"


@dataclass(frozen=True, eq=False)
class StoredWeights:
    """Named tensors, the containers that lead to them (`()`: none), and the other containers of weights."""

    weights: Mapping[str, Tensor]
    path: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def find_weights(content: object) -> StoredWeights | None:
    """Return the named tensors of an unpickled file, out of their containers; None if it has none."""
    if not isinstance(content, Mapping):
        return None
    inside = {name: inner for name in _CONTAINERS if (inner := find_weights(content.get(name)))}
    if inside:
        (name, inner), *rest = inside.items()
        return StoredWeights(inner.weights, (name, *inner.path), (*(container for container, _ in rest), *inner.others))
    weights = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    return StoredWeights(weights) if weights else _only_network(content)


def _only_network(content: Mapping[object, object]) -> StoredWeights | None:
    """Return the tensors of the only entry that is a mapping of tensors, under any name; None if not exactly one is."""
    entries = {
        str(name): tensors
        for name, entry in content.items()
        if isinstance(entry, Mapping)
        and not any(part in str(name).lower() for part in _NO_NETWORK)
        and (tensors := {str(key): value for key, value in entry.items() if isinstance(value, Tensor)})
    }
    if len(entries) != 1:
        return None
    ((name, weights),) = entries.items()
    return StoredWeights(weights, (name,))


def networks_in(weights: Mapping[str, Tensor]) -> dict[str, dict[str, str]]:
    """Return plain name -> stored name of the weights behind each leading prefix of one or two parts, by the prefix."""
    names = plain_names(weights)
    parts = {name: name.split(".") for name in names}
    prefixes = sorted(
        {".".join(part[:depth]) + "." for part in parts.values() for depth in (1, 2) if len(part) > depth}
    )
    found = {}
    for prefix in prefixes:
        behind = {name.removeprefix(prefix): stored for name, stored in names.items() if name.startswith(prefix)}
        inner = plain_names({name: weights[stored] for name, stored in behind.items()})
        found[prefix] = {plain: behind[name] for plain, name in inner.items()}
    return found


def plain_names(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Return plain name -> stored name, without wrappers' prefixes and bookkeeping.

    The normalisation, under any name, becomes `normalise.mean` and `normalise.std`.
    """
    names = {name: name for name in weights}
    while (shorter := _unwrapped(_without_attacker(names))) != names:
        names = shorter
    names = {plain: stored for plain, stored in names.items() if plain not in _BOOKKEEPING}
    return _with_plain_normalisation(names)


def _without_attacker(names: dict[str, str]) -> dict[str, str]:
    """Drop the second copy of the network that robustness stores within its attacker."""
    if not any(name.startswith("model.") for name in names):
        return names
    return {plain: stored for plain, stored in names.items() if not plain.startswith("attacker.")}


def _unwrapped(names: dict[str, str]) -> dict[str, str]:
    """Remove one prefix if all weights but normalisation and bookkeeping have it and all names stay distinct."""
    body = [name for name in names if not _NORMALISER.fullmatch(name) and name not in _BOOKKEEPING]
    after_first_layer = ("1.",) if any(name.startswith("0.") for name in names.keys() - body) else ()
    for prefix in (*_PREFIXES, *after_first_layer):
        if body and all(name.startswith(prefix) for name in body):
            shorter = {plain.removeprefix(prefix): stored for plain, stored in names.items()}
            return shorter if len(shorter) == len(names) else names
    return names


def _with_plain_normalisation(names: dict[str, str]) -> dict[str, str]:
    """Rename the single pair of a mean and a std; several pairs, or half of a pair, stay unchanged."""
    roles: dict[str, dict[str, str]] = {}
    for name in names:
        if match := _NORMALISER.fullmatch(name):
            role = MEAN if match["role"] in ("mean", "mu") else STD
            roles.setdefault(match["owner"], {})[role] = name
    pairs = [pair for pair in roles.values() if len(pair) == 2]
    if len(pairs) != 1 or {MEAN, STD} & names.keys():
        return names
    plain = {name: role for role, name in pairs[0].items()}
    return {plain.get(name, name): stored for name, stored in names.items()}
