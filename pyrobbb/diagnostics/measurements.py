"""The measurements behind a diagnosis, each with a value and an outcome."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .. import scores
from .._core.arrays import ArrayLike, to_numpy
from ..arviz_io.datatree import SAMPLE_DIMS
from ..engines.base import NonFiniteLossError
from ..fitted import FittedChain, HasChains
from ..last_layers import is_last_layer
from ..prediction import ClassificationPrediction, RegressionPrediction
from . import cures
from .convergence import MIN_GAIN_PER_ROW, ElboGain, elbo_gains, ess, rhat
from .importance import khat_of_chains, loo
from .weights import dead_units
from .wording import LEVEL

if TYPE_CHECKING:
    import pandas as pd
    import xarray

MAX_RHAT = 1.1
MAX_SCALE_CHANGE = 0.06
"""Largest change of the median log scale of the weights that the noise of a converged fit causes:
conjugate regressions with 4 weights reach 0.04."""
NO_MEAN = "The likelihood has no finite mean."


@dataclass(frozen=True)
class Measurement:
    """The result of one check, without its wording.

    Attributes
    ----------
    key, outcome : str
        Keys of `WORDING` and of its outcomes.
    value : str
    reason : str
        Why there is no value, or what failed.
    data : str
        Name of the data.
    cure : mapping of str to object
        Arguments of `fit` to change, with the values to try.
    """

    key: str
    outcome: str
    value: str = "-"
    reason: str = ""
    data: str = ""
    cure: cures.Cure = field(default_factory=dict)


def convergence(
    chains: Sequence[FittedChain], x: ArrayLike, y: ArrayLike, seed: int
) -> Iterator[Measurement]:
    """Measure how much ELBO and scales change if the fit is continued: the largest of a chain."""
    if all(map(is_last_layer, chains)):
        objective = sum(-float(chain.history.nelbo[-1]) for chain in chains) / len(chains)
        yield Measurement("elbo", "closed form", f"{objective:.2f} nats")
        yield Measurement("scales", "closed form", "-")
        return
    try:
        gains = elbo_gains(chains, x, y, seed=seed)
    except (ValueError, NonFiniteLossError) as error:
        outcome = "diverged" if isinstance(error, NonFiniteLossError) else "not measured"
        yield Measurement("elbo", outcome, reason=str(error))
        yield Measurement("scales", "not measured", reason="The fit cannot be continued.")
        return
    worst = max(gains, key=lambda gain: gain.gain)
    value = f"{worst.epochs} more epochs: {worst.gain:+.2f} +- {worst.standard_error:.2g} nats"
    if not math.isfinite(worst.gain):
        outcome = "not finite"
    else:
        outcome = "rising" if worst.matters else "converged"
    cure = cures.more_epochs(chains) if outcome == "rising" else {}
    yield Measurement("elbo", outcome, value, cure=cure)
    yield _scales(chains, gains)


def _scales(chains: Sequence[FittedChain], gains: Sequence[ElboGain]) -> Measurement:
    """Measure how much the scales of the weights change if the fit is continued."""
    changes = [gain.scale_change for gain in gains if gain.scale_change is not None]
    if len(changes) < len(gains):
        reason = "The guide is not a MeanFieldGuide or LowRankGuide."
        return Measurement("scales", "not measured", reason=reason)
    worst = max(changes, key=abs)
    value = f"{gains[0].epochs} more epochs: {math.expm1(worst):+.0%}"
    if abs(worst) <= MAX_SCALE_CHANGE:
        return Measurement("scales", "converged", value)
    cure = cures.more_epochs(chains, cures.LONGER)
    return Measurement("scales", "moving", f"{value}; try {cures.in_words(cure)}", cure=cure)


def skill(tree: xarray.DataTree, cure: cures.Cure) -> Measurement:
    """Compare predictions with the best constant prediction, on the training data."""
    y = tree["observed_data"]["y"].values
    if _lacks_mean(tree):
        return Measurement("skill", "not measured", reason=NO_MEAN)
    if "mean" in tree["posterior"]:
        mean = tree["posterior"]["mean"].mean(SAMPLE_DIMS).values
        explained = 1 - ((y - mean) ** 2).mean() / max(y.var(0).mean(), 1e-300)
        what = "of the variance of y explained"
    else:
        log_likelihood = tree["log_likelihood"]["y"].values.reshape((-1, len(y)))
        nll = -(np.logaddexp.reduce(log_likelihood, 0) - math.log(len(log_likelihood))).mean()
        shares = np.unique(y, return_counts=True)[1] / y.size
        constant = -(shares * np.log(shares)).sum() * y.size / len(y)
        explained = 1 - nll / max(constant, 1e-300)
        what = "of the entropy of y explained"
    value = f"{explained:.0%} {what}"
    if not math.isfinite(explained):
        outcome = "not finite"
    elif explained < 0.05:
        outcome = "collapsed"
    else:
        outcome = "weak" if explained < 0.3 else "learned"
    return Measurement("skill", outcome, value, cure=cure)


def _lacks_mean(tree: xarray.DataTree) -> bool:
    """Return whether the mean of y is not finite though its densities are, as for a Cauchy."""
    means = tree["posterior"].get("mean")
    if means is None or np.isfinite(means.values).all():
        return False
    return bool(np.isfinite(tree["log_likelihood"]["y"].values).all())


def weights_at_prior(by_layer: pd.DataFrame, skill: Measurement, cure: cures.Cure) -> Measurement:
    """Measure the share of weights that have learned nothing, beside what the network has."""
    share = float((by_layer["at_prior"] * by_layer["n"]).sum() / by_layer["n"].sum())
    noisy = float((by_layer["below_1"] * by_layer["n"]).sum() / by_layer["n"].sum())
    if by_layer["at_prior"].isna().any():
        reason = "The prior does not factorise over the weights."
        return Measurement("weights_at_prior", "not measured", reason=reason)
    value = f"{share:.0%}, {noisy:.0%} with more noise than signal"
    return Measurement("weights_at_prior", _outcome_of_idle(share, skill), value, cure=cure)


def idle_units(posterior: HasChains, skill: Measurement, cure: cures.Cure) -> Measurement:
    """Measure the share of hidden units that contribute nothing, beside what the network does."""
    share = dead_units(posterior)
    if share is None:
        reason = "There are no consecutive linear layers."
        return Measurement("dead_units", "not measured", reason=reason)
    outcome = _outcome_of_idle(share, skill)
    return Measurement("dead_units", outcome, f"{share:.0%}", cure=cure)


def _outcome_of_idle(share: float, skill: Measurement) -> str:
    # Many weights that are each dominated by their own noise may still predict well together:
    # a network that has learned has not collapsed, and what it does not need does no harm.
    if share <= 0.5:
        return "few"
    if skill.outcome == "learned":
        return "spare"
    return "collapsed" if share > 0.9 and skill.outcome != "weak" else "most"


def importance(
    chains: Sequence[FittedChain], tree: xarray.DataTree, *, is_deep: bool
) -> Iterator[Measurement]:
    """Measure k-hat of the weights, and the leave-one-out score.

    Parameters
    ----------
    chains : sequence of FittedChain
    tree : DataTree
    is_deep : bool
        Whether the network has several layers. Its exact posterior then has many modes, and every
        k-hat of it is large: that says nothing against this fit.
    """
    if any(chain.settings.is_weighted for chain in chains):
        reason = "The fit had a `sample_weight`, which is not stored."
        yield Measurement("khat", "not measured", reason=reason)
        yield Measurement("loo", "not measured", reason=reason)
        return
    needs_finite = Measurement("loo", "not measured", reason="It needs finite ratios.")
    try:
        fits = khat_of_chains(tree)
    except ValueError as error:
        yield Measurement("khat", "not measured", reason=str(error))
        yield needs_finite
        return
    threshold = fits[0].threshold  # the chains have the same number of draws
    value = ", ".join(f"{fit.khat:.2f}" for fit in fits) + f" (threshold {threshold:.2f})"
    if any(np.isnan(fit.log_weights).any() for fit in fits):
        yield Measurement("khat", "not finite", value)
        yield needs_finite
        return
    worst = max(fit.khat for fit in fits)
    is_far = worst >= threshold
    yield Measurement("khat", ("far, deep" if is_deep else "far") if is_far else "close", value)
    with warnings.catch_warnings():
        # The next measurement reports large k-hats.
        warnings.filterwarnings("ignore", "Estimated shape parameter of Pareto", UserWarning)
        estimate = loo(tree)
    khat = estimate.pareto_k.values
    n_bad = int((khat > threshold).sum())
    value = (
        f"elpd {estimate.elpd:.4g} +- {estimate.se:.2g}; {n_bad} of {khat.size} k-hats too large"
    )
    outcome = "unusable" if is_far and is_deep else "unreliable"
    yield Measurement("loo", outcome if n_bad else "reliable", value)


def restarts(tree: xarray.DataTree) -> Measurement:
    """Compare the predictions of independent fits."""
    if tree["posterior"].sizes["chain"] < 2:
        return Measurement("restarts", "single", cure={"restarts": cures.N_RESTARTS})
    if _lacks_mean(tree):
        return Measurement("restarts", "not measured", reason=NO_MEAN)
    by_name = rhat(tree)
    values = np.concatenate([by_name[v].values.reshape(-1) for v in by_name.data_vars])
    share = float((values > MAX_RHAT).mean())
    sizes = ess(tree)
    least = min(float(sizes[v].min()) for v in sizes.data_vars)
    gain = _gain_of_averaging(tree)
    value = (
        f"R-hat {np.median(values):.2f}, above {MAX_RHAT} at {share:.0%} of rows; "
        f"ESS from {least:.0f}; averaging gains {gain:.2g} nats per row"
    )
    if not np.isfinite(values).all():
        return Measurement("restarts", "not finite", value)
    if share <= 0.1:
        return Measurement("restarts", "agree", value)
    return Measurement("restarts", "differ" if gain > MIN_GAIN_PER_ROW else "close", value)


def _gain_of_averaging(tree: xarray.DataTree) -> float:
    """Return by how much the log density of y rises if the predictions of all fits are averaged.

    That is the mean log predictive density under the mixture of all fits, less its mean under a
    single one, in nats per row: at least 0, and small where fits differ by less than the noise.
    """
    values = tree["log_likelihood"]["y"].values
    by_row = values.reshape(*values.shape[:3], -1).sum(-1)  # of shape (chains, draws, rows)
    of_fits = np.logaddexp.reduce(by_row, 1) - math.log(by_row.shape[1])
    of_mixture = np.logaddexp.reduce(of_fits, 0) - math.log(len(of_fits))
    return float((of_mixture - of_fits.mean(0)).mean())


def prior_scale(tree: xarray.DataTree) -> Iterator[Measurement]:
    """Compare the spread of the prior's outputs with that of y; no measurement for classes."""
    if "mean" not in tree["prior"]:
        return
    if _lacks_mean(tree):
        yield Measurement("prior_scale", "not measured", reason=NO_MEAN)
        return
    y = tree["observed_data"]["y"].values
    mean, what = tree["prior"]["mean"], "y"
    if (mean > 0).all() and (y > 0).all():  # outputs are on the log scale
        mean, y, what = np.log(mean), np.log(y), "log y"
    spread = float(np.median(mean.std(SAMPLE_DIMS).values))
    ratio = spread / max(float(y.std()), 1e-300)
    outcome = "suitable" if 0.1 < ratio < 30 else "unsuitable"
    yield Measurement("prior_scale", outcome, f"{ratio:.2g} times the spread of {what}")


def kl_range(kl_weight: float, searched: tuple[float, float]) -> Measurement:
    """Measure where a chosen KL weight lies in the range of those that were tried."""
    low, high = searched
    outcome, cure = "inside", dict[str, float]()
    if kl_weight >= high:
        outcome = "full" if high >= 1 else "highest"
        cure = {"kl_weight": cures.rounded(min(2 * high, 1.0))}
    elif kl_weight <= low:
        outcome, cure = "lowest", {"kl_weight": cures.rounded(low / 2)}
    value = f"{kl_weight:.3g}, chosen from {low:.3g} to {high:.3g}"
    return Measurement("kl_weight", outcome, value, cure=cure)


def calibration(
    prediction: RegressionPrediction | ClassificationPrediction,
    y: ArrayLike,
    data: str,
    chains: Sequence[FittedChain],
    *,
    is_seen: bool = False,
) -> Measurement:
    """Measure the coverage of intervals, or the calibration error of classes.

    Parameters
    ----------
    prediction, y : as for `diagnose`
    data : str
    chains : sequence of FittedChain
    is_seen : bool
        Whether predictions that were calibrated on other rows are scored on rows of the fit, which
        are predicted better than new ones: their uncertainty is then more than these rows need.
    """
    n = len(to_numpy(y))
    if not isinstance(prediction, RegressionPrediction):
        error = scores.ece(prediction, y)
        is_good = error < max(0.05, 2 / math.sqrt(n))
        value = f"{error:.1%} off on average ({data})"
        if is_good:
            return Measurement("class_calibration", "calibrated", value)
        accuracy = 1 - scores.error_rate(prediction, y)
        if float(to_numpy(prediction.probs).max(-1).mean()) < accuracy:
            return Measurement("class_calibration", "off, seen" if is_seen else "off", value)
        remedy = cures.against_overconfidence(chains)
        return Measurement("class_calibration", "overconfident", value, cure=remedy)
    share = scores.coverage(prediction, y, LEVEL)
    error = math.sqrt(LEVEL * (1 - LEVEL) / n)
    cure: cures.Cure = {}
    if abs(share - LEVEL) < max(3 * error, 0.02):
        outcome = "calibrated"
    elif share < LEVEL:
        outcome, cure = "narrow", cures.against_overconfidence(chains)
    else:
        outcome, cure = ("wide, seen", {}) if is_seen else ("wide", cures.more_epochs(chains))
    return Measurement("intervals", outcome, f"cover {share:.1%} of {n} ({data})", cure=cure)


def predictive_scores(
    prediction: RegressionPrediction | ClassificationPrediction, y: ArrayLike, data: str
) -> Measurement:
    """Compute the scores of predictions."""
    by_name = {"NLL": scores.nll(prediction, y)}
    if isinstance(prediction, RegressionPrediction):
        if np.isfinite(to_numpy(prediction.mean)).all() or not math.isfinite(by_name["NLL"]):
            by_name["RMSE"] = scores.rmse(prediction, y)
        by_name["CRPS"] = scores.crps(prediction, y, from_draws=True)
    else:
        by_name |= {
            "Brier": scores.brier(prediction, y),
            "error": scores.error_rate(prediction, y),
        }
    value = ", ".join(f"{name} {score:.4g}" for name, score in by_name.items())
    outcome = "finite" if all(map(math.isfinite, by_name.values())) else "not finite"
    return Measurement("scores", outcome, value, data=data)
