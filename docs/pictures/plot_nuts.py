"""
Compared with NUTS
==================

The same model by Bayes by Backprop and by NUTS, whose draws come from the exact posterior.
Between the clusters, independent weights are too certain.
"""

import matplotlib.pyplot as plt
import numpy as np

from pyrobbb import BayesianNetwork, compare_with_nuts, likelihoods, mlp, plots, priors

rng = np.random.default_rng(0)
x = np.concatenate([rng.uniform(-2, -1, (10, 1)), rng.uniform(1, 2, (10, 1))])
y = np.sin(2 * x) + 0.4 * rng.normal(size=x.shape)
network = BayesianNetwork(
    mlp(1, [2], 1, "tanh", seed=0), priors.Normal(1.0), likelihoods.Gaussian(scale=0.4)
)
options = {"n_draws": 60, "n_warmup": 40, "n_chains": 1, "seed": 0, "progress": False}
grid = np.linspace(-3, 3, 61)[:, None]
_, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
plots.plot_nuts(compare_with_nuts(network, x, y, x_new=grid, epochs=3000, **options), ax=ax)
