"""From a fit to a DataTree: what ArviZ and a diagnosis say of a good fit and of a short one."""

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
    for name, share in (("short", 0.02), ("long", 1.0)):
        network = pyrobbb.BayesianNetwork(pyrobbb.mlp(1, [20], 1, "tanh", seed=0))
        posterior = pyrobbb.fit(
            network, x, y, epochs=max(int(share * epochs), 2), restarts=2, seed=0, progress=False
        )
        print(f"\n--- {name}: {posterior.settings['epochs']} epochs, two restarts\n")
        print(posterior.diagnose(x, y, n_draws=n_draws, seed=0))
        trees[name] = posterior.to_arviz(x, y, n_draws=n_draws, seed=0)

    tree = trees["long"]
    print("\n--- the tree:", ", ".join(tree.children))
    summary = arviz_stats.summary(tree, var_names=["noise_scale", "mean"], round_to="none")
    print(summary[["mean", "sd", "ess_bulk", "r_hat"]].iloc[:4].round(3))

    # Corrected for the approximate posterior: plain arviz_stats.loo takes its draws for exact ones.
    warnings.filterwarnings("ignore", "Estimated shape parameter")  # the diagnosis has said so
    estimates = {name: pyrobbb.diagnostics.loo(own) for name, own in trees.items()}
    print("\n--- leave-one-out comparison")
    print(arviz_stats.compare(estimates)[["rank", "elpd", "p"]])


if __name__ == "__main__":
    torch.set_num_threads(1)  # several threads only slow down a net this small
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small budget")
    quick = parser.parse_args().quick
    main(epochs=20 if quick else 10_000, n_draws=100 if quick else 1000)
