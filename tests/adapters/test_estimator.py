"""The scikit-learn estimator: scikit-learn's checks, pipelines, searches, and what it adds to them."""

import inspect
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from unperturbed.adapters.estimator import RobustClassifier, robust_scorer
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.errors import InputError
from unperturbed.evaluation import accuracy
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.trades import TRADES
from unperturbed.training.recipe import Recipe

DRAW = np.random.default_rng(0)
Y = np.array(["cat", "dog", "eel"])[np.arange(90) % 3]
X = np.eye(3, 5)[np.arange(90) % 3] + 0.15 * DRAW.normal(size=(90, 5))
FEW = {"method": AT(PGD(steps=2)), "epochs": 6, "batch_size": 15}


@pytest.fixture(autouse=True)
def short_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = Suite("fast", (GradientAttack("PGD-CE", cross_entropy, PGD(steps=5)),), "a short one")
    monkeypatch.setitem(accuracy.SUITES, "fast", suite)  # type: ignore[attr-defined]


@pytest.mark.slow
@parametrize_with_checks([RobustClassifier(AT(PGD(steps=2)))])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learns_checks_hold(estimator: Any, check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that apply; scikit-learn skips one where array types other than NumPy's are not switched on.

    By scikit-learn's convention a constructor takes anything, and `fit` checks it: the check of types under pytest is
    taken off the constructor.
    """
    monkeypatch.setattr(RobustClassifier, "__init__", inspect.unwrap(RobustClassifier.__init__))
    check(estimator)


@pytest.mark.slow
def test_labels_of_any_type_are_learned_and_probabilities_are_in_their_order() -> None:
    fitted = RobustClassifier(**FEW).fit(X, Y)
    probabilities = fitted.predict_proba(X)
    assert list(fitted.classes_) == ["cat", "dog", "eel"] and fitted.n_features_in_ == 5
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert (fitted.classes_[probabilities.argmax(1)] == fitted.predict(X)).all()
    assert fitted.score(X, Y) > 0.9 and not fitted.model_.training


@pytest.mark.long
@pytest.mark.slow
def test_the_robust_score_falls_with_eps_and_is_that_of_evaluate() -> None:
    fitted = RobustClassifier(**FEW, eps=0.1).fit(X, Y)
    scores = [fitted.set_params(eps=eps).robust_score(X, Y) for eps in (0.0, 0.3, 3.0)]
    assert scores[0] == fitted.score(X, Y) >= scores[1] > scores[2] == 0
    outcome = fitted.robust_evaluation(X, Y)
    assert outcome.n == 90 and outcome.threat == "Linf:3 without bounds"


@pytest.mark.long
@pytest.mark.slow
def test_a_robust_method_is_more_robust_than_ordinary_training() -> None:
    """On a feature that is right but small, and one that is less often right but large."""
    draw = np.random.default_rng(1)
    y = np.arange(400) % 2
    large = np.where(draw.random(400) < 0.9, y, 1 - y)
    x = np.stack([0.06 * (2 * y - 1), 2.0 * large - 1], 1) + 0.01 * draw.normal(size=(400, 2))
    settings = {"eps": 0.2, "epochs": 10, "batch_size": 40}
    attacked = RobustClassifier(AT(PGD(steps=3)), **settings).fit(x, y)
    ordinary = RobustClassifier(AT(PGD(steps=3)), **(settings | {"eps": 0.0})).fit(x, y).set_params(eps=0.2)
    assert ordinary.score(x, y) > 0.97 and attacked.robust_score(x, y) > ordinary.robust_score(x, y) + 0.2


@pytest.mark.slow
def test_it_is_cloned_pickled_and_repeated() -> None:
    fitted = RobustClassifier(**FEW, random_state=3).fit(X, Y)
    again = clone(fitted)
    assert not hasattr(again, "model_") and again.get_params()["random_state"] == 3
    expected = fitted.predict_proba(X)
    assert (again.fit(X, Y).predict_proba(X) == expected).all()
    assert (pickle.loads(pickle.dumps(fitted)).predict_proba(X) == expected).all()
    assert (clone(fitted).set_params(random_state=4).fit(X, Y).predict_proba(X) != expected).any()


@pytest.mark.long
@pytest.mark.slow
def test_it_is_searched_within_a_pipeline_by_robust_accuracy() -> None:
    pipeline = make_pipeline(StandardScaler(), RobustClassifier(**FEW))
    grid = {"robustclassifier__lr": [1e-6, 0.01]}
    search = GridSearchCV(pipeline, grid, scoring=robust_scorer, cv=2).fit(X, Y)
    assert search.best_params_ == {"robustclassifier__lr": 0.01}
    best = search.best_estimator_
    scaled = best[0].transform(X)
    assert robust_scorer(best, X, Y) == best[-1].robust_score(scaled, Y)
    with pytest.raises(InputError, match="LogisticRegression has no robust accuracy"):
        robust_scorer(LogisticRegression().fit(X, Y), X, Y)


@pytest.mark.slow
def test_images_and_a_network_of_the_users_are_taken() -> None:
    images = np.repeat(X[:, :1, None, None], 16, axis=1).reshape(90, 1, 4, 4)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fitted = RobustClassifier(TRADES(maximiser=PGD(steps=1)), model=network, epochs=1).fit(images, Y)
    assert fitted.predict_proba(images).shape == (90, 3)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_recipe_gives_what_is_not_an_argument() -> None:
    fitted = RobustClassifier(AT(PGD(steps=1)), recipe=Recipe(validation=0.5, epochs=9), epochs=1).fit(X, Y)
    assert fitted.trained_.clean_accuracy.n == 45 and fitted.trained_.epochs == 1


@pytest.mark.parametrize(
    ("settings", "x", "y", "message"),
    [
        ({"bounds": (0.0, 1.0)}, X + 2, Y, "within|outside|range"),
        ({}, X, np.zeros(90), "All labels are of the one class"),
        ({"model": "mpl"}, X, Y, "mlp"),
        ({"epochs": 0}, X, Y, "epochs"),
    ],
)
def test_wrong_input_is_refused(settings: dict[str, Any], x: Any, y: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RobustClassifier(**FEW).set_params(**settings).fit(x, y)


def test_labels_that_were_not_in_training_have_no_robust_accuracy() -> None:
    fitted = RobustClassifier(**FEW).fit(X, Y)
    with pytest.raises(InputError, match="newt was not in the training data"):
        fitted.robust_score(X[:1], ["newt"])
    with pytest.raises(InputError, match="one label per input"):
        fitted.robust_score(X, Y[:3])
