"""The tutorial "Bayes by Backprop from scratch": 2 x 400 units, prior N(0, 1), 10 epochs of MNIST.

    python examples/paper/tutorial.py --full --data FOLDER
    python examples/paper/tutorial.py --quick

Accuracy is that of the network with its weights at the posterior means. The tutorial reports .9775
after ten epochs, and after pruning .9756 (50 % of the weights removed), .9602 (75 %) and .7259
(95 %). It defines two hidden layers, but its loop skips the second one, so these figures are for a
784-400-10 network. This script fits both networks.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from images import load_mnist, load_small
from mnist import error_at_means
from records import append, read

import pyrobbb

RUNS = Path(__file__).with_suffix(".jsonl")
FRACTIONS = (0.5, 0.75, 0.95)
START_SCALE = float(torch.nn.functional.softplus(torch.tensor(-3.0)))


def fit(x, y, x_test, y_test, hidden, epochs, seed):
    """Fit as the tutorial does; return the accuracy of each epoch, and the posterior."""
    network = pyrobbb.BayesianNetwork(
        pyrobbb.mlp(x.shape[1], hidden, int(y.max()) + 1, seed=seed),
        prior=pyrobbb.priors.Normal(1.0),
        likelihood=pyrobbb.likelihoods.Categorical(),
    )
    guide = pyrobbb.MeanFieldGuide(network, init_scale=START_SCALE)
    accuracies = []
    posterior = pyrobbb.fit(
        network,
        x,
        y,
        guide=guide,
        epochs=epochs,
        batch_size=128,
        lr=1e-3,
        schedule="constant",
        kl_warmup=0.0,
        seed=seed,
        callbacks=lambda end: accuracies.append(accuracy(end.posterior(), x_test, y_test)),
        progress=False,
    )
    return accuracies, posterior


def accuracy(posterior, x, y):
    return round(1 - error_at_means(posterior, x, y) / 100, 4)


def one_run(images, hidden, epochs, seed):
    """Fit one network to all training images, prune it, and return the results."""
    start = time.perf_counter()
    x, y, x_test, y_test = images
    accuracies, posterior = fit(x, y, x_test, y_test, hidden, epochs, seed)
    pruned = {f: accuracy(pyrobbb.prune(posterior, f), x_test, y_test) for f in FRACTIONS}
    return {
        "hidden": hidden,
        "epochs": epochs,
        "seed": seed,
        "seconds": round(time.perf_counter() - start),
        "accuracy": accuracies,
        "pruned": {str(fraction): value for fraction, value in pruned.items()},
    }


def show(run):
    units = "-".join(map(str, run["hidden"]))
    print(f"\nhidden units {units}, seed {run['seed']}, {run['seconds']} s")
    print("epoch    " + " ".join(f"{epoch:>6}" for epoch in range(1, run["epochs"] + 1)))
    print("accuracy " + " ".join(f"{value:.4f}" for value in run["accuracy"]))
    for fraction, value in run["pruned"].items():
        print(f"accuracy with {float(fraction):.0%} of the weights removed: {value:.4f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="default: openml.org")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--quick", action="store_true", help="small digits, a small budget")
    what.add_argument("--full", action="store_true", help="a few minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1 if options.quick else options.threads)
    images = load_small() if options.quick else load_mnist(options.data)
    x, y = (
        np.concatenate(pair) for pair in ((images.x, images.x_valid), (images.y, images.y_valid))
    )
    data = (x, y, images.x_test, images.y_test)
    for hidden in ([32], [32, 32]) if options.quick else ([400], [400, 400]):
        if options.quick:
            show(one_run(data, hidden, 10, options.seed))
            continue
        done = read(RUNS, hidden=hidden, seed=options.seed)
        if not done:
            done = [one_run(data, hidden, 10, options.seed)]
            append(RUNS, done[0])
        show(done[0])


if __name__ == "__main__":
    main()
