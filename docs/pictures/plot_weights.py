"""
Weights and their prior
=======================

The posterior of all weights of one parameter, pooled, against their prior.
"""

import matplotlib.pyplot as plt
import numpy as np

from pyrobbb import BayesianNetwork, fit, mlp, plots

rng = np.random.default_rng(0)
x = rng.uniform(-2, 2, (100, 1))
y = np.sin(2 * x) + 0.1 * rng.normal(size=x.shape)
network = BayesianNetwork(mlp(1, [20], 1, "tanh", seed=0))
posterior = fit(network, x, y, epochs=2000, seed=0, progress=False)
_, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
plots.plot_weights(posterior, "2.weight", ax=ax)
