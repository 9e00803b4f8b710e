"""Conversion of any result of Pyro to an xarray DataTree for ArviZ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pyro
import torch

from .._core.arrays import ArrayLike, as_count
from .._core.global_state import global_state_locked
from .._core.random_state import as_seed, seeded
from .._core.signatures import suggests_arguments
from . import pyro_groups
from .datatree import Coords, Dims, build_tree, split_chains
from .pyro_groups import run_model
from .pyro_sources import Model, draw_source

if TYPE_CHECKING:
    import xarray


@suggests_arguments()
def from_pyro(
    posterior: Any = None,
    *,
    model: Model | None = None,
    guide: Model | Sequence[Model] | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    prior: Mapping[str, ArrayLike] | bool = True,
    posterior_predictive: Mapping[str, ArrayLike] | bool = True,
    log_likelihood: bool = True,
    predictions: Mapping[str, ArrayLike] | None = None,
    constant_data: Mapping[str, ArrayLike] | None = None,
    predictions_constant_data: Mapping[str, ArrayLike] | None = None,
    num_draws: int = 1000,
    num_chains: int = 1,
    seed: int | None = None,
    coords: Coords | None = None,
    dims: Dims | None = None,
    pred_dims: Dims | None = None,
    index_origin: int | None = None,
) -> xarray.DataTree:
    """Convert a result of Pyro to an xarray DataTree for ArviZ.

    Parameters
    ----------
    posterior : MCMC or mapping of str to Tensor, optional
        A run of `pyro.infer.MCMC`; or draws, such as those of `pyro.infer.Predictive` or of
        ``mcmc.get_samples()``, each of shape (num_chains * n, *site), with all draws of the first
        chain first. None: drawn from `guide`.
    model : callable, optional
        The Pyro model. By default that of the MCMC run. Without a model the tree has only what is
        passed.
    guide : callable or sequence of callable, optional
        The guide of a fit by SVI, an autoguide or a custom one; or the guides of independent fits,
        which become chains. Ignored if `posterior` has draws.
    args, kwargs
        Arguments of the model and the guide, with all the data. By default those of the MCMC run.
    prior : mapping or bool
        Draws from the prior, observed sites included, or whether to generate them.
    posterior_predictive : mapping or bool
        Draws of the observed sites, or whether to generate them.
    log_likelihood : bool
        Whether to compute the log-likelihood of each observation, without `pyro.poutine.scale`.
    predictions : mapping, optional
        Draws at new inputs, each of shape (num_chains * n, ...).
    constant_data, predictions_constant_data : mapping, optional
        Inputs of the model, and inputs of the predictions.
    num_draws : int
        Draws from each guide, and the maximum number of draws from the prior.
    num_chains : int
        Number of chains in a mapping of draws.
    seed : int, optional
        Seed of all draws made here.
    coords : mapping of dimension to labels, optional
    dims, pred_dims : mapping of variable to names of dimensions, optional
        By default, dimensions of plates have the names of the plates, dimensions of events those in
        the site's ``infer={"event_dims": [...]}``, and others are called ``<site>_dim_<i>``.
    index_origin : int, optional
        First index of dimensions without labels. None: ArviZ's setting.

    Returns
    -------
    DataTree
        With dimensions ``chain`` and ``draw``, and those of these groups that are not empty:
        ``posterior``, ``prior`` (both with deterministic sites), ``posterior_predictive``,
        ``prior_predictive``, ``log_likelihood``, ``sample_stats``, ``observed_data``,
        ``predictions``, ``constant_data``, ``predictions_constant_data``. The group
        ``sample_stats`` has ``lp``, the model's log joint density; for a guide ``logq`` and the
        difference of the two, ``log_weight``; for MCMC ``diverging``.

    Raises
    ------
    TypeError, ValueError
        If there is nothing to convert, or shapes do not agree.

    Notes
    -----
    The model is run for all draws at once, in a plate around it, if this agrees with a single run.
    Otherwise it is run once per draw, and an info message is logged. A latent site of the model
    without draws, such as a discrete site that was marginalised, is sampled where it is needed;
    the tree then has no log-likelihood.

    Observations that the model masks, by ``obs_mask``, `pyro.poutine.mask`, ``fn.mask`` or a weight
    of 0, are left out of the observations, their log-likelihood and their predictions, so that
    ArviZ's scores do not count them; a warning is logged. Plates must not draw a random subsample.
    """
    num_draws = as_count("num_draws", num_draws)
    num_chains = as_count("num_chains", num_chains)
    seed = as_seed(seed)
    source = draw_source(
        posterior, model, guide, args, kwargs, num_draws=num_draws, num_chains=num_chains
    )
    with global_state_locked(), seeded(seed), torch.no_grad():
        runs = run_model(
            source,
            num_draws=num_draws,
            has_posterior_predictive=posterior_predictive is True,
            has_prior=prior is True,
        )
    new = pyro_groups.predictions(runs, predictions)
    by_chain = partial(split_chains, num_chains=runs.num_chains)
    groups = {
        "posterior": by_chain(pyro_groups.posterior(runs)),
        "posterior_predictive": by_chain(
            pyro_groups.posterior_predictive(runs, posterior_predictive)
        ),
        "log_likelihood": by_chain(pyro_groups.log_likelihood(runs) if log_likelihood else {}),
        "prior": split_chains(pyro_groups.prior(runs, prior), 1),
        "prior_predictive": split_chains(pyro_groups.prior_predictive(runs, prior), 1),
        "observed_data": pyro_groups.observed_data(runs),
        "sample_stats": by_chain(pyro_groups.sample_stats(runs)),
        "predictions": by_chain(new),
        "constant_data": constant_data or {},
        "predictions_constant_data": predictions_constant_data or {},
    }
    if not any(groups.values()):
        raise ValueError(
            "There is nothing to convert: pass `posterior`, or `model` and `guide` with `args`."
        )
    pred_dims, pred_coords = pyro_groups.dims_and_coords_of_predictions(
        runs, new, pred_dims, coords
    )
    dims, coords = pyro_groups.dims_and_coords(runs, dims, coords, index_origin)
    return build_tree(
        groups,
        dims=dims,
        coords=coords,
        pred_dims=pred_dims,
        pred_coords=pred_coords,
        index_origin=index_origin,
        attrs={
            "modeling_interface": "pyro",
            "modeling_interface_version": pyro.__version__,
            "draws_seed": seed,
            **source.attrs,
        },
    )
