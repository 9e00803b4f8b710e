"""
Simulation-based calibration
============================

Ranks of the true outputs among posterior draws, over fits to data drawn from the prior. Within
the band, the posteriors are calibrated on average.
"""

import numpy as np

from pyrobbb import BayesianNetwork, likelihoods, mlp, plots, priors, sbc

network = BayesianNetwork(
    mlp(1, [3], 1, "tanh", seed=0), priors.Normal(1.0), likelihoods.Gaussian(scale=0.5)
)
x = np.linspace(-2, 2, 20)[:, None]
result = sbc(network, x, n_sims=20, n_draws=99, epochs=300, seed=0, progress=False)
plots.plot_sbc(result)
