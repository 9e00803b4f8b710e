"""
Signal-to-noise ratio of the weights
====================================

Weights on the left have more noise than signal: ``prune`` removes them first.
"""

import matplotlib.pyplot as plt
import numpy as np

from pyrobbb import BayesianNetwork, fit, mlp, plots

rng = np.random.default_rng(0)
x = rng.uniform(-2, 2, (100, 1))
y = np.sin(2 * x) + 0.1 * rng.normal(size=x.shape)
network = BayesianNetwork(mlp(1, [50], 1, "tanh", seed=0))
posterior = fit(network, x, y, epochs=2000, seed=0, progress=False)
_, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
plots.plot_snr(posterior, ax=ax)
