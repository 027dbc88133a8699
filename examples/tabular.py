"""A network on 29 features, each with a separate range: arrays in, a robust accuracy with its interval out.

Features are counted in standard deviations, and eps with them. The bounds are the allowed values of each feature.
"""

from sklearn.datasets import load_breast_cancer

from unperturbed import Threat, evaluate, train
from unperturbed.architectures.mlp import MLP

x, y = load_breast_cancer(return_X_y=True)
x = (x / x.std(0))[:, :29]
threat = Threat("Linf", 0.1, bounds=(x.min(0), x.max(0)))
model = MLP((29,), classes=2, mean=tuple(x.mean(0)))
train(model, (x[:400], y[:400]), threat)
print(evaluate(model, (x[400:], y[400:]), threat))
