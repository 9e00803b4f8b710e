"""
Parts of the uncertainty
========================

The noise of y grows with x, and there are no data right of 2: the aleatoric part follows the
noise, the epistemic part the lack of data.
"""

import matplotlib.pyplot as plt
import numpy as np

from pyrobbb import BayesianNetwork, fit, likelihoods, mlp, plots

rng = np.random.default_rng(0)
x = rng.uniform(-2, 2, (300, 1))
y = np.sin(2 * x) + 0.15 * (x + 2.2) * rng.normal(size=x.shape)
network = BayesianNetwork(
    mlp(1, [20], 2, "tanh", seed=0), likelihood=likelihoods.HeteroscedasticGaussian()
)
posterior = fit(network, x, y, epochs=1000, seed=0, progress=False)
grid = np.linspace(-2, 3.5, 111)[:, None]
_, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
plots.plot_parts(grid, posterior.predict(grid, seed=0), ax=ax)
