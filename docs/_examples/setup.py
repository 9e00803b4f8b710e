import numpy as np
import torch

import pyrobbb
from pyrobbb import BayesianNetwork, fit, likelihoods, mlp, priors

rng = np.random.default_rng(0)
x = rng.uniform(-2, 2, (60, 1))
y = np.sin(2 * x) + 0.1 * rng.normal(size=x.shape)
network = BayesianNetwork(mlp(1, [8], 1, "tanh", seed=0))
posterior = fit(network, x, y, epochs=200, seed=0, progress=False)
