"""Pruning: the weights that are mostly noise are removed."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings

import torch

from .._core.arrays import check_number
from ..model.guides import MeanFieldGuide
from ..model.network import BayesianNetwork
from .posterior import Posterior


def prune(posterior: Posterior, fraction: float) -> Posterior:
    """Remove the weights of the lowest signal-to-noise ratio, ``|loc| / scale``.

    A removed weight is exactly 0, and so is its scale (its rho is minus infinity): a point mass.
    All weights and biases are ranked together, never the latents of the likelihood; of equal ratios
    the first in the order of ``guide.loc`` go first. Of a posterior with restarts each chain is
    pruned by its own ranking. The remaining weights keep their distributions, and their draws at a
    given seed.

    Parameters
    ----------
    posterior : Posterior
        With a `MeanFieldGuide`; it stays as it is.
    fraction : float
        Of all Bayesian weights, at least 0 and below 1: ``round(fraction * n_weights)`` are
        removed. Those of a posterior that is pruned already count, and stay removed.

    Returns
    -------
    Posterior
        For draws, predictions and files. Point masses have no density: ``logq`` is infinite in
        `to_arviz`, importance ratios are refused, and `fit` does not go on from the guide.

    Raises
    ------
    TypeError
        If the guide is none that has a scale for each weight.
    ValueError
        If `fraction` is not in [0, 1).

    References
    ----------
    Blundell et al. (2015), section 5.1; after Graves (2011), "Practical variational inference for
    neural networks".
    """
    if not isinstance(posterior, Posterior):
        raise TypeError(f"`posterior` must be a Posterior, got {type(posterior).__name__}.")
    check_number("fraction", fraction)
    if not 0 <= fraction < 1:
        raise ValueError(f"`fraction` must be at least 0 and below 1, got {fraction}.")
    pruned = [_prune_one(own, fraction) for own in posterior.chains or (posterior,)]
    return Posterior.of_chains(pruned) if posterior.chains else pruned[0]


def _prune_one(posterior: Posterior, fraction: float) -> Posterior:
    guide = _mean_field(posterior)
    pruned = copy.deepcopy(guide)
    with torch.no_grad():
        removed = _noisiest(guide, posterior.network, fraction)
        pruned.loc[removed] = 0.0
        pruned.rho[removed] = -math.inf
    return dataclasses.replace(posterior, guide=pruned)


def _noisiest(guide: MeanFieldGuide, network: BayesianNetwork, fraction: float) -> torch.Tensor:
    """Give the places of the weights to remove in the guide's flat vectors."""
    weights = {name for name, _ in network.bayesian_parameters()}
    is_weight = torch.cat(
        [torch.full((shape.numel(),), name in weights) for name, shape in guide.shapes.items()]
    )
    places = is_weight.nonzero()[:, 0].to(guide.loc.device)
    loc, scale = guide.loc[places].double(), guide.scale[places].double()
    # Those removed already come before all others, even before means of exactly 0.
    ratio = torch.where(scale == 0, -1.0, loc.abs() / scale)
    return places[ratio.argsort(stable=True)[: round(fraction * len(places))]]


def sparse_weights(posterior: Posterior) -> dict[str, torch.Tensor]:
    """Give the posterior means of the weights, matrices without their zeros.

    For a network that is used at its means after `prune`: ``torch.func.functional_call(net,
    sparse_weights(pruned), x)`` gives its output. Below about half of the elements, compressed
    rows take less room than the dense matrix.

    Parameters
    ----------
    posterior : Posterior
        Of a single fit, with a `MeanFieldGuide`.

    Returns
    -------
    dict of str to Tensor
        For each Bayesian parameter. Matrices are in the layout ``torch.sparse_csr``, their indices
        of 32 bits; all else is dense.

    Raises
    ------
    TypeError
        If the guide is none that has a mean for each weight.
    ValueError
        If the posterior has several chains: take one of ``posterior.chains``.
    """
    if posterior.chains:
        raise ValueError(
            "`posterior` must be a single fit, got one of "
            f"{len(posterior.chains)} chains: take one of posterior.chains."
        )
    guide = _mean_field(posterior)
    means = guide.split(guide.loc.detach())
    return {
        name: _compressed(means[name]) if means[name].dim() == 2 else means[name].clone()
        for name, _ in posterior.network.bayesian_parameters()
    }


def _compressed(matrix: torch.Tensor) -> torch.Tensor:
    rows, columns = matrix.nonzero(as_tuple=True)
    starts = torch.searchsorted(rows, torch.arange(len(matrix) + 1, device=rows.device))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            starts.int(), columns.int(), matrix[rows, columns], matrix.shape, check_invariants=True
        )


def _mean_field(posterior: Posterior) -> MeanFieldGuide:
    if not isinstance(posterior.guide, MeanFieldGuide):
        raise TypeError(
            f"`posterior` must have a MeanFieldGuide, which has a scale for each weight, got "
            f"{type(posterior.guide).__name__}."
        )
    return posterior.guide
