"""Pruning by signal-to-noise ratio: table 2 and figure 4 of the paper.

    python examples/paper/pruning.py --full --data FOLDER    # prunes a posterior of mnist.py
    python examples/paper/pruning.py --quick

The weights with the lowest |mean| / scale are set to 0, with scale 0. Two errors are reported: with
all weights at their means, as in the paper, and that of the predictive distribution.
"""

import argparse
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from images import load_mnist, load_small
from mnist import CHOSEN, error_at_means, fit_posterior, means_and_scales, predict, scored
from records import append, read

import pyrobbb
from pyrobbb.posterior.pruning import sparse_weights

RUNS = Path(__file__).with_suffix(".jsonl")
FRACTIONS = (0.0, 0.5, 0.75, 0.9, 0.95, 0.98)
PUBLISHED = {0.0: 1.24, 0.5: 1.24, 0.75: 1.24, 0.95: 1.29, 0.98: 1.39}  # 1200 units


def one_row(posterior, fraction, x, y):
    """Score the posterior after removing a fraction of the weights."""
    pruned = pyrobbb.prune(posterior, fraction)
    weights = sparse_weights(pruned)
    net, x_tensor = pruned.network.net, torch.as_tensor(x)
    dense = {name: value.to_dense() for name, value in weights.items()}
    with torch.no_grad():
        masked = torch.func.functional_call(net, dense, x_tensor)
        sparse = torch.func.functional_call(net, weights, x_tensor)
    score = scored(predict(pruned, x), y)
    return {
        "fraction": fraction,
        "error_at_means": error_at_means(pruned, x, y),
        "error": score["error"],
        "nll": score["nll"],
        "dense_bytes": size_on_disk(dense),
        "sparse_bytes": size_on_disk(weights),
        "largest_gap": float((masked - sparse).abs().max() / masked.abs().max()),
    }


def size_on_disk(tensors):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pt"
        torch.save(tensors, path)
        return path.stat().st_size


def decibels(posterior):
    """Compute 20 log10(|mean| / scale) of every weight."""
    loc, scale = means_and_scales(posterior)
    return 20 * torch.log10(loc.abs() / scale).numpy()


def draw(path, ratios):
    """Draw the density and the cumulative distribution of the ratios, as in figure 4."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    bins = np.linspace(-60, 30, 181)
    density = np.histogram(ratios, bins)[0] / len(ratios) / np.diff(bins)
    middle = (bins[1:] + bins[:-1]) / 2
    axes[0].fill_between(middle, density, color="#9ec5e8", lw=0)
    axes[0].plot(middle, density, color="#1b6ca8", lw=1.4)
    axes[0].set(ylabel="density", ylim=(0, None))
    in_order = np.sort(ratios)
    share = np.arange(1, len(in_order) + 1) / len(in_order)
    axes[1].plot(in_order[::50], share[::50], color="#1b6ca8", lw=1.6)
    axes[1].set(ylabel="share of the weights below", ylim=(0, 1))
    for fraction in (0.75, 0.95):
        at = np.quantile(ratios, fraction)
        axes[0].axvline(at, color="#d1495b", lw=1, ls=(0, (4, 3)))
        axes[0].annotate(
            f"{fraction:.0%}",
            (at, density.max()),
            xytext=(3, 0),
            textcoords="offset points",
            va="top",
            color="#d1495b",
            fontsize=9,
        )
        axes[1].plot([-60, at, at], [fraction, fraction, 0], color="#d1495b", lw=1, ls=(0, (4, 3)))
    for ax in axes:
        ax.set(xlabel="signal-to-noise ratio of a weight (dB)", xlim=(-60, 30))
        ax.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=160)


def show(rows):
    print("removed  error % at means  with draws   NLL     on disk, KiB   published %")
    for row in rows:
        published = PUBLISHED.get(row["fraction"], "")
        kib = f"{row['sparse_bytes'] / 1024:.0f} of {row['dense_bytes'] / 1024:.0f}"
        print(
            f"{row['fraction']:<8.0%} {row['error_at_means']:<16.2f} {row['error']:<12.2f} "
            f"{row['nll']:<7.4f} {kib:<14} {published}"
        )
    gap = max(row["largest_gap"] for row in rows)
    print(f"sparse and masked dense outputs agree within {gap:.1e} of the largest output")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="default: openml.org")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--quick", action="store_true", help="small digits, a small budget")
    what.add_argument("--full", action="store_true", help="a minute, after mnist.py --full")
    parser.add_argument("--posteriors", type=Path, default=Path("paper-posteriors"))
    parser.add_argument("--name", default="mixture-400-0", help="of the posterior")
    options = parser.parse_args()
    if options.quick:
        images = load_small()
        posterior = fit_posterior(images, CHOSEN["mixture"], 32, 30, 0, lambda *_, **__: None)
        show([one_row(posterior, f, images.x_test, images.y_test) for f in FRACTIONS])
        return
    images = load_mnist(options.data)
    posterior = pyrobbb.Posterior.load(options.posteriors / options.name)
    if not read(RUNS, name=options.name):
        for fraction in FRACTIONS:
            row = one_row(posterior, fraction, images.x_test, images.y_test)
            append(RUNS, {"name": options.name, **row})
    show(read(RUNS, name=options.name))
    draw(Path(__file__).with_suffix(".png"), decibels(posterior))


if __name__ == "__main__":
    main()
