"""The groups of a DataTree for a result of Pyro, each computed from the runs of its model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .._core.arrays import ArrayLike, to_numpy
from .datatree import Coords, Dims, Variables
from .masked_sites import Counted, counted_observations, select
from .pyro_program import Program, Runs, site_values, total_log_prob, unobserve
from .pyro_sources import DrawSource

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ModelRuns:
    """Posterior draws, and the runs of their model that the groups of a tree are made of.

    Attributes
    ----------
    num_chains : int
    latent, observed : mapping of str to Tensor of shape (n_draws, *site)
        The posterior draws.
    sampler_stats : mapping of str to array of shape (n_draws,)
    program : Program or None
        The model, None if it is not known.
    posterior : Runs
        Runs of the model at the posterior draws.
    posterior_predictive, prior : Runs
        Runs in which the observed sites are sampled, at the posterior draws and with all latent
        sites sampled from the prior.
    counted : mapping of str to CountedObservations
        The observations that are not masked, of sites with a mask.
    with_varying_mask : set of str
        Observed sites whose mask differs between draws.
    """

    num_chains: int
    latent: Mapping[str, Tensor]
    observed: Mapping[str, Tensor] = field(default_factory=dict)
    sampler_stats: Mapping[str, ArrayLike] = field(default_factory=dict)
    program: Program | None = None
    posterior: Runs = field(default_factory=dict)
    posterior_predictive: Runs = field(default_factory=dict)
    prior: Runs = field(default_factory=dict)
    counted: Counted = field(default_factory=dict)
    with_varying_mask: set[str] = field(default_factory=set)

    @property
    def dims(self) -> Dims:
        """Names of the dimensions of each site, masked observations included."""
        return self.program.dims if self.program else {}

    @property
    def missing_sites(self) -> list[str]:
        """Latent sites of the model without draws."""
        latent = self.program.latent if self.program else []
        return [name for name in latent if name not in self.latent]


def run_model(
    source: DrawSource, *, num_draws: int, has_posterior_predictive: bool, has_prior: bool
) -> ModelRuns:
    """Draw from a source, and run its model as often as the groups of a tree need.

    Parameters
    ----------
    source : DrawSource
    num_draws : int
        Bound on the draws from the prior.
    has_posterior_predictive, has_prior : bool
        Whether to perform these runs.
    """
    if source.model is None:
        draws = source.draw([])
        return ModelRuns(draws.num_chains, draws.sites, sampler_stats=draws.sample_stats)
    program = Program(source.model, source.args, source.kwargs)
    draws = source.draw(program.latent)
    latent, observed = program.split(draws.sites)
    posterior = program.run(len(draws), latent) if latent else {}
    generative = Program(unobserve(source.model), source.args, source.kwargs)
    posterior_predictive, prior = {}, {}
    if has_posterior_predictive and latent and not observed:
        posterior_predictive = generative.run(len(draws), latent)
    if has_prior:
        prior = generative.run(min(len(draws) // draws.num_chains, num_draws) or num_draws)
    counted, with_varying_mask = counted_observations(program, posterior)
    return ModelRuns(
        draws.num_chains,
        latent,
        observed,
        draws.sample_stats,
        program,
        posterior,
        posterior_predictive,
        prior,
        counted,
        with_varying_mask,
    )


def dims_and_coords(
    runs: ModelRuns, dims: Dims | None, coords: Coords | None, index_origin: int | None
) -> tuple[Dims, Coords]:
    """Return names and labels of all dimensions but those of predictions.

    Parameters
    ----------
    runs : ModelRuns
    dims, coords : mapping, optional
        Those that the user has given.
    index_origin : int, optional
        First index of dimensions without labels. None: ArviZ's setting.
    """
    names = {**runs.dims, **(dims or {})}
    labels = dict(coords or {})
    selected = {}
    for name, observations in runs.counted.items():
        used = {dim for other, of_other in names.items() if other != name for dim in of_other}
        selected[name] = observations.dims(names[name], used)
        dim = selected[name][observations.axis or 0]
        given = None if observations.axis is None else labels.get(names[name][observations.axis])
        labels[dim] = observations.labels(given, index_origin)
    return {**names, **selected}, labels


def posterior(runs: ModelRuns) -> Variables:
    """Return the draws of latent sites, and the deterministic sites at these draws."""
    deterministic = runs.program.deterministic if runs.program else []
    return {**runs.latent, **site_values(runs.posterior, deterministic)}


def posterior_predictive(runs: ModelRuns, given: Variables | bool) -> Variables:
    """Return draws of observed sites: `given`, those of the posterior, or new ones."""
    if not isinstance(given, Mapping):
        given = {**runs.observed, **site_values(runs.posterior_predictive, _observed_sites(runs))}
    return select(_as_in_model(runs, given), runs.counted, 1)


def log_likelihood(runs: ModelRuns) -> Variables:
    """Return the log-likelihood of each observation, or nothing if latent sites are missing.

    It is that of one observation: `pyro.poutine.scale` and the scale of plates have no effect.
    """
    if runs.posterior and runs.missing_sites:
        logger.warning(
            "No log-likelihood: the draws lack the site(s) %s of the model.",
            ", ".join(runs.missing_sites),
        )
        return {}
    log_probs = {
        name: runs.posterior[name].log_prob
        for name in _observed_sites(runs)
        if name in runs.posterior and name not in runs.with_varying_mask
    }
    return select(log_probs, runs.counted, 1)


def sample_stats(runs: ModelRuns) -> Variables:
    """Return log-densities of the model and the guide, and statistics of the sampler."""
    stats = dict(runs.sampler_stats)
    if runs.posterior and not runs.missing_sites:
        stats["lp"] = total_log_prob(runs.posterior)
        if "logq" in stats:
            stats["log_weight"] = stats["lp"] - stats["logq"]
    return stats


def prior(runs: ModelRuns, given: Variables | bool) -> Variables:
    """Return prior draws of latent and deterministic sites."""
    if isinstance(given, Mapping):
        observed = _observed_sites(runs)
        latent = {name: value for name, value in given.items() if name not in observed}
        return _as_in_model(runs, latent)
    if runs.program is None:
        return {}
    return site_values(runs.prior, [*runs.program.latent, *runs.program.deterministic])


def prior_predictive(runs: ModelRuns, given: Variables | bool) -> Variables:
    """Return prior draws of observed sites."""
    names = _observed_sites(runs)
    if isinstance(given, Mapping):
        given = {name: value for name, value in given.items() if name in names}
    else:
        given = site_values(runs.prior, names)
    return select(_as_in_model(runs, given), runs.counted, 1)


def predictions(runs: ModelRuns, given: Variables | None) -> Variables:
    """Return draws at new inputs."""
    return _as_in_model(runs, given or {})


def dims_and_coords_of_predictions(
    runs: ModelRuns, given: Variables, pred_dims: Dims | None, coords: Coords | None
) -> tuple[Dims, Coords]:
    """Return names and labels of the dimensions of predictions.

    The names are those of the sites unless given. Labels of another number of rows do not apply to
    dimensions that have been named in this way.
    """
    names, labels = dict(pred_dims or {}), dict(coords or {})
    for name, value in given.items():
        shape = np.shape(value)[1:]
        dims = runs.dims.get(name, ())
        if name in names or len(dims) != len(shape):
            continue
        names[name] = dims
        for dim, n in zip(dims, shape, strict=True):
            if dim in labels and len(labels[dim]) != n:
                del labels[dim]
    return names, labels


def observed_data(runs: ModelRuns) -> Variables:
    """Return the observations."""
    return select(runs.program.observations, runs.counted, 0) if runs.program else {}


def _as_in_model(runs: ModelRuns, draws: Variables) -> Variables:
    """Return draws that the user has given, with as many dimensions as in the model."""
    program = runs.program
    if program is None:
        return draws
    return {
        name: program.without_singletons(name, torch.as_tensor(to_numpy(value)))
        if name in program.dims
        else value
        for name, value in draws.items()
    }


def _observed_sites(runs: ModelRuns) -> list[str]:
    return runs.program.observed if runs.program else []
