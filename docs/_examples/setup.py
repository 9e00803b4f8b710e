import matplotlib.pyplot as plt
import numpy as np
import torch

import pyrobbb
from pyrobbb import BayesianNetwork, fit, likelihoods, mlp, priors

rng = np.random.default_rng(0)
x = rng.uniform(-2, 2, (60, 1))
y = np.sin(2 * x) + 0.1 * rng.normal(size=x.shape)
labels = (x[:, 0] > 0).astype(int)
options = {"epochs": 200, "seed": 0, "progress": False}

network = BayesianNetwork(mlp(1, [8], 1, "tanh", seed=0))
posterior = fit(network, x, y, **options)
prediction = posterior.predict(x, seed=0)

two_classes = BayesianNetwork(mlp(1, [8], 2, seed=0), likelihood=likelihoods.Categorical())
class_posterior = fit(two_classes, x, labels, **options)
class_prediction = class_posterior.predict(x, seed=0)
