"""Diagnose a converged and an unconverged fit, convert them to DataTrees, and use ArviZ."""

import argparse
import warnings

import arviz_stats
import numpy as np
import torch

import pyrobbb


def make_data(n=100):
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (n, 1))
    return x, np.sin(2 * x) + 0.1 * rng.normal(size=x.shape)


def main(epochs, n_draws):
    x, y = make_data()
    trees = {}
    for name, fraction in (("short", 0.02), ("long", 1.0)):
        network = pyrobbb.BayesianNetwork(pyrobbb.mlp(1, [20], 1, "tanh", seed=0))
        posterior = pyrobbb.fit(
            network, x, y, epochs=max(int(fraction * epochs), 2), restarts=2, seed=0, progress=False
        )
        print(f"\n--- {name}: {posterior.chains[0].settings.epochs} epochs, two restarts\n")
        print(posterior.diagnose(x, y, n_draws=n_draws, seed=0))
        trees[name] = posterior.to_arviz(x, y, n_draws=n_draws, seed=0)

    tree = trees["long"]
    print("\n--- groups of the tree:", ", ".join(tree.children))
    summary = arviz_stats.summary(tree, var_names=["noise_scale", "mean"], round_to="none")
    print(summary[["mean", "sd", "ess_bulk", "r_hat"]].iloc[:4].round(3))

    # Unlike arviz_stats.loo, this loo corrects for draws from an approximate posterior.
    warnings.filterwarnings("ignore", "Estimated shape parameter")  # already reported by `diagnose`
    estimates = {name: pyrobbb.diagnostics.loo(tree) for name, tree in trees.items()}
    print("\n--- leave-one-out comparison")
    print(arviz_stats.compare(estimates)[["rank", "elpd", "p"]])


if __name__ == "__main__":
    torch.set_num_threads(1)  # more threads are slower for a network this small
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small budget")
    quick = parser.parse_args().quick
    main(epochs=20 if quick else 10_000, n_draws=100 if quick else 1000)
