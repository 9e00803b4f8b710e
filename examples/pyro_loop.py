"""Train a BayesianNetwork in a Pyro loop, with stock SVI, Trace_ELBO and Predictive.

The network is the model and `MeanFieldGuide` the guide; `pyrobbb.fit` is not needed. The second
guide is one of Pyro's autoguides, with correlated weights. Correlations alone do not solve the
problem: both guides underestimate the epistemic uncertainty in the gap between the data (the exact
posterior is in notebooks/15-limits.ipynb), and far from the data a ReLU network
extrapolates linearly.
"""

import argparse
import math

import pyro
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoLowRankMultivariateNormal
from pyro.infer.autoguide.initialization import init_to_value

import pyrobbb

N_DATA, BATCH, NOISE = 200, 100, 0.2
PROBES = {"in the data": -1.5, "in the gap": 0.0, "far outside": 4.0}


def make_data():
    """Draw two clusters of inputs with a gap between them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(N_DATA, 1, generator=generator) - 2.0  # in [-2, -1]
    x[N_DATA // 2 :] += 3.0  # in [1, 2]
    y = torch.sin(2 * x) + NOISE * torch.randn(x.shape, generator=generator)
    return x, y


def fit(network, guide, x, y, n_steps, lr=0.02):
    """Train, and return the loss of each step: the negative ELBO, in nats."""
    optimizer = pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": lr}, "gamma": 0.05 ** (1 / n_steps)}
    )
    svi = SVI(network, guide, optimizer, Trace_ELBO())
    losses = []
    while len(losses) < n_steps:
        for rows in torch.randperm(N_DATA).split(BATCH):
            # n_data scales the likelihood of the batch. Without it, the batch counts as all data.
            losses.append(svi.step(x[rows], y[rows], n_data=N_DATA))
            optimizer.step()  # advances the learning rate schedule
    return losses


def print_row(name, nelbo, means, sds):
    values = "".join(f"   {m:>5.2f} +- {s:.2f} " for m, s in zip(means, sds, strict=True))
    print(f"{name:<30} {nelbo:>7}{values}".rstrip())


def report(name, network, guide, losses, n_draws=500):
    predictive = Predictive(network, guide=guide, num_samples=n_draws, parallel=True)
    with torch.no_grad():
        y = predictive(torch.tensor([*PROBES.values()])[:, None])["y"].squeeze(-1)
    last = losses[-(len(losses) // 10) :]
    print_row(name, f"{sum(last) / len(last):.1f}", y.mean(0), y.std(0))


def main(n_steps=3000):
    x, y = make_data()
    print(f"{n_steps} steps; nelbo: mean over the last 10 %; y: mean +- sd over 500 draws.")
    print(f"{'':<30} {'nelbo':>7}" + "".join(f"   {place:<14}" for place in PROBES).rstrip())
    truth = [math.sin(2 * x) for x in PROBES.values()]
    print_row("true function and noise", "", truth, [NOISE] * len(PROBES))

    pyro.set_rng_seed(0)
    network = pyrobbb.BayesianNetwork(
        pyrobbb.mlp(1, [30], 1, seed=0),
        likelihood=pyrobbb.likelihoods.Gaussian(scale=NOISE),
    )
    guide = pyrobbb.MeanFieldGuide(network)
    losses = fit(network, guide, x, y, n_steps)
    report("MeanFieldGuide", network, guide, losses)

    # By default, an autoguide starts at the median of the prior: all weights are 0 and all hidden
    # units identical. Start it at the module's weights instead, with small scales.
    weights = {name: parameter.detach() for name, parameter in network.bayesian_parameters()}
    guide = AutoLowRankMultivariateNormal(
        network, init_loc_fn=init_to_value(values=weights), init_scale=0.02, rank=10
    )
    losses = fit(network, guide, x, y, n_steps)
    report("AutoLowRankMultivariateNormal", network, guide, losses)


if __name__ == "__main__":
    torch.set_num_threads(1)  # more threads are slower for a network this small
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small budget")
    main(n_steps=40 if parser.parse_args().quick else 3000)
