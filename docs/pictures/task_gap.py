"""
A gap in the data
=================

A mean-field guide, a low-rank guide and an exact last layer on the same two clusters.
"""

import matplotlib.pyplot as plt
import numpy as np

from pyrobbb import BayesianNetwork, fit, last_layer, likelihoods, mlp, plots

rng = np.random.default_rng(0)
x = np.concatenate([rng.uniform(-2, -1, (30, 1)), rng.uniform(1, 2, (30, 1))])
y = np.sin(2 * x) + 0.1 * rng.normal(size=x.shape)
network = BayesianNetwork(mlp(1, [20], 1, "tanh", seed=0), likelihood=likelihoods.Gaussian(0.1))
options = {"epochs": 3000, "seed": 0, "progress": False}
mean_field = fit(network, x, y, **options)
fits = {"mean field": mean_field, "low rank": fit(network, x, y, guide="low_rank", **options)}
fits["last layer"] = last_layer(mlp(1, [20], 1, "tanh", seed=0), x, y)
grid = np.linspace(-3, 3, 121)[:, None]
figure, axes = plt.subplots(1, 3, figsize=(10, 3), sharey=True, layout="constrained")
for ax, (name, posterior) in zip(axes, fits.items(), strict=True):
    plots.plot_band(grid, posterior.predict(grid, seed=0), data=(x, y), ax=ax)
    ax.set(title=name)
