"""
Training curve
==============

The negative ELBO and its two parts, averaged over epochs. The KL divergence
measures, in nats, how far the posterior has moved from the prior.
"""

import matplotlib.pyplot as plt
import numpy as np

from pyrobbb import BayesianNetwork, fit, mlp, plots

rng = np.random.default_rng(0)
x = rng.uniform(-2, 2, (100, 1))
y = np.sin(2 * x) + 0.3 * rng.normal(size=x.shape)
network = BayesianNetwork(mlp(1, [20], 1, "tanh", seed=0))
posterior = fit(network, x, y, epochs=2000, seed=0, progress=False)
_, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
plots.plot_history(posterior.history, ax=ax)
