"""Regression of a curve observed on part of the axis: figure 5 of the paper.

    python examples/paper/curve.py --full      # writes curve.png
    python examples/paper/curve.py --quick

Fits the same network with Bayes by Backprop and with point estimates. Both fit the data, but only
the first is uncertain away from them.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import pyrobbb

INK, BAND, POINTS, POINT_FIT = "#1f2933", "#9ec5e8", "#8a8f98", "#d1495b"
HIDDEN = [100, 100]


def make_data(n, seed):
    """Draw x on [0, 0.5] and y = x + 0.3 sin(2 pi (x + e)) + 0.3 sin(4 pi (x + e)) + e."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 0.5, (n, 1))
    e = 0.02 * rng.standard_normal((n, 1))
    return x, curve(x + e)


def curve(x):
    return x + 0.3 * np.sin(2 * np.pi * x) + 0.3 * np.sin(4 * np.pi * x)


def fit_posterior(x, y, n_steps):
    network = pyrobbb.BayesianNetwork(
        pyrobbb.mlp(1, HIDDEN, 1, seed=0).double(),
        prior=pyrobbb.priors.FanInNormal(gain=2.0),
        likelihood=pyrobbb.likelihoods.Gaussian(),
    )
    return pyrobbb.fit(network, x, y, epochs=n_steps, batch_size=len(x), seed=0, progress=False)


def fit_point(x, y, n_steps):
    net = pyrobbb.mlp(1, HIDDEN, 1, seed=0).double()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    for _ in range(n_steps):
        optimizer.zero_grad()
        ((net(x) - y) ** 2).mean().backward()
        optimizer.step()
    return net


def main(n_steps, figure=None):
    x, y = make_data(256, seed=0)
    mean, sd = x.mean(), x.std()  # standardise the inputs
    grid = np.linspace(-0.2, 1.2, 281)[:, None]
    posterior = fit_posterior((x - mean) / sd, y, n_steps)
    net = fit_point((x - mean) / sd, y, n_steps)
    prediction = posterior.predict((grid - mean) / sd, n_draws=1000, seed=0)
    low, median, high = (prediction.quantile(q)[:, 0] for q in (0.25, 0.5, 0.75))
    with torch.no_grad():
        point = net(torch.as_tensor((grid - mean) / sd))[:, 0].numpy()

    width = high - low
    widths = {at: width[np.abs(grid[:, 0] - at).argmin()] for at in (-0.2, 0.25, 0.8, 1.2)}
    print("x      interquartile range of the predictive distribution")
    for at, value in widths.items():
        print(f"{at:<6} {value:.3f}{'   (within the data)' if 0 <= at <= 0.5 else ''}")
    inside = ((grid >= 0) & (grid <= 0.5))[:, 0]
    truth = curve(grid[:, 0])
    for name, values in {"median": median, "point estimate": point}.items():
        rmse = np.sqrt(((values - truth)[inside] ** 2).mean())
        print(f"rmse of the {name} with respect to the curve, within the data: {rmse:.3f}")
    if figure is not None:
        draw(figure, x, y, grid[:, 0], (low, median, high), point)


def draw(path, x, y, grid, quartiles, point):
    low, median, high = quartiles
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharex=True, sharey=True, layout="constrained")
    for ax, title in zip(axes, ["Bayes by Backprop", "The same network, no Bayes"], strict=True):
        ax.plot(x, y, ".", color=POINTS, ms=2.5, alpha=0.6)
        ax.plot(grid, curve(grid), color=INK, lw=0.8, ls=(0, (4, 3)))
        ax.set_title(title, loc="left", fontsize=11, color=INK)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set(xlabel="x", xlim=(-0.2, 1.2), ylim=(-1.0, 1.6))
    axes[0].fill_between(grid, low, high, color=BAND, lw=0)
    axes[0].plot(grid, median, color="#1b6ca8", lw=1.6)
    axes[1].plot(grid, point, color=POINT_FIT, lw=1.6)
    axes[0].set_ylabel("y")
    notes = {"median": (0.98, 0.02), "interquartile range": (0.98, 0.10)}
    for text, at in notes.items():
        color = "#1b6ca8" if text == "median" else "#6d9dc8"
        axes[0].annotate(
            text, at, xycoords="axes fraction", ha="right", va="bottom", color=color, fontsize=9
        )
    axes[1].annotate(
        "dashed: true curve",
        (0.98, 0.02),
        xycoords="axes fraction",
        ha="right",
        va="bottom",
        color=INK,
        fontsize=9,
    )
    fig.savefig(path, dpi=160)


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--quick", action="store_true", help="a small budget, no figure")
    what.add_argument("--full", action="store_true", help="about a minute")
    if parser.parse_args().quick:
        main(n_steps=300)
    else:
        main(n_steps=10_000, figure=Path(__file__).with_suffix(".png"))
