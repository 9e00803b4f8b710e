"""Any result of Pyro's as an xarray DataTree for ArviZ."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from torch import Tensor

from .._core.arrays import ArrayLike, check_count, to_numpy
from .._core.random_state import as_seed, seeded
from .datatree import Coords, Dims, build_tree
from .pyro_program import Program, Runs, unobserved

if TYPE_CHECKING:
    import xarray

logger = logging.getLogger(__name__)

Model = Callable[..., Any]


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
    """Give a result of Pyro's as ArviZ reads it.

    Parameters
    ----------
    posterior : MCMC or mapping of str to Tensor, optional
        A run of `pyro.infer.MCMC`; or draws, such as those of `pyro.infer.Predictive` or of
        ``mcmc.get_samples()``, each of shape (num_chains * n, *site), chain after chain. None:
        drawn from `guide`.
    model : callable, optional
        The Pyro model. Not needed for MCMC, which has it. Without it there are the draws only.
    guide : callable or sequence of callable, optional
        The guide of a fit by SVI, an autoguide or one of your own; or those of independent fits,
        which become chains.
    args, kwargs
        What the model and the guide were run with: all the data. Not needed for MCMC.
    prior : mapping or bool
        Draws from the prior, those of observed sites among them, or whether to make them.
    posterior_predictive : mapping or bool
        Draws of the observed sites, or whether to make them.
    log_likelihood : bool
        Whether to compute that of each observation.
    predictions, constant_data, predictions_constant_data : mapping, optional
        Draws at other inputs, shape (num_chains * n, ...); data of the model; data of those.
    num_draws : int
        Draws from each guide, and at most so many from the prior.
    num_chains : int
        Chains that draws given as a mapping consist of.
    seed : int, optional
        Makes what is drawn here repeatable.
    coords : mapping of dimension to labels, optional
    dims, pred_dims : mapping of variable to names of dimensions, optional
        None: plates of the model give their names to dimensions, ``infer={"event_dims": [...]}`` of
        a site to those of its event, the rest are called ``<site>_dim_<i>``.
    index_origin : int, optional
        Where numbering starts; None: as ArviZ is set.

    Returns
    -------
    DataTree
        With dimensions ``chain`` and ``draw``, and those of these groups for which there is
        something: ``posterior``, ``prior`` (both with deterministic sites),
        ``posterior_predictive``, ``prior_predictive``, ``log_likelihood``, ``sample_stats``,
        ``observed_data``, ``predictions``, ``constant_data``, ``predictions_constant_data``. In
        ``sample_stats`` are ``lp``, the model's log joint density; for a guide ``logq``, and
        ``log_weight``, their difference; for MCMC ``diverging``.

    Raises
    ------
    TypeError, ValueError
        If there is nothing to convert, or shapes do not fit.

    Notes
    -----
    All draws are taken through the model at once, in a plate around it, if that gives the numbers
    of a single run; otherwise one by one, and the log says so. A site of the model that is not
    among the draws (a discrete one that was summed out) is drawn anew where it is needed; then
    there is no log-likelihood.
    """
    check_count("num_draws", num_draws)
    check_count("num_chains", num_chains)
    seed = as_seed(seed)
    stats: dict[str, Any] = {}
    attrs: dict[str, Any] = {"draws_seed": seed}
    draws: dict[str, Tensor] = {}
    if _is_mcmc(posterior):
        if model is None:
            model, args, kwargs = posterior.kernel.model, posterior._args, posterior._kwargs
        num_chains = posterior.num_chains
        draws = {n: v.flatten(0, 1) for n, v in posterior.get_samples(group_by_chain=True).items()}
        stats = _diverging(posterior)
        attrs["inference_method"] = type(posterior.kernel).__name__
    elif isinstance(posterior, Mapping):
        draws = {name: torch.as_tensor(value) for name, value in posterior.items()}
    elif posterior is not None:
        raise TypeError(
            "`posterior` must be a run of pyro.infer.MCMC or a mapping of draws, got "
            f"{type(posterior).__name__}. A guide goes to `guide`, with `model` and `args`."
        )
    if guide is not None and model is None:
        raise ValueError("`guide` needs `model`, and `args` to run them with.")

    groups: dict[str, dict[str, Any]] = {}
    inferred: Dims = {}
    if model is None:
        _count(draws, num_chains)
        groups["posterior"] = draws
    else:
        with seeded(seed), torch.no_grad():
            program = Program(model, args, kwargs)
            inferred = program.dims
            if guide is not None and not draws:
                guides = [guide] if callable(guide) else list(guide)
                num_chains = len(guides)
                drawn = [Program(own, args, kwargs).run(num_draws) for own in guides]
                draws = {
                    name: torch.cat([own[name].values for own in drawn])
                    for name in program.latent
                    if all(name in own for own in drawn)
                }
                stats["logq"] = torch.cat([_total(own) for own in drawn])
                attrs |= {"inference_method": "variational", "guide": type(guides[0]).__name__}
            n_draws = _count(draws, num_chains)
            draws, predicted = program.sort(draws)
            groups["posterior"], groups["posterior_predictive"] = dict(draws), predicted
            if draws:
                runs = program.run(n_draws, draws)
                groups["posterior"] |= _values(runs, program.deterministic)
                missing = [name for name in program.latent if name not in draws]
                if missing and log_likelihood:
                    logger.warning(
                        "No log-likelihood: the draws lack the site(s) %s of the model.",
                        ", ".join(missing),
                    )
                if not missing:
                    stats["lp"] = _total(runs)
                if not missing and log_likelihood:
                    observed = program.observed
                    groups["log_likelihood"] = {name: runs[name].log_prob for name in observed}
            free = Program(unobserved(model), args, kwargs)
            if posterior_predictive is True and draws and not predicted:
                runs = free.run(n_draws, draws)
                groups["posterior_predictive"] = _values(runs, program.observed)
            if prior is True:
                runs = free.run(min(n_draws // num_chains, num_draws) or num_draws)
                groups["prior"] = _values(runs, [*program.latent, *program.deterministic])
                groups["prior_predictive"] = _values(runs, program.observed)
            groups["observed_data"] = dict(program.observed)
    if isinstance(prior, Mapping):
        observed = groups.get("observed_data", {})
        groups["prior"] = {k: v for k, v in prior.items() if k not in observed}
        groups["prior_predictive"] = {k: v for k, v in prior.items() if k in observed}
    if isinstance(posterior_predictive, Mapping):
        groups["posterior_predictive"] = dict(posterior_predictive)
    if {"lp", "logq"} <= stats.keys():
        stats["log_weight"] = stats["lp"] - stats["logq"]
    groups |= {"sample_stats": stats, "predictions": dict(predictions or {})}
    for group, variables in groups.items():
        if group != "observed_data":
            n = 1 if group.startswith("prior") else num_chains
            groups[group] = {k: _by_chain(k, v, n) for k, v in variables.items()}
    groups["constant_data"] = dict(constant_data or {})
    groups["predictions_constant_data"] = dict(predictions_constant_data or {})
    if not any(groups.values()):
        raise ValueError(
            "There is nothing to convert: give `posterior`, or `model` and `guide` with `args`."
        )
    return build_tree(
        groups,
        dims={**inferred, **(dims or {})},
        coords=coords,
        pred_dims=pred_dims,
        pred_coords=coords,
        index_origin=index_origin,
        attrs={
            "modeling_interface": "pyro",
            "modeling_interface_version": pyro.__version__,
            **attrs,
        },
    )


def _is_mcmc(posterior: Any) -> bool:
    # By what it can do: importing pyro.infer.mcmc is not needed for other results.
    return hasattr(posterior, "get_samples") and hasattr(posterior, "kernel")


def _diverging(mcmc: Any) -> dict[str, np.ndarray]:
    """Give whether each step diverged, shape (num_chains * n,); nothing for other kernels."""
    found = [own["divergences"] for own in mcmc._diagnostics if own and "divergences" in own]
    if len(found) < mcmc.num_chains:
        return {}
    diverging = np.zeros((mcmc.num_chains, mcmc.num_samples), dtype=bool)
    for chain, steps in enumerate(found):
        diverging[chain, list(steps)] = True
    return {"diverging": diverging.reshape(-1)}


def _count(draws: Mapping[str, Tensor], num_chains: int) -> int:
    """Give how many draws there are; raise unless all sites have as many, in whole chains."""
    counts = {name: len(value) for name, value in draws.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"`posterior` must have as many draws of each site, got {counts}.")
    n_draws = next(iter(counts.values()), 0)
    if n_draws % num_chains:
        raise ValueError(f"`num_chains` is {num_chains}, which does not divide {n_draws} draws.")
    return n_draws


def _total(runs: Runs) -> Tensor:
    """Give the log-density of each run."""
    return torch.stack([own.total for own in runs.values()]).sum(0)


def _values(runs: Runs, names: Iterable[str]) -> dict[str, Tensor]:
    return {name: runs[name].values for name in names if name in runs}


def _by_chain(name: str, value: ArrayLike, num_chains: int) -> np.ndarray:
    array = to_numpy(value)
    if not array.ndim or len(array) % num_chains:
        raise ValueError(
            f"{name!r} has shape {array.shape}, whose first length is no multiple of "
            f"`num_chains`, {num_chains}."
        )
    return array.reshape((num_chains, -1, *array.shape[1:]))
