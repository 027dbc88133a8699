"""Threats from the options `--threat`, `--eps` and `--feature-eps`."""

from dataclasses import replace

from unperturbed.checks import NUMERAL
from unperturbed.cli.options import Parsed
from unperturbed.data.split import Data
from unperturbed.errors import InputError, hint
from unperturbed.threat import Threat


def threats_of(parsed: Parsed, first: Threat) -> list[Threat]:
    """Return the threats of `--threat`, or the one threat with each radius of `--eps`; `first` is the first of them."""
    threats = [first]
    if parsed.threat:
        others = (Threat.parse(text, first.bounds) for text in parsed.threat.split(",")[1:])
        threats += [replace(threat, shares=first.shares) if parsed.feature_eps else threat for threat in others]
    if len(threats) > 1 and parsed.eps is not None:
        raise InputError(f"--eps gives the radii of one threat, but there are {len(threats)}: write the radii in them.")
    names = [str(threat) for threat in threats]
    if len(set(names)) < len(names):
        raise InputError(f"--threat names the same threat twice: {', '.join(names)}.")
    return radii_of(threats[0], parsed.eps) if parsed.eps is not None else threats


def with_feature_eps(threat: Threat, text: str | None, data: Data) -> Threat:
    """Return the threat with the eps of single features, of a text such as "income=500,age=0" (None: as it is).

    Raises:
        InputError: for data that are no table, names that they do not have, an eps of the threat of 0, and a text that
            does not give numbers of 0 or more.
    """
    if text is None:
        return threat
    shape = tuple(data.train.shape)
    if len(shape) != 1:
        raise InputError(f"--feature-eps is for tables, and these examples have the shape {shape}: leave it out.")
    if threat.eps == 0:
        raise InputError(
            "--feature-eps is given, but the eps of the threat is 0: give --threat Linf:0.1, for instance."
        )
    names = data.features or tuple(map(str, range(shape[0])))
    values = {name: threat.eps for name in names}
    for part in text.split(","):
        name, equals, number = (piece.strip() for piece in part.rpartition("="))
        if not equals or not NUMERAL.fullmatch(number):
            raise InputError(f"--feature-eps is {text!r:.120}: write NAME=EPS,NAME=EPS, such as income=500,age=0.")
        if name not in values:
            raise InputError(f"--feature-eps names the feature {name!r}. {hint(name, names)}")
        values[name] = float(number)
        if values[name] < 0:
            raise InputError(f"--feature-eps gives {name!r} the eps {number}: give 0 or more, in its units.")
        if threat.norm != "Linf" and values[name] not in (0, threat.eps):
            raise InputError(
                f"--feature-eps gives {name!r} the eps {number}, but in {threat.norm} a feature changes, up to the eps "
                "of the threat, or never does: give 0, leave it out, or use Linf."
            )
    return replace(threat, shares=tuple(value / threat.eps for value in values.values()))


def radii_of(threat: Threat, eps: str | None) -> list[Threat]:
    """Return the threat with each of these radii."""
    if eps is None:
        return [threat]
    return [replace(threat, eps=Threat.parse(f"{threat.norm}:{text}").eps) for text in eps.split(",")]
