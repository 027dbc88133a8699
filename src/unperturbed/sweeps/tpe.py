"""Values for the next runs of a sweep, from the results of earlier ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unperturbed.checks import AT_LEAST_ONE, SEED, check_fields
from unperturbed.errors import InputError
from unperturbed.sweeps.ranges import Range

Space = Mapping[str, Range | tuple[str, ...]]
"""By option: a range, or the values to choose from, as text."""
Values = Mapping[str, str]
"""Values as text, by option."""


@dataclass(frozen=True)
class TPE:
    """The search of a sweep: the tree-structured Parzen estimator of Optuna.

    Bergstra et al. 2011, https://papers.nips.cc/paper/4443-algorithms-for-hyper-parameter-optimization. The first ten
    trials are random.

    Attributes:
        trials: number of trials, each a run with other values.
        seed: of the suggestions.
    """

    trials: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise InputError for numbers out of range, and without the library."""
        check_fields(self, trials=AT_LEAST_ONE, seed=SEED)
        _library()

    def suggest(self, space: Space, history: Sequence[tuple[Values, float]], count: int) -> list[Values]:
        """Return the values of the next trials.

        They depend only on the arguments: a search that resumes gets the same ones.

        Args:
            space: the options.
            history: values and score of the earlier trials in their order; the highest score is best.
            count: number of trials that are trained at the same time.
        """
        optuna = _library()
        distributions = {option: _distribution(optuna, values) for option, values in space.items()}
        seed = int(np.random.SeedSequence([self.seed, len(history)]).generate_state(1)[0])
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed), direction="maximize")
        for texts, score in history:
            params = {option: _value(space[option], text) for option, text in texts.items()}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=score))
        asked = [study.ask(distributions).params for _ in range(count)]
        return [{option: _text(space[option], params[option]) for option in space} for params in asked]


def _library() -> Any:
    """Return the module `optuna`, without its reports on every study; raises InputError if it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise InputError("A search needs the library Optuna: pip install unperturbed[search].") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(optuna: Any, values: Range | tuple[str, ...]) -> Any:
    if not isinstance(values, Range):
        return optuna.distributions.CategoricalDistribution(values)
    kind = optuna.distributions.IntDistribution if values.is_whole else optuna.distributions.FloatDistribution
    return kind(values.low, values.high, log=values.log)


def _value(values: Range | tuple[str, ...], text: str) -> Any:
    return values.value(text) if isinstance(values, Range) else text


def _text(values: Range | tuple[str, ...], value: Any) -> str:
    return values.text(value) if isinstance(values, Range) else str(value)
