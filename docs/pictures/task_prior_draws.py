"""
Functions from the prior
========================

A prior on weights is a prior on functions: here are twenty draws from each.
"""

import matplotlib.pyplot as plt
import torch
from pyro.infer import Predictive

from pyrobbb import BayesianNetwork, likelihoods, mlp, priors

torch.manual_seed(0)
x = torch.linspace(-3, 3, 200)[:, None]
families = [priors.Normal(1.0), priors.FanInNormal(), priors.ScaleMixture(0.5, 1.0, 0.1)]
figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
for ax, prior in zip(axes, families, strict=True):
    network = BayesianNetwork(mlp(1, [50], 1, "tanh"), prior, likelihoods.Gaussian(scale=1e-3))
    y = Predictive(network, num_samples=20, parallel=True)(x)["y"]
    ax.plot(x[:, 0], y[..., 0].T, color="tab:blue", lw=0.8, alpha=0.6)
    ax.set(title=type(prior).__name__)
