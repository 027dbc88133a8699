"""The threat set S(x) and its geometry: the only place that knows norms."""

from unperturbed.threat.threat import Threat as Threat
