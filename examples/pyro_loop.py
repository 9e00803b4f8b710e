"""A Pyro user's own loop: stock SVI, Trace_ELBO and Predictive around a BayesianNetwork.

The network is the model, `MeanFieldGuide` a guide; neither needs `pyrobbb.fit`. The last part puts
one of Pyro's autoguides in the guide's place, with correlated weights, which is no cure by itself:
in the gap between the data both guides doubt too little (notebooks/01-bayes-by-backprop.ipynb shows
how much there is to doubt), and far from the data a ReLU network runs straight on.
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
PROBES = {"among the data": -1.5, "in the gap": 0.0, "far off": 4.0}


def make_data():
    """Two clusters of inputs with a gap between them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(N_DATA, 1, generator=generator) - 2.0  # in [-2, -1]
    x[N_DATA // 2 :] += 3.0  # in [1, 2]
    y = torch.sin(2 * x) + NOISE * torch.randn(x.shape, generator=generator)
    return x, y


def fit(network, guide, x, y, n_steps, lr=0.02):
    """Give the loss of each step: the negative ELBO, in nats."""
    optimizer = pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": lr}, "gamma": 0.05 ** (1 / n_steps)}
    )
    svi = SVI(network, guide, optimizer, Trace_ELBO())
    losses = []
    while len(losses) < n_steps:
        for rows in torch.randperm(N_DATA).split(BATCH):
            # n_data: the rows are a batch of so many. Left out, they are taken for all data.
            losses.append(svi.step(x[rows], y[rows], n_data=N_DATA))
            optimizer.step()  # the schedule
    return losses


def row(how, nelbo, means, sds):
    values = "".join(f"   {m:>5.2f} +- {s:.2f} " for m, s in zip(means, sds, strict=True))
    print(f"{how:<30} {nelbo:>7}{values}".rstrip())


def report(how, network, guide, losses, n_draws=500):
    predictive = Predictive(network, guide=guide, num_samples=n_draws, parallel=True)
    with torch.no_grad():
        y = predictive(torch.tensor([*PROBES.values()])[:, None])["y"].squeeze(-1)
    last = losses[-(len(losses) // 10) :]
    row(how, f"{sum(last) / len(last):.1f}", y.mean(0), y.std(0))


def main(n_steps=3000):
    x, y = make_data()
    print(f"{n_steps} steps; nelbo: mean over the last tenth. Then y, mean +- sd over 500 draws.")
    print(f"{'':<30} {'nelbo':>7}" + "".join(f"   {place:<14}" for place in PROBES).rstrip())
    row("the truth", "", [math.sin(2 * x) for x in PROBES.values()], [NOISE] * len(PROBES))

    pyro.set_rng_seed(0)
    network = pyrobbb.BayesianNetwork(
        pyrobbb.mlp(1, [30], 1, seed=0),
        likelihood=pyrobbb.likelihoods.Gaussian(scale=NOISE),
    )
    guide = pyrobbb.MeanFieldGuide(network)
    losses = fit(network, guide, x, y, n_steps)
    report("MeanFieldGuide", network, guide, losses)

    # An autoguide starts at the prior's median, which for weights is 0, where all hidden units are
    # alike: start it at the module's own weights, with small scales.
    weights = {name: parameter.detach() for name, parameter in network.bayesian_parameters()}
    guide = AutoLowRankMultivariateNormal(
        network, init_loc_fn=init_to_value(values=weights), init_scale=0.02, rank=10
    )
    losses = fit(network, guide, x, y, n_steps)
    report("AutoLowRankMultivariateNormal", network, guide, losses)


if __name__ == "__main__":
    torch.set_num_threads(1)  # several threads only slow down a net this small
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small budget")
    main(n_steps=40 if parser.parse_args().quick else 3000)
