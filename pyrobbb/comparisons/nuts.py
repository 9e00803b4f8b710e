"""Comparison of a variational posterior with NUTS on the same Pyro model, for small networks."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from pyro.infer import MCMC, NUTS
from tqdm.auto import tqdm

from .._core.arrays import ArrayLike, as_count, to_numpy
from .._core.random_state import as_seed, child_seed, globally_seeded
from .._core.signatures import suggests_arguments
from ..fitted import raise_if_interrupted
from ..model.network import BayesianNetwork
from ..posterior.fitting import fit
from ..posterior.posterior import Posterior
from ..prediction import RegressionPrediction, make_prediction
from ..prediction.drawn_distributions import WORKING_MEMORY, DrawnDistributions
from ..prediction.sampling import Draws, FixedDraws

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

QUANTILES = (0.05, 0.5, 0.95)
MANY_WEIGHTS = 2000
"""With more weights, NUTS takes many minutes."""


@dataclass(frozen=True, eq=False)
class NUTSComparison:
    """Predictions of a variational posterior and of NUTS at the same inputs.

    Attributes
    ----------
    posterior : Posterior
        The variational posterior.
    mcmc : dict of str to Tensor of shape (n_chains, n_draws, *site)
        Draws of NUTS.
    x : array-like of shape (m, ...)
        Inputs at which predictions are compared.
    variational, nuts : RegressionPrediction or ClassificationPrediction
    by_input : DataFrame
        One row per input (and column of y). For a regression: ``mean``, ``sd`` and quantiles of
        both, and ``wasserstein``, the distance between the predictive distributions, all in the
        units of y. For classes: the probability of each class, of both.
    rhat : float
        The 95 % quantile over inputs of the R-hat of the mean function of NUTS. If it is not close
        to 1, NUTS has not converged.
    n_divergent : int
        Number of divergent transitions of NUTS.
    """

    posterior: Posterior
    mcmc: Draws
    x: ArrayLike
    variational: Any
    nuts: Any
    by_input: pd.DataFrame
    rhat: float
    n_divergent: int

    @property
    def table(self) -> pd.DataFrame:
        """Mean distances over inputs; for a regression, also in units of the sd of NUTS."""
        import pandas as pd

        rows = {}
        columns = self.by_input
        if "wasserstein" in columns:
            sd = columns["nuts_sd"]
            for name in ("mean", "sd", *(f"q{q:g}" for q in QUANTILES)):
                gap = (columns[name] - columns[f"nuts_{name}"]).abs()
                rows[f"|difference| of {name}"] = (gap.mean(), (gap / sd).mean())
            gap = columns["wasserstein"]
            rows["Wasserstein distance"] = (gap.mean(), (gap / sd).mean())
            ratio = columns["epistemic_sd"] / columns["nuts_epistemic_sd"]
            rows["epistemic sd / that of NUTS"] = (np.nan, ratio.median())
            return pd.DataFrame.from_dict(
                rows, orient="index", columns=["in units of y", "in sd of NUTS"]
            )
        gap = (columns["probability"] - columns["nuts_probability"]).abs()
        rows["|difference| of probabilities"] = (gap.mean(), gap.max())
        return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "largest"])

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        quality = f"NUTS: R-hat {self.rhat:.2f}, {self.n_divergent} divergent transitions"
        return f"{self.table.to_string(float_format='{:.3g}'.format)}\n{quality}"


@suggests_arguments(of_options=[fit])
def compare_with_nuts(
    network: BayesianNetwork,
    x: ArrayLike,
    y: ArrayLike,
    *,
    x_new: ArrayLike | None = None,
    posterior: Posterior | None = None,
    n_draws: int = 500,
    n_warmup: int = 500,
    n_chains: int = 2,
    seed: int | None = None,
    progress: bool = True,
    **fit_options: Any,
) -> NUTSComparison:
    """Fit a small network by Bayes by Backprop and by NUTS, and compare their predictions.

    Parameters
    ----------
    network : BayesianNetwork
        Without point parameters, which NUTS cannot sample: those of ``posterior.network`` keep
        their values.
    x, y : array-like of shape (n, ...)
    x_new : array-like of shape (m, ...), optional
        Inputs at which predictions are compared. None: x.
    posterior : Posterior, optional
        A variational posterior. None: it is fitted with `fit_options`.
    n_draws, n_warmup : int
        Draws and warm-up steps of each chain of NUTS.
    n_chains : int
        Chains of NUTS, run sequentially.
    seed : int, optional
        Makes the fit and NUTS repeatable.
    progress : bool
        Show a progress bar.
    **fit_options
        Options of `pyrobbb.fit`.

    Returns
    -------
    NUTSComparison
        Prints as a table; `pyrobbb.plots.plot_nuts` plots it.

    Raises
    ------
    ValueError
        If the network has point parameters, or the fit had a `sample_weight`.
    """
    n_draws, n_warmup = as_count("n_draws", n_draws), as_count("n_warmup", n_warmup)
    n_chains = as_count("n_chains", n_chains)
    seed = as_seed(seed)
    points = [name for name, _ in network.point_parameters()]
    is_fitted = posterior is not None and any(c.network is network for c in posterior.chains)
    if points and not is_fitted:
        raise ValueError(
            f"`network` must not have point parameters, which NUTS cannot sample, got "
            f"{', '.join(points)}: give them a prior, or pass a `posterior` and its network, in "
            "which they have values."
        )
    n_weights = sum(p.numel() for _, p in network.bayesian_parameters())
    if n_weights > MANY_WEIGHTS:
        logger.warning(
            "NUTS on %d weights will take a long time; it is meant for small networks.", n_weights
        )
    if posterior is None:
        posterior = fit(network, x, y, seed=seed, progress=progress, **fit_options)
        raise_if_interrupted(posterior.chains)
    if any(chain.settings.is_weighted for chain in posterior.chains):
        raise ValueError(
            "`posterior` was fitted with a `sample_weight`, while NUTS weights all rows equally."
        )
    network = copy.deepcopy(network).eval()
    draws, n_divergent = run_nuts(
        network,
        x,
        y,
        n_draws=n_draws,
        n_warmup=n_warmup,
        n_chains=n_chains,
        seed=seed,
        progress=progress,
    )
    at = x if x_new is None else x_new
    fixed = FixedDraws(network, {name: d.flatten(0, 1) for name, d in draws.items()})
    rows = network.prepare_inputs(at)
    nuts = make_prediction(DrawnDistributions([fixed], rows, max_memory=WORKING_MEMORY), at)
    variational = posterior.predict(at, n_draws=n_chains * n_draws, seed=seed)
    return NUTSComparison(
        posterior,
        draws,
        at,
        variational,
        nuts,
        _by_input(variational, nuts, seed),
        _rhat_of_outputs(network, draws, rows),
        n_divergent,
    )


def run_nuts(
    network: BayesianNetwork,
    x: ArrayLike,
    y: ArrayLike,
    *,
    n_draws: int,
    n_warmup: int,
    n_chains: int,
    seed: int,
    progress: bool = True,
) -> tuple[Draws, int]:
    """Run NUTS on a network, one chain after another.

    Returns
    -------
    draws : dict of str to Tensor of shape (n_chains, n_draws, *site)
    n_divergent : int
    """
    network = copy.deepcopy(network).eval()
    rows, targets = network.prepare(x, y)
    chains, n_divergent = [], 0
    total = n_chains * (n_draws + n_warmup)
    with tqdm(total=total, desc="NUTS", unit="step", disable=not progress) as bar:
        for chain in range(n_chains):
            with globally_seeded(child_seed(seed, chain)), pyro.get_param_store().scope():
                mcmc = MCMC(
                    NUTS(network),
                    num_samples=n_draws,
                    warmup_steps=n_warmup,
                    disable_progbar=True,
                    hook_fn=lambda *_: bar.update(),
                )
                mcmc.run(rows, targets)
            chains.append({name: value.detach() for name, value in mcmc.get_samples().items()})
            n_divergent += len(mcmc.diagnostics()["divergences"]["chain 0"])
    return {name: torch.stack([c[name] for c in chains]) for name in chains[0]}, n_divergent


def _by_input(variational: Any, nuts: Any, seed: int) -> pd.DataFrame:
    import pandas as pd

    if not isinstance(nuts, RegressionPrediction):
        return pd.DataFrame(
            {
                "probability": to_numpy(variational.probs).reshape(-1),
                "nuts_probability": to_numpy(nuts.probs).reshape(-1),
            }
        )
    columns: dict[str, np.ndarray] = {}
    draws = []
    for prefix, prediction in (("", variational), ("nuts_", nuts)):
        columns[f"{prefix}mean"] = to_numpy(prediction.mean)
        columns[f"{prefix}sd"] = to_numpy(prediction.sd)
        columns[f"{prefix}epistemic_sd"] = to_numpy(prediction.epistemic_sd)
        for q in QUANTILES:
            columns[f"{prefix}q{q:g}"] = to_numpy(prediction.quantile(q))
        draws.append(to_numpy(prediction.sample(seed)))
    # In one dimension, the Wasserstein distance is the mean difference of the quantiles.
    n = len(draws[0])
    levels = (np.arange(n) + 0.5) / n
    one, other = (np.quantile(d, levels, axis=0) for d in draws)
    columns["wasserstein"] = np.abs(one - other).mean(0)
    return pd.DataFrame({name: column.reshape(-1) for name, column in columns.items()})


def _rhat_of_outputs(network: BayesianNetwork, draws: Draws, rows: torch.Tensor) -> float:
    from arviz_stats.base import array_stats

    n_chains = len(next(iter(draws.values())))
    weights = {name: value.flatten(0, 1) for name, value in draws.items()}
    with torch.no_grad():
        output = to_numpy(network.output(weights, rows))
    by_chain = output.reshape((n_chains, -1, output[0].size))
    values = [array_stats.rhat(by_chain[:, :, i]) for i in range(by_chain.shape[2])]
    return float(np.quantile(values, 0.95))
