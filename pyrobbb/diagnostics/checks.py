"""Did the approximation work? One table with a verdict a line, and the measurements behind it."""

from __future__ import annotations

import contextlib
import copy
import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from .. import scores
from .._core.arrays import ArrayLike, check_count, to_numpy
from .._core.random_state import as_seed
from ..arviz_io.datatree import SAMPLE_DIMS
from ..arviz_io.to_arviz import to_arviz
from ..engines.base import NonFiniteLossError
from ..fitted import FittedChain, HasChains
from ..fitted.draws import draws_of, predict_from
from ..likelihoods import base_of
from ..model.guides import MeanFieldGuide
from ..prediction import ClassificationPrediction, RegressionPrediction
from ..training import FitConfig, fit_chains
from .importance import khat_of_chains, khat_threshold, log_ratios, loo

if TYPE_CHECKING:
    import pandas as pd
    import xarray

__all__ = [
    "Check",
    "Diagnosis",
    "ElboGain",
    "dead_units",
    "diagnose",
    "elbo_gain",
    "ess",
    "khat_of_chains",
    "khat_threshold",
    "layers",
    "loo",
    "rhat",
]

Verdict = Literal["good", "doubtful", "bad", "not measured", "told"]

NATS_A_ROW = 0.05
"""A gain in the ELBO below this changes no prediction to speak of."""
LEAST_STEPS = 1000
"""A fifth of a very short fit is too short to show what is missing."""
AT_PRIOR = 0.05
"""KL divergence from the prior, in nats, below which a weight has learnt nothing."""
N_NODES = 64
"""Of the Gauss-Hermite rule that takes a weight's KL divergence from its prior."""
RHAT = 1.1
LEVEL = 0.9


@dataclass(frozen=True)
class Check:
    """One line of a diagnosis.

    Attributes
    ----------
    name, value : str
        What was measured.
    verdict : {"good", "doubtful", "bad", "not measured", "told"}
        The last where a number is neither good nor bad in itself.
    meaning, advice : str
        What that says, and what to do.
    """

    name: str
    value: str
    verdict: Verdict
    meaning: str
    advice: str = ""


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What `diagnose` found.

    Attributes
    ----------
    checks : tuple of Check
    layers : DataFrame
        See `layers`.
    tree : DataTree
        The draws that were looked at, for ArviZ: outputs and latents of the likelihood.
    """

    checks: tuple[Check, ...]
    layers: pd.DataFrame
    tree: xarray.DataTree

    @property
    def table(self) -> pd.DataFrame:
        """One row a check."""
        import pandas as pd

        rows = [[c.value, c.verdict, c.meaning, c.advice] for c in self.checks]
        columns = ["value", "verdict", "meaning", "advice"]
        return pd.DataFrame(rows, index=[c.name for c in self.checks], columns=columns)

    @property
    def ok(self) -> bool:
        """Whether no check came out bad; what was not measured may still be."""
        return all(check.verdict != "bad" for check in self.checks)

    def __getitem__(self, name: str) -> Check:
        return {check.name: check for check in self.checks}[name]

    def __str__(self) -> str:
        width = max(len(check.name) for check in self.checks)
        value = max(len(check.value) for check in self.checks)
        lines = []
        for check in self.checks:
            lines.append(f"{check.name:<{width}}  {check.value:<{value}}  {check.verdict.upper()}")
            words = f"{check.meaning} {check.advice}".strip()
            lines += textwrap.wrap(words, 92, initial_indent="    ", subsequent_indent="    ")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        import pandas as pd

        with pd.option_context("display.max_colwidth", None):
            return self.table.to_html()


def diagnose(
    posterior: HasChains,
    x: ArrayLike,
    y: ArrayLike,
    *,
    test: tuple[ArrayLike, ArrayLike] | None = None,
    n_draws: int = 1000,
    seed: int | None = None,
) -> Diagnosis:
    """Say, line by line, whether a posterior can be relied on.

    Parameters
    ----------
    posterior : Posterior
    x, y : array-like of shape (n, ...)
        All the data that it was fitted to.
    test : tuple (x, y), optional
        Data that it has not seen, for scores and calibration. None: these are taken of the data of
        the fit, and flatter.
    n_draws : int
        Draws from each chain, at least 100.
    seed : int, optional
        Makes the diagnosis repeatable.

    Returns
    -------
    Diagnosis
        Printed, it is a table. No line says more than what was measured: a single fit, for
        instance, says nothing on whether another would agree. To see whether the ELBO still rises,
        a copy is fitted for a fifth of the epochs more, and at least 1000 steps. After a fit with
        a `sample_weight`, which is not known here, what needs the objective is not measured.

    References
    ----------
    Yao, Vehtari, Simpson and Gelman (2018), "Yes, but did it work? Evaluating variational
    inference".
    """
    check_count("n_draws", n_draws, least=100)
    seed = as_seed(seed)
    latents = list(posterior.chains[0].network.latents_of(draws_of(posterior.chains, 1, seed)))
    tree = to_arviz(posterior, x, y, sites=latents, n_draws=n_draws, seed=seed)
    by_layer = layers(posterior)
    x_scored, y_scored = (x, y) if test is None else test
    prediction = predict_from(posterior.chains, x_scored, n_draws, seed)
    where = "data of the fit" if test is None else "test data"
    skill = _check_skill(tree)
    has_learnt = skill.verdict != "bad"
    checks = [
        _check_elbo(posterior, x, y, seed),
        skill,
        _check_layers(by_layer, has_learnt),
        _check_units(posterior, has_learnt),
        *_check_importance(posterior, tree),
        _check_restarts(tree),
        _check_prior(tree),
        *_check_calibration(prediction, y_scored, where),
        _check_scores(prediction, y_scored, where),
    ]
    return Diagnosis(tuple(check for check in checks if check is not None), by_layer, tree)


@dataclass(frozen=True)
class ElboGain:
    """By how much the ELBO rises if a fit goes on.

    Attributes
    ----------
    gain, standard_error : float
        In nats; the error is that of the draws by which the ELBO is estimated.
    n_rows : int
        Of the data.
    epochs : int
        For how many more.
    """

    gain: float
    standard_error: float
    n_rows: int
    epochs: int

    @property
    def matters(self) -> bool:
        """Whether it is beyond its error, and more than 0.05 nats a row."""
        return self.gain > max(3 * self.standard_error, NATS_A_ROW * self.n_rows)


def elbo_gain(
    posterior: HasChains,
    x: ArrayLike,
    y: ArrayLike,
    *,
    share: float = 0.2,
    n_draws: int = 1000,
    seed: int | None = None,
) -> ElboGain:
    """Go on with a fit, and see by how much the ELBO rises.

    How a fit's own losses go tells little of this: they settle because the learning rate falls. The
    posterior given stays as it is.

    Parameters
    ----------
    posterior : Posterior
        Of a single fit.
    x, y : array-like of shape (n, ...)
        The data that it was fitted to.
    share : float
        For how much longer, as a part of the epochs of the fit, and at least 1000 steps; from half
        its learning rate down.
    n_draws : int
        By which both ELBOs are estimated, from the same noise.
    seed : int, optional
        Makes it repeatable.

    Raises
    ------
    ValueError
        If it is not known how the posterior was fitted, or it was with a `sample_weight`.
    """
    return _elbo_gains(posterior.chains, x, y, share=share, n_draws=n_draws, seed=seed)[0]


def _elbo_gains(
    chains: Sequence[FittedChain],
    x: ArrayLike,
    y: ArrayLike,
    *,
    share: float = 0.2,
    n_draws: int = 1000,
    seed: int | None = None,
) -> list[ElboGain]:
    """Give the `elbo_gain` of each chain; they go on side by side."""
    settings, guide = chains[0].settings, chains[0].guide
    kl_weight = settings.get("kl_weight")
    known = kl_weight in ("uniform", "blundell") or isinstance(kl_weight, float)
    if not known or not isinstance(guide, nn.Module) or not len(chains[0].history.nelbo):
        raise ValueError(
            "`posterior` must come from `fit` with a KL weight that is no callable: otherwise it "
            "is not known what to go on with."
        )
    if settings.get("is_weighted"):
        raise ValueError("`posterior` was fitted with a `sample_weight`, which is not known here.")
    seed = as_seed(seed)
    history = chains[0].history
    least = LEAST_STEPS * history.n_epochs / len(history.nelbo)
    epochs = math.ceil(max(share * history.n_epochs, least))
    if isinstance(guide, MeanFieldGuide):
        where_it_is: dict[str, Any] = {"start": tuple(chains)}
    else:
        where_it_is = {"guide": copy.deepcopy(guide)}
    config = FitConfig(
        chains[0].network,
        x,
        y,
        **where_it_is,
        epochs=epochs,
        batch_size=settings["batch_size"],
        lr=0.5 * settings["lr"],
        schedule="cosine",
        objective="mean_field" if settings["objective"] == "mean_field" else "trace",
        n_particles=settings["n_particles"],
        kl_weight="uniform" if kl_weight is None else kl_weight,
        kl_warmup=0.0,
        seed=seed,
        progress=False,
    )
    longer = fit_chains(config)

    def elbos(own: FittedChain) -> Tensor:
        factor = kl_weight if isinstance(kl_weight, float) else 1.0
        return log_ratios((own,), x, y, n_draws=n_draws, seed=seed, kl_weight=factor)

    found = []
    for before, after in zip(chains, longer, strict=True):
        gains = elbos(after) - elbos(before)
        error = float(gains.std() / math.sqrt(n_draws))
        found.append(ElboGain(float(gains.mean()), error, len(to_numpy(x)), epochs))
    return found


def layers(posterior: HasChains) -> pd.DataFrame:
    """Tell, for each Bayesian parameter, how much it has learnt.

    Returns
    -------
    DataFrame
        One row a parameter, over all chains: ``n``; ``snr``, the median of ``|mean| / sd``;
        ``below_1``, the share of weights with more noise than signal; ``kl``, the mean KL
        divergence from the prior, nats a weight; ``at_prior``, the share of weights whose KL
        divergence is below 0.05 nats. The last two are NaN for priors that are no product over
        weights. A pruned weight has an snr of 0 and an infinite KL divergence.
    """
    import pandas as pd

    rows = {}
    fits = posterior.chains
    moments = [_moments(own) for own in fits]
    for name, parameter in posterior.chains[0].network.bayesian_parameters():
        loc = torch.stack([own[name][0] for own in moments])
        scale = torch.stack([own[name][1] for own in moments])
        snr = torch.where(scale == 0, 0.0, loc.abs() / scale)
        kl = _kl_of_weights(posterior.chains[0].network.prior(name, parameter), loc, scale)
        rows[name] = {
            "n": parameter.numel(),
            "snr": float(snr.median()),
            "below_1": float((snr < 1).double().mean()),
            "kl": float(kl.mean()),
            "at_prior": float((kl < AT_PRIOR).double().mean()) if not kl.isnan().any() else np.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def dead_units(posterior: HasChains) -> float | None:
    """Give the share of hidden units of which no outgoing weight has more signal than noise.

    Of linear layers that follow one another, over all chains; None if there are none.
    """
    linears = [
        (name, module)
        for name, module in posterior.chains[0].network.net.named_modules()
        if isinstance(module, nn.Linear)
    ]
    dead: list[Tensor] = []
    for own in posterior.chains:
        moments = _moments(own)
        for (_, layer), (name, following) in pairwise(linears):
            outgoing = moments.get(f"{name}.weight")
            if outgoing is not None and layer.out_features == following.in_features:
                dead.append(~((outgoing[0].abs() / outgoing[1] > 1).any(0)))
    return float(torch.cat(dead).double().mean()) if dead else None


def rhat(tree: xarray.DataTree, var_names: list[str] | None = None) -> xarray.Dataset:
    """Compare independent fits: rank-normalised split R-hat of functions of the weights.

    Weights themselves may be permuted between units from fit to fit, and say nothing.

    Parameters
    ----------
    tree : DataTree
        Of a posterior with restarts: one chain a fit.
    var_names : list of str, optional
        Of the group ``posterior``. None: ``mean`` or ``probs``.

    Raises
    ------
    ValueError
        For a single fit: the halves of its independent draws always agree.
    """
    import arviz_stats

    return arviz_stats.rhat(_functions(tree, var_names))


def ess(tree: xarray.DataTree, var_names: list[str] | None = None) -> xarray.Dataset:
    """Count the draws that those of all restarts are worth: the bulk effective sample size.

    The draws of a fit are independent, so it falls short of their number by as much as fits differ.

    Parameters
    ----------
    tree, var_names
        As for `rhat`.

    Raises
    ------
    ValueError
        For a single fit.
    """
    import arviz_stats

    return arviz_stats.ess(_functions(tree, var_names))


def _functions(tree: xarray.DataTree, var_names: list[str] | None) -> xarray.Dataset:
    """Give functions of the weights over independent fits."""
    group = tree["posterior"]
    if group.sizes["chain"] < 2:
        raise ValueError(
            "`tree` has a single chain: R-hat and ESS say something on independent fits only, "
            "fit(..., restarts=4)."
        )
    names = var_names or [name for name in ("mean", "probs") if name in group]
    return group.to_dataset()[names]


def _moments(chain: FittedChain) -> dict[str, tuple[Tensor, Tensor]]:
    """Give mean and standard deviation of each weight, in float64."""
    guide = chain.guide
    if isinstance(guide, MeanFieldGuide):
        loc, scale = guide.split(guide.loc.detach()), guide.split(guide.scale.detach())
        return {name: (loc[name].double(), scale[name].double()) for name in loc}
    draws = draws_of((chain,), 500, seed=0)
    return {name: (d.double().mean(0), d.double().std(0)) for name, d in draws.items()}


def _kl_of_weights(prior: Any, loc: Tensor, scale: Tensor) -> Tensor:
    """Give KL(N(loc, scale) || prior) of each weight, by quadrature."""
    base = base_of(prior)
    if base.event_shape:
        return torch.full_like(loc, math.nan)
    nodes, weights = np.polynomial.hermite_e.hermegauss(N_NODES)
    log_p = torch.zeros_like(loc)
    for node, weight in zip(nodes, weights / math.sqrt(2 * math.pi), strict=True):
        log_p += weight * base.log_prob(loc + node * scale)
    return -0.5 * math.log(2 * math.pi * math.e) - scale.log() - log_p


def _check_elbo(posterior: HasChains, x: ArrayLike, y: ArrayLike, seed: int) -> Check:
    name = "ELBO"
    try:
        if isinstance(posterior.chains[0].guide, MeanFieldGuide):
            gains = _elbo_gains(posterior.chains, x, y, seed=seed)
        else:
            gains = [_elbo_gains((own,), x, y, seed=seed)[0] for own in posterior.chains]
    except ValueError as error:
        return Check(name, "-", "not measured", str(error))
    except NonFiniteLossError as error:
        return Check(name, "-", "bad", f"The fit cannot go on: {error}")
    worst = max(gains, key=lambda own: own.gain)
    value = f"{worst.epochs} more epochs: {worst.gain:+.2f} +- {worst.standard_error:.2g} nats"
    if not math.isfinite(worst.gain):
        return Check(name, value, "bad", "The ELBO is not finite.", "Lower the learning rate.")
    if worst.matters:
        meaning = "Not converged: more epochs still raise the ELBO."
        return Check(name, value, "bad", meaning, "Fit longer: more epochs.")
    meaning = "So many more do not raise it by what matters; more than that was not tried."
    return Check(name, value, "good", meaning)


def _check_skill(tree: xarray.DataTree) -> Check:
    """Compare predictions with the best constant one, on the data of the fit."""
    name, y = "fit against a constant", tree["observed_data"]["y"].values
    if "mean" in tree["posterior"]:
        mean = tree["posterior"]["mean"].mean(SAMPLE_DIMS).values
        skill = 1 - ((y - mean) ** 2).mean() / max(y.var(0).mean(), 1e-300)
        what = "variance of y explained"
    else:
        log_likelihood = tree["log_likelihood"]["y"].values.reshape((-1, len(y)))
        nll = -(np.logaddexp.reduce(log_likelihood, 0) - math.log(len(log_likelihood))).mean()
        shares = np.unique(y, return_counts=True)[1] / y.size
        constant = -(shares * np.log(shares)).sum() * y.size / len(y)
        skill = 1 - nll / max(constant, 1e-300)
        what = "of the entropy of y explained"
    value = f"{skill:.0%} {what}"
    if not math.isfinite(skill):
        return Check(name, value, "bad", "Predictions are not finite.", "Lower the learning rate.")
    if skill < 0.05:
        meaning = "Collapsed, or hardly fitted: predictions are no better than a constant."
        advice = "If y can be predicted, use a narrower net, a wider prior, or a longer kl_warmup."
        return Check(name, value, "bad", meaning, advice)
    if skill < 0.3:
        meaning = "The inputs explain little: noisy data, or a posterior near its collapse."
        return Check(name, value, "doubtful", meaning, "Compare with a net without priors.")
    return Check(name, value, "good", "The network has learnt from its inputs.")


def _check_layers(by_layer: pd.DataFrame, has_learnt: bool) -> Check:
    name = "weights at the prior"
    share = float((by_layer["at_prior"] * by_layer["n"]).sum() / by_layer["n"].sum())
    noisy = float((by_layer["below_1"] * by_layer["n"]).sum() / by_layer["n"].sum())
    if by_layer["at_prior"].isna().any():
        meaning = "The prior is no product over weights."
        return Check(name, "-", "not measured", meaning)
    return _check_idle(
        name,
        f"{share:.0%}, {noisy:.0%} with more noise than signal",
        share,
        has_learnt,
        nearly_all="nearly all weights have learnt nothing.",
        most="Most weights have learnt nothing: the net is wider than the data can fill.",
        few="Most weights have left their prior.",
    )


def _check_units(posterior: HasChains, has_learnt: bool) -> Check:
    name, share = "dead hidden units", dead_units(posterior)
    if share is None:
        return Check(name, "-", "not measured", "There are no linear layers in a row.")
    return _check_idle(
        name,
        f"{share:.0%}",
        share,
        has_learnt,
        nearly_all="nearly no unit has an outgoing weight with more signal than noise.",
        most="Most units have been silenced: the net is wider than the data can fill.",
        few="Most units pass something on.",
    )


def _check_idle(
    name: str,
    value: str,
    share: float,
    has_learnt: bool,
    *,
    nearly_all: str,
    most: str,
    few: str,
) -> Check:
    """Judge the share of weights or units that do nothing, each by itself.

    Many that are lost in their own noise may predict together: with a fit that does, it is no
    collapse.
    """
    if share > 0.9 and not has_learnt:
        advice = "Use a narrower net or a longer kl_warmup."
        return Check(name, value, "bad", f"Collapsed: {nearly_all}", advice)
    if share > 0.5:
        return Check(name, value, "doubtful", most, "A narrower net may do; see `layers`.")
    return Check(name, value, "good", few)


def _check_importance(posterior: HasChains, tree: xarray.DataTree) -> Iterator[Check]:
    name = "k-hat of the weights"
    if posterior.chains[0].settings.get("is_weighted"):
        reason = "The fit had a `sample_weight`, which is not known here."
        yield Check(name, "-", "not measured", reason)
        yield Check("PSIS-LOO", "-", "not measured", reason)
        return
    try:
        fits = khat_of_chains(tree)
    except ValueError as error:
        yield Check(name, "-", "not measured", str(error))
        yield Check("PSIS-LOO", "-", "not measured", "It needs finite ratios.")
        return
    worst = max(fit.khat for fit in fits)
    threshold = fits[0].threshold
    value = ", ".join(f"{fit.khat:.2f}" for fit in fits) + f" (bound {threshold:.2f})"
    if np.isnan(fits[0].log_weights).any():
        meaning = "Some densities are NaN or infinite: these draws cannot be weighed."
        yield Check(name, value, "bad", meaning, "Look at the prior and the scale of the data.")
        yield Check("PSIS-LOO", "-", "not measured", "It needs finite ratios.")
        return
    if worst < threshold:
        meaning = "Close to the exact posterior of all weights jointly."
        yield Check(name, value, "good", meaning)
    else:
        meaning = (
            "Far from the exact joint posterior of the weights, as nearly always with networks. "
            "It does not speak of the predictions."
        )
        yield Check(name, value, "doubtful", meaning, "Small nets: `compare_with_nuts`.")
    with warnings.catch_warnings():
        # That k-hats are large is what the line below tells.
        warnings.filterwarnings("ignore", "Estimated shape parameter of Pareto", UserWarning)
        estimate = loo(tree)
    khat = estimate.pareto_k.values
    n_bad = int((khat > threshold).sum())
    value = (
        f"elpd {estimate.elpd:.4g} +- {estimate.se:.2g}; {n_bad} of {khat.size} k-hats too large"
    )
    if n_bad:
        meaning = "The leave-one-out score leans on few draws in those rows."
        yield Check("PSIS-LOO", value, "doubtful", meaning, "Rather score a test set.")
    else:
        yield Check("PSIS-LOO", value, "good", "The leave-one-out score can be relied on.")


def _check_restarts(tree: xarray.DataTree) -> Check:
    name = "agreement of restarts"
    if tree["posterior"].sizes["chain"] < 2:
        meaning = "A single fit: R-hat between its own independent draws would always be 1."
        return Check(name, "-", "not measured", meaning, "fit(..., restarts=4).")
    found = rhat(tree)
    values = np.concatenate([found[v].values.reshape(-1) for v in found.data_vars])
    share = float((values > RHAT).mean())
    sizes = ess(tree)
    least = min(float(sizes[v].min()) for v in sizes.data_vars)
    value = (
        f"R-hat {np.median(values):.2f}, above {RHAT} at {share:.0%} of rows; ESS from {least:.0f}"
    )
    if not np.isfinite(values).all():
        return Check(name, value, "bad", "Some outputs are not finite or do not vary.")
    if share > 0.1:
        meaning = "Independent fits give different predictions: one alone is too sure of itself."
        advice = "Keep the restarts together: their mixture is wider."
        return Check(name, value, "doubtful", meaning, advice)
    return Check(name, value, "good", "Independent fits give nearly the same predictions.")


def _check_prior(tree: xarray.DataTree) -> Check | None:
    if "mean" not in tree["prior"]:
        return None
    name = "scale of the prior's outputs"
    y = tree["observed_data"]["y"].values
    spread = float(np.median(tree["prior"]["mean"].std(SAMPLE_DIMS).values))
    ratio = spread / max(float(y.std()), 1e-300)
    value = f"{ratio:.2g} times the spread of y"
    if not 0.1 < ratio < 30:
        meaning = "The prior expects outputs of quite another size than those seen."
        return Check(name, value, "doubtful", meaning, "Standardise y, or scale the prior.")
    return Check(name, value, "good", "The prior allows for outputs of the size of those seen.")


def _check_calibration(
    prediction: RegressionPrediction | ClassificationPrediction, y: ArrayLike, where: str
) -> Iterator[Check]:
    n = len(to_numpy(y))
    if isinstance(prediction, RegressionPrediction):
        name = f"{LEVEL:.0%} intervals"
        try:
            share = scores.coverage(prediction, y, LEVEL)
        except NotImplementedError as missing:
            yield Check(name, "-", "not measured", str(missing))
            return
        error = math.sqrt(LEVEL * (1 - LEVEL) / n)
        value = f"hold {share:.1%} of {n} ({where})"
        if abs(share - LEVEL) < max(3 * error, 0.02):
            yield Check(name, value, "good", "They hold what they promise.")
        elif share < LEVEL:
            meaning = "Too narrow: predictions are too sure of themselves."
            yield Check(name, value, "bad", meaning, "Restarts, another likelihood, fewer epochs.")
        else:
            yield Check(name, value, "doubtful", "Too wide.", "Fit longer, or another likelihood.")
    else:
        error = scores.ece(prediction, y)
        value = f"{error:.1%} off on average ({where})"
        good = error < max(0.05, 2 / math.sqrt(n))
        meaning = "Probabilities are about what comes true." if good else "Probabilities are off."
        yield Check("calibration of classes", value, "good" if good else "doubtful", meaning)


def _check_scores(
    prediction: RegressionPrediction | ClassificationPrediction, y: ArrayLike, where: str
) -> Check:
    found = {"NLL": scores.nll(prediction, y)}
    if isinstance(prediction, RegressionPrediction):
        found["RMSE"] = scores.rmse(prediction, y)
        with contextlib.suppress(NotImplementedError):  # no quantiles
            found["CRPS"] = scores.crps(prediction, y)
    else:
        found |= {
            "Brier": scores.brier(prediction, y),
            "error": scores.error_rate(prediction, y),
        }
    value = ", ".join(f"{name} {score:.4g}" for name, score in found.items())
    verdict: Verdict = "told" if all(map(math.isfinite, found.values())) else "bad"
    meaning = f"Of the {where}; scores compare models, none is good or bad in itself."
    return Check("scores", value, verdict, meaning)
