"""The measurements behind a diagnosis, each with a value and an outcome."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import scores
from .._core.arrays import ArrayLike, to_numpy
from ..arviz_io.datatree import SAMPLE_DIMS
from ..engines.base import NonFiniteLossError
from ..fitted import FittedChain, HasChains
from ..prediction import ClassificationPrediction, RegressionPrediction
from .convergence import elbo_gains, ess, rhat
from .importance import khat_of_chains, loo
from .weights import dead_units
from .wording import LEVEL

if TYPE_CHECKING:
    import pandas as pd
    import xarray

MAX_RHAT = 1.1


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
    """

    key: str
    outcome: str
    value: str = "-"
    reason: str = ""
    data: str = ""


def elbo(chains: Sequence[FittedChain], x: ArrayLike, y: ArrayLike, seed: int) -> Measurement:
    """Measure how much the ELBO rises if the fit is continued: the largest gain of a chain."""
    try:
        gains = elbo_gains(chains, x, y, seed=seed)
    except ValueError as error:
        return Measurement("elbo", "not measured", reason=str(error))
    except NonFiniteLossError as error:
        return Measurement("elbo", "diverged", reason=str(error))
    worst = max(gains, key=lambda gain: gain.gain)
    value = f"{worst.epochs} more epochs: {worst.gain:+.2f} +- {worst.standard_error:.2g} nats"
    if not math.isfinite(worst.gain):
        return Measurement("elbo", "not finite", value)
    return Measurement("elbo", "rising" if worst.matters else "converged", value)


def skill(tree: xarray.DataTree) -> Measurement:
    """Compare predictions with the best constant prediction, on the training data."""
    y = tree["observed_data"]["y"].values
    if "mean" in tree["posterior"]:
        mean = tree["posterior"]["mean"].mean(SAMPLE_DIMS).values
        explained = 1 - ((y - mean) ** 2).mean() / max(y.var(0).mean(), 1e-300)
        what = "variance of y explained"
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
        outcome = "weak" if explained < 0.3 else "learnt"
    return Measurement("skill", outcome, value)


def weights_at_prior(by_layer: pd.DataFrame, has_learnt: bool) -> Measurement:
    """Measure the share of weights that have learnt nothing."""
    share = float((by_layer["at_prior"] * by_layer["n"]).sum() / by_layer["n"].sum())
    noisy = float((by_layer["below_1"] * by_layer["n"]).sum() / by_layer["n"].sum())
    if by_layer["at_prior"].isna().any():
        reason = "The prior does not factorise over the weights."
        return Measurement("weights_at_prior", "not measured", reason=reason)
    value = f"{share:.0%}, {noisy:.0%} with more noise than signal"
    return Measurement("weights_at_prior", _outcome_of_idle(share, has_learnt), value)


def idle_units(posterior: HasChains, has_learnt: bool) -> Measurement:
    """Measure the share of hidden units that contribute nothing."""
    share = dead_units(posterior)
    if share is None:
        reason = "There are no consecutive linear layers."
        return Measurement("dead_units", "not measured", reason=reason)
    return Measurement("dead_units", _outcome_of_idle(share, has_learnt), f"{share:.0%}")


def _outcome_of_idle(share: float, has_learnt: bool) -> str:
    # Many weights that are each dominated by their own noise may still predict well together:
    # a network that has learnt has not collapsed.
    if share > 0.9 and not has_learnt:
        return "collapsed"
    return "most" if share > 0.5 else "few"


def importance(chains: Sequence[FittedChain], tree: xarray.DataTree) -> Iterator[Measurement]:
    """Measure k-hat of the weights, and the leave-one-out score."""
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
    yield Measurement("khat", "close" if worst < threshold else "far", value)
    with warnings.catch_warnings():
        # The next measurement reports large k-hats.
        warnings.filterwarnings("ignore", "Estimated shape parameter of Pareto", UserWarning)
        estimate = loo(tree)
    khat = estimate.pareto_k.values
    n_bad = int((khat > threshold).sum())
    value = (
        f"elpd {estimate.elpd:.4g} +- {estimate.se:.2g}; {n_bad} of {khat.size} k-hats too large"
    )
    yield Measurement("loo", "unreliable" if n_bad else "reliable", value)


def restarts(tree: xarray.DataTree) -> Measurement:
    """Compare the predictions of independent fits."""
    if tree["posterior"].sizes["chain"] < 2:
        return Measurement("restarts", "single")
    by_name = rhat(tree)
    values = np.concatenate([by_name[v].values.reshape(-1) for v in by_name.data_vars])
    share = float((values > MAX_RHAT).mean())
    sizes = ess(tree)
    least = min(float(sizes[v].min()) for v in sizes.data_vars)
    value = (
        f"R-hat {np.median(values):.2f}, above {MAX_RHAT} at {share:.0%} of rows; "
        f"ESS from {least:.0f}"
    )
    if not np.isfinite(values).all():
        return Measurement("restarts", "not finite", value)
    return Measurement("restarts", "differ" if share > 0.1 else "agree", value)


def prior_scale(tree: xarray.DataTree) -> Iterator[Measurement]:
    """Compare the spread of the prior's outputs with that of y; no measurement for classes."""
    if "mean" not in tree["prior"]:
        return
    y = tree["observed_data"]["y"].values
    spread = float(np.median(tree["prior"]["mean"].std(SAMPLE_DIMS).values))
    ratio = spread / max(float(y.std()), 1e-300)
    outcome = "suitable" if 0.1 < ratio < 30 else "unsuitable"
    yield Measurement("prior_scale", outcome, f"{ratio:.2g} times the spread of y")


def calibration(
    prediction: RegressionPrediction | ClassificationPrediction, y: ArrayLike, data: str
) -> Measurement:
    """Measure the coverage of intervals, or the calibration error of classes."""
    n = len(to_numpy(y))
    if not isinstance(prediction, RegressionPrediction):
        error = scores.ece(prediction, y)
        is_good = error < max(0.05, 2 / math.sqrt(n))
        value = f"{error:.1%} off on average ({data})"
        return Measurement("class_calibration", "calibrated" if is_good else "off", value)
    try:
        share = scores.coverage(prediction, y, LEVEL)
    except NotImplementedError as missing:
        return Measurement("intervals", "not measured", reason=str(missing))
    error = math.sqrt(LEVEL * (1 - LEVEL) / n)
    if abs(share - LEVEL) < max(3 * error, 0.02):
        outcome = "calibrated"
    else:
        outcome = "narrow" if share < LEVEL else "wide"
    return Measurement("intervals", outcome, f"cover {share:.1%} of {n} ({data})")


def predictive_scores(
    prediction: RegressionPrediction | ClassificationPrediction, y: ArrayLike, data: str
) -> Measurement:
    """Compute the scores of predictions."""
    by_name = {"NLL": scores.nll(prediction, y)}
    if isinstance(prediction, RegressionPrediction):
        by_name["RMSE"] = scores.rmse(prediction, y)
        with contextlib.suppress(NotImplementedError):  # no quantiles
            by_name["CRPS"] = scores.crps(prediction, y)
    else:
        by_name |= {
            "Brier": scores.brier(prediction, y),
            "error": scores.error_rate(prediction, y),
        }
    value = ", ".join(f"{name} {score:.4g}" for name, score in by_name.items())
    outcome = "finite" if all(map(math.isfinite, by_name.values())) else "not finite"
    return Measurement("scores", outcome, value, data=data)
