"""Norms, radii and shares of features as text: "Linf:8/255", "l2:0.5", "Patch:5x5", "Linf:0.1[1;0;50]"."""

import re
from typing import get_args

from unperturbed.errors import InputError
from unperturbed.types import Norm

_NORMS: dict[str, Norm] = {
    **{"inf": "Linf", "2": "L2", "1": "L1", "0": "L0"},
    **{norm.lower(): norm for norm in get_args(Norm)},
}
_SQUARE = re.compile(r"(\s*patch\s*:\s*)(\d+)\s*[x\u00d7]\s*(\d+)\s*", re.IGNORECASE | re.ASCII)
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_SHARES = rf"\[\s*({_NUMBER}\s*(?:;\s*{_NUMBER}\s*)*)\]\s*"
_THREAT = re.compile(rf"\s*(\w+)\s*:\s*({_NUMBER})\s*(?:/\s*({_NUMBER})\s*)?(?:{_SHARES})?", re.IGNORECASE | re.ASCII)


def norm_of(text: str) -> Norm | None:
    """Return the norm of this name in any case, such as "linf" or "2"; None for any other text."""
    return _NORMS.get(text.lower())


def read(text: str) -> tuple[Norm, float, tuple[float, ...] | None]:
    """Return the norm, the radius and the shares (None: there are none) of a text; raises InputError for another."""
    square = _SQUARE.fullmatch(text)
    if square and square[2] != square[3]:
        raise InputError(f"{text!r} is not a square: write Patch:SIDExSIDE, such as Patch:5x5")
    match = _THREAT.fullmatch(square[1] + square[2] if square else text)
    norm = norm_of(match[1]) if match else None
    if match is None or norm is None:
        raise InputError(
            f"{text!r} is not a threat: write NORM:EPS with NORM Linf, L2, L1 or L0 (Linf:8/255), or Patch:5x5"
        )
    divisor = float(match[3] or 1)
    if divisor == 0:
        raise InputError(f"{text!r} divides by zero: write NORM:EPS, such as Linf:8/255")
    shares = tuple(map(float, match[4].split(";"))) if match[4] else None
    return norm, float(match[2]) / divisor, shares


def spelled(norm: Norm, eps: float) -> str:
    """Return the text that `read` reads, with the shortest radius: in 255ths if it is a multiple of 1/255."""
    size = _short(eps)
    return f"Patch:{size}x{size}" if norm == "Patch" else f"{norm}:{size}"


def listed(shares: tuple[float, ...] | None) -> str:
    """Return the text of shares that `read` reads, "[1;0;50]"; none for None."""
    return "" if shares is None else f"[{';'.join(_short_number(share) for share in shares)}]"


def _short_number(value: float) -> str:
    brief = f"{value:.6g}"
    return brief if float(brief) == value else repr(value)


def _short(eps: float) -> str:
    levels = round(eps * 255)
    short = _short_number(eps)
    return f"{levels}/255" if float(f"{eps:.6g}") != eps and levels / 255 == eps else short
