"""
Leave-one-out PIT
=================

The leave-one-out probability integral transform of y. Within the band, predictions are
calibrated.
"""

import matplotlib.pyplot as plt
import numpy as np

from pyrobbb import BayesianNetwork, fit, mlp, plots

rng = np.random.default_rng(0)
x = rng.uniform(-2, 2, (60, 1))
y = np.sin(2 * x) + 0.1 * rng.normal(size=x.shape)
network = BayesianNetwork(mlp(1, [8], 1, "tanh", seed=0))
posterior = fit(network, x, y, epochs=3000, restarts=2, seed=0, progress=False)
tree = posterior.to_arviz(x, y, seed=0)
_, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
plots.plot_loo_pit(tree, ax=ax)
