"""Pictures of a fit: matplotlib axes in, axes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .._core.arrays import ArrayLike, to_numpy
from ..fitted.history import History
from ..likelihoods import base_of
from ..posterior.posterior import Posterior
from ..prediction.predictions import ClassificationPrediction, RegressionPrediction
from ..scores import coverage_curve, reliability
from .trees import plot_forest, plot_khat, plot_loo_pit, plot_ppc, plot_sbc

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..comparisons.nuts import NUTSComparison

__all__ = [
    "plot_band",
    "plot_coverage",
    "plot_forest",
    "plot_history",
    "plot_intervals",
    "plot_khat",
    "plot_loo_pit",
    "plot_nuts",
    "plot_parts",
    "plot_ppc",
    "plot_reliability",
    "plot_sbc",
    "plot_snr",
    "plot_uncertainty",
    "plot_weights",
]

INK, ACCENT, SECOND, SOFT = "#333333", "#2a6f97", "#c8553d", "#a9c6d9"
"""Text and data; what the posterior says; what it is compared with; bands."""


MOST_POINTS = 200
"""Of a line that shows the course of a fit."""


def plot_band(
    x: ArrayLike,
    prediction: RegressionPrediction,
    *,
    data: tuple[ArrayLike, ArrayLike] | None = None,
    ax: Axes | None = None,
    level: float = 0.9,
) -> Axes:
    """Draw the predictive mean over a single input, with its interval and the part that is doubt.

    Parameters
    ----------
    x : array-like of shape (n,) or (n, 1)
        The inputs that were predicted.
    prediction : RegressionPrediction
        Of one output.
    data : tuple (x, y), optional
        Observations to draw on top.
    ax : Axes, optional
        None: a new figure's.
    level : float
        Probability of the interval.
    """
    ax = _axes(ax)
    if data is not None:
        ax.plot(_flat(data[0]), _flat(data[1]), ".", ms=4, color=INK, zorder=3, label="observed")
    order = np.argsort(_flat(x))
    at = _flat(x)[order]
    mean, doubt = _flat(prediction.mean)[order], _flat(prediction.epistemic_sd)[order]
    lower, upper = (_flat(bound)[order] for bound in prediction.interval(level))
    z = _normal_quantile((1 + level) / 2)
    ax.fill_between(at, lower, upper, color=SOFT, alpha=0.5, lw=0, label=f"{level:.0%} interval")
    ax.fill_between(
        at, mean - z * doubt, mean + z * doubt, color=ACCENT, alpha=0.35, lw=0, label="of it, doubt"
    )
    ax.plot(at, mean, color=ACCENT, lw=2, label="mean")
    return ax


def plot_parts(x: ArrayLike, prediction: RegressionPrediction, *, ax: Axes | None = None) -> Axes:
    """Draw the two parts of the predictive standard deviation over a single input.

    Parameters
    ----------
    x : array-like of shape (n,) or (n, 1)
    prediction : RegressionPrediction
        Of one output.
    ax : Axes, optional
        None: a new figure's.
    """
    ax = _axes(ax)
    order = np.argsort(_flat(x))
    at = _flat(x)[order]
    for values, color, width, label in (
        (prediction.sd, INK, 2.0, "predictive sd"),
        (prediction.epistemic_sd, ACCENT, 1.5, "doubt (epistemic)"),
        (prediction.aleatoric_sd, SECOND, 1.5, "noise (aleatoric)"),
    ):
        ax.plot(at, _flat(values)[order], color=color, lw=width, label=label)
    ax.set(ylabel="standard deviation, units of y", ylim=(0, None))
    ax.legend(frameon=False, fontsize="small")
    return ax


def plot_intervals(
    prediction: RegressionPrediction, y: ArrayLike, *, ax: Axes | None = None, level: float = 0.9
) -> Axes:
    """Draw each observation with its predictive interval, in the order of the predicted means.

    Observations outside of their interval stand out.
    """
    ax = _axes(ax)
    y, mean = _flat(y), _flat(prediction.mean)
    order = np.argsort(mean)
    lower, upper = (_flat(bound)[order] for bound in prediction.interval(level))
    y, mean, rank = y[order], mean[order], np.arange(len(y))
    outside = (y < lower) | (y > upper)
    ax.vlines(rank, lower, upper, color=SOFT, lw=2, label=f"{level:.0%} interval")
    ax.plot(rank, mean, color=ACCENT, lw=1.5, label="mean")
    ax.plot(rank[~outside], y[~outside], "o", ms=3.5, color=INK, label="observed")
    share = outside.mean()
    ax.plot(rank[outside], y[outside], "o", ms=4.5, color=SECOND, label=f"outside ({share:.0%})")
    ax.set(xlabel="test rows, by predicted mean", xlim=(-1, len(y)))
    ax.legend(frameon=False, fontsize="small")
    return ax


def plot_history(history: History, *, ax: Axes | None = None) -> Axes:
    """Draw the negative ELBO and its two parts, epoch by epoch.

    Of a long fit, the points are means over stretches of epochs: single ones would be a smear.
    """
    ax = _axes(ax)
    epochs = history.per_epoch()
    stretches = np.array_split(epochs.epoch + 1, min(len(epochs.epoch), MOST_POINTS))
    cuts = np.cumsum([len(stretch) for stretch in stretches])[:-1]
    for values, color, label in (
        (epochs.nelbo, INK, "negative ELBO"),
        (epochs.nll, SECOND, "negative log-likelihood"),
        (epochs.kl, ACCENT, "KL from the prior"),
    ):
        means = [stretch.mean() for stretch in np.split(values, cuts)]
        ax.plot([s.mean() for s in stretches], means, color=color, lw=1.5, label=label)
    ax.set(xlabel="epoch", ylabel="nats", yscale="symlog", xlim=(1, max(history.n_epochs, 2)))
    ax.legend(frameon=False, fontsize="small")
    return ax


def plot_coverage(
    prediction: RegressionPrediction,
    y: ArrayLike,
    *,
    ax: Axes | None = None,
    label: str = "",
    color: str = ACCENT,
) -> Axes:
    """Draw how many observations the central intervals hold, against how many they should."""
    ax = _axes(ax)
    levels = np.linspace(0.05, 0.95, 19)
    _diagonal(ax)
    inside = coverage_curve(prediction, y, levels)
    ax.plot(levels, inside, "o-", ms=3.5, lw=1.5, color=color, label=label)
    ax.set(xlabel="probability of the interval", ylabel="share of observations inside")
    return ax


def plot_reliability(
    prediction: ClassificationPrediction,
    y: ArrayLike,
    *,
    ax: Axes | None = None,
    label: str = "",
    color: str = ACCENT,
    n_bins: int = 10,
) -> Axes:
    """Draw how often the most probable class is right, against how probable it was."""
    ax = _axes(ax)
    confidence, gap, share = reliability(prediction, y, n_bins)
    _diagonal(ax)
    ax.plot(confidence, confidence + gap, "-", lw=1.2, color=color, label=label)
    sizes = 12 + 150 * share
    ax.scatter(
        confidence, confidence + gap, s=sizes, color=color, alpha=0.7, lw=0, clip_on=False, zorder=3
    )
    ax.set(xlabel="probability of the predicted class", ylabel="share that is right")
    return ax


def plot_uncertainty(
    prediction: ClassificationPrediction, y: ArrayLike, *, ax: Axes | None = None
) -> Axes:
    """Draw histograms of the predictive entropy, for right and for wrong predictions."""
    ax = _axes(ax)
    entropy, wrong = _flat(prediction.entropy), _flat(prediction.label) != _flat(y)
    bins = np.linspace(0, max(float(entropy.max()), 1e-3), 31).tolist()
    for rows, color, label in ((~wrong, ACCENT, "right"), (wrong, SECOND, "wrong")):
        if rows.any():
            ax.hist(entropy[rows], bins, density=True, color=color, alpha=0.6, label=label)
    ax.set(xlabel="entropy of the predictive distribution (nats)", ylabel="density")
    ax.legend(frameon=False, fontsize="small")
    return ax


def plot_snr(posterior: Posterior, *, ax: Axes | None = None, n_draws: int = 200) -> Axes:
    """Draw a histogram of the weights' signal-to-noise ratio, |mean| / sd, in decibels.

    Pruned weights, which have neither signal nor noise, are left out.

    References
    ----------
    Blundell et al. (2015), figure 4.
    """
    ax = _axes(ax)
    draws = posterior.draws(n_draws, seed=0)
    weights = [
        draws[name].flatten(1) for name, _ in posterior.chains[0].network.bayesian_parameters()
    ]
    flat = torch.cat(weights, 1)
    flat = flat[:, (flat != 0).any(0)]
    if not flat.shape[1]:
        raise ValueError("`posterior` has no weights left to draw: all are pruned.")
    ratios = (flat.mean(0).abs() / flat.std(0)).cpu().numpy()
    decibels = 20 * np.log10(np.maximum(ratios, 1e-3))
    bins = min(60, max(10, len(decibels) // 4))
    counts, *_ = ax.hist(decibels, bins=bins, color=ACCENT, alpha=0.85)
    ax.axvline(0, color=SECOND, lw=1.2)
    ax.set_ylim(0, 1.25 * float(np.max(counts)))  # room for the words above the bars
    share = (decibels < 0).mean()
    ax.annotate(
        f"{share:.0%} of {len(decibels):,} weights:\nmore noise than signal",
        (0, 0.98),
        xycoords=("data", "axes fraction"),
        xytext=(-6, 0),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize="small",
        color=SECOND,
    )
    ax.set(xlabel="signal-to-noise ratio of a weight (dB)", ylabel="weights")
    return ax


def plot_weights(posterior: Posterior, name: str, *, ax: Axes | None = None) -> Axes:
    """Draw the posteriors of the weights of one parameter, all together, against their prior.

    Parameters
    ----------
    posterior : Posterior
    name : str
        Of a Bayesian parameter, such as ``"0.weight"``.
    ax : Axes, optional
        None: a new figure's.
    """
    parameters = dict(posterior.chains[0].network.bayesian_parameters())
    if name not in parameters:
        raise ValueError(f"`name` must be one of {', '.join(parameters)}, got {name!r}.")
    ax = _axes(ax)
    draws = posterior.draws(100, seed=0)[name].reshape((100, -1))
    means = draws.mean(0)
    values = _flat(draws)
    prior = base_of(posterior.chains[0].network.prior(name, parameters[name]))
    spread = 1.2 * float(np.abs(np.quantile(values, [0.001, 0.999])).max())
    bins = np.linspace(-spread, spread, 81)
    ax.hist(values, bins.tolist(), density=True, color=SOFT, label="posterior draws")
    ax.hist(
        _flat(means),
        bins.tolist(),
        density=True,
        histtype="step",
        color=ACCENT,
        lw=1.5,
        label="posterior means",
    )
    at = torch.linspace(-spread, spread, 401)
    densities = [
        prior.log_prob(v.expand(prior.batch_shape)).exp().double().mean() for v in at.to(draws)
    ]
    ax.plot(at, densities, color=SECOND, lw=1.5, label="prior")
    ax.set(xlabel=f"weights of {name}", ylabel="density", xlim=(-spread, spread))
    ax.legend(frameon=False, fontsize="small")
    return ax


def plot_nuts(comparison: NUTSComparison, *, ax: Axes | None = None, level: float = 0.9) -> Axes:
    """Draw the predictions of a variational posterior and of NUTS.

    Over a single input, mean and interval of both; else the doubt about the mean of one against
    that of the other; for classes, their probabilities.
    """
    ax = _axes(ax)
    if not isinstance(comparison.nuts, RegressionPrediction):
        columns = comparison.by_input
        _diagonal(ax)
        ax.plot(columns["nuts_probability"], columns["probability"], ".", color=ACCENT, ms=4)
        ax.set(xlabel="probability by NUTS", ylabel="probability by Bayes by Backprop")
        return ax
    x = to_numpy(comparison.x)
    if x.size != len(x):
        columns = comparison.by_input
        largest = float(columns[["epistemic_sd", "nuts_epistemic_sd"]].to_numpy().max())
        ax.plot([0, largest], [0, largest], color=INK, lw=0.8, ls=":")
        ax.plot(columns["nuts_epistemic_sd"], columns["epistemic_sd"], ".", color=ACCENT, ms=4)
        ax.set(xlabel="epistemic sd by NUTS", ylabel="epistemic sd by Bayes by Backprop")
        return ax
    order = np.argsort(_flat(x))
    at = _flat(x)[order]
    for prediction, color, label in (
        (comparison.nuts, INK, "NUTS"),
        (comparison.variational, ACCENT, "Bayes by Backprop"),
    ):
        lower, upper = (_flat(bound)[order] for bound in prediction.interval(level))
        ax.fill_between(at, lower, upper, color=color, alpha=0.15, lw=0)
        for bound in (lower, upper):
            ax.plot(at, bound, color=color, lw=1, ls="--")
        ax.plot(at, _flat(prediction.mean)[order], color=color, lw=2, label=label)
    ax.set(xlabel="x", ylabel=f"y: mean and {level:.0%} interval")
    ax.legend(frameon=False, fontsize="small")
    return ax


def _axes(ax: Axes | None) -> Axes:
    if ax is None:
        from matplotlib.figure import Figure  # no pyplot: figures here leave no global state

        ax = Figure(figsize=(5, 3.6), layout="constrained").subplots()
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _diagonal(ax: Axes) -> None:
    if not ax.lines:
        ax.plot([0, 1], [0, 1], color=INK, lw=0.8, ls=":", label="calibrated")
    ax.set(xlim=(0, 1), ylim=(0, 1.02))


def _flat(values: ArrayLike) -> Any:
    return to_numpy(values).reshape(-1)


def _normal_quantile(q: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(q)
