"""A scikit-learn classifier that is trained against perturbations."""

from copy import deepcopy
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from unperturbed.data.split import Data, array_split
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.findings import Outcome
from unperturbed.methods.base import Method
from unperturbed.networks.device import find_device
from unperturbed.networks.dtype import home
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.specs.model_for import model_for
from unperturbed.threat import Threat
from unperturbed.training.loop import train
from unperturbed.training.recipe import Recipe
from unperturbed.types import Bounds, Norm

_AT_A_TIME = 1024


class RobustClassifier(ClassifierMixin, BaseEstimator):
    """A network trained by a robust method, as a scikit-learn estimator.

    It works in a `Pipeline`, in `GridSearchCV` and with `clone`. X has the shape (n, features) or, for images,
    (n, channels, height, width). In a pipeline, eps is in the units of the features that reach this step.

    Args:
        method: what training minimises, such as `TRADES(beta=3)`; None: `AT()`.
        norm: of the threat set: "Linf", "L2" or "L1".
        eps: radius of the threat set, in units of X.
        bounds: lowest and highest value of X; None: no bounds.
        shares: how far each feature may change, in units of eps: 0 for one that never changes; None: all by eps.
        model: a name ("mlp", "small-cnn"), or a `torch.nn.Module` that returns logits, of which `fit` trains a copy;
            None: "mlp" for vectors, "small-cnn" for images.
        epochs: passes over the training data.
        batch_size: examples per step; None: chosen by the amount of data.
        lr: peak learning rate; None: the optimiser's usual one.
        recipe: a `Recipe` with all other settings of training; `epochs`, `batch_size`, `lr` and the seed replace its.
        random_state: seed, generator or None, as in scikit-learn.
        device: "auto", "cpu", "cuda" or "mps".

    Attributes:
        model_: the trained network, in eval mode.
        classes_: the labels, in the order of the logits.
        trained_: the result of training, as `unperturbed.train` returns it.
        n_features_in_: features of X.
    """

    def __init__(
        self,
        method: Method | None = None,
        *,
        norm: Norm = "Linf",
        eps: float = 0.1,
        bounds: Bounds = None,
        shares: tuple[float, ...] | None = None,
        model: str | nn.Module | None = None,
        epochs: int = 10,
        batch_size: int | None = None,
        lr: float | None = None,
        recipe: Recipe | None = None,
        random_state: Any = 0,
        device: str = "auto",
    ) -> None:
        """Store the settings; they are checked by `fit`."""
        self.method = method
        self.norm = norm
        self.eps = eps
        self.bounds = bounds
        self.shares = shares
        self.model = model
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.recipe = recipe
        self.random_state = random_state
        self.device = device

    @property
    def threat(self) -> Threat:
        """Return the threat set."""
        return Threat(self.norm, self.eps, self.bounds, self.shares)

    def fit(self, X: Any, y: Any) -> "RobustClassifier":
        """Train a network on inputs X and labels y, and return the estimator.

        Raises:
            InputError: on inputs outside the bounds, fewer than two classes, and settings that do not fit.
            ValueError: on what scikit-learn refuses.
        """
        X, y = validate_data(self, X, y, dtype=np.float32, allow_nd=True)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(f"All labels are of the one class {self.classes_[0]}: at least two are needed.")
        data = Data("X", array_split(X, labels), None, tuple(map(str, self.classes_)))
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        settings = {"epochs": self.epochs, "batch_size": self.batch_size, "lr": self.lr, "seed": seed}
        recipe = Recipe(**(vars(self.recipe) if self.recipe is not None else {}) | settings)
        if isinstance(self.model, nn.Module):
            model = deepcopy(self.model)
        else:
            model = model_for(data, self.model, seed=seed)
        self.trained_ = train(model, data, self.threat, self.method, recipe, device=self.device)
        self.model_ = self.trained_.model
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the softmax of the logits, one row per input and one column per class of `classes_`."""
        x = self._inputs(X)
        device, dtype = home(self.model_)
        with torch.no_grad(), under_attack(self.model_), as_reported(device):
            logits = [self.model_(part.to(device, dtype)).double().cpu() for part in torch.split(x, _AT_A_TIME)]
        probabilities: np.ndarray = torch.cat(logits).softmax(1).numpy()
        return probabilities

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each input."""
        places = self.predict_proba(X).argmax(1)
        predicted: np.ndarray = self.classes_[places]
        return predicted

    def robust_evaluation(
        self, X: Any, y: Any, suite: Literal["fast", "standard", "plus", "rand", "pgd"] = "fast"
    ) -> Outcome:
        """Return what `unperturbed.evaluate` returns for these inputs and labels, in the threat set of training.

        Raises:
            InputError: on labels that `fit` has not seen, and inputs outside the bounds.
        """
        x = self._inputs(X)
        y = np.asarray(y)
        if y.shape != (len(x),):
            raise InputError(f"There are {len(x)} inputs, but labels of shape {y.shape}: give one label per input.")
        unseen = [label for label in np.unique(y) if label not in self.classes_]
        if unseen:
            raise InputError(f"The label {unseen[0]} was not in the training data: leave its examples out.")
        labels = torch.from_numpy(np.searchsorted(self.classes_, y))
        return evaluate(self.model_.to(find_device(self.device)), (x, labels), self.threat, suite)

    def robust_score(self, X: Any, y: Any) -> float:
        """Return the robust accuracy under the suite `fast`, with its check by `standard`: an upper bound."""
        return self.robust_evaluation(X, y).robust_accuracy.value

    def _inputs(self, X: Any) -> torch.Tensor:
        check_is_fitted(self)
        return torch.tensor(validate_data(self, X, dtype=np.float32, allow_nd=True, reset=False))


def robust_scorer(estimator: Any, X: Any, y: Any) -> float:
    """Return the robust accuracy of a `RobustClassifier`, or of a pipeline that ends in one, under the suite `fast`.

    It goes into `scoring` of `GridSearchCV` and `cross_val_score`. Settings that are compared by it must share the
    threat set: a smaller eps always scores better.

    Raises:
        InputError: on another estimator.
    """
    if isinstance(estimator, Pipeline):
        return robust_scorer(estimator[-1], estimator[:-1].transform(X), y)
    if not isinstance(estimator, RobustClassifier):
        raise InputError(f"{type(estimator).__name__} has no robust accuracy: give a RobustClassifier.")
    return estimator.robust_score(X, y)
