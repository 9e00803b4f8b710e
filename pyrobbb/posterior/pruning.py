"""Pruning: weights with a low signal-to-noise ratio are set to exactly 0."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings

import torch

from .._core.arrays import check_number
from .._core.signatures import suggests_arguments
from ..fitted import FittedChain
from ..model.guides import MeanFieldGuide
from ..model.network import BayesianNetwork
from .posterior import Posterior, check_posterior


@suggests_arguments()
def prune(posterior: Posterior, fraction: float) -> Posterior:
    """Remove the weights with the lowest signal-to-noise ratio, ``|loc| / scale``.

    A removed weight is exactly 0 and so is its scale (its rho is minus infinity): a point mass.
    All weights and biases are ranked together, without the latent sites of the likelihood; ties
    are broken by the order of ``guide.loc``. Each chain is ranked separately. The remaining
    weights keep their distributions, and their draws for a given seed.

    Parameters
    ----------
    posterior : Posterior
        With a `MeanFieldGuide`. It is not changed.
    fraction : float
        Fraction of all Bayesian weights to remove, at least 0 and below 1:
        ``round(fraction * n_weights)`` weights. Weights that have already been pruned are included,
        and stay removed.

    Returns
    -------
    Posterior
        For draws, predictions and files. Point masses have no density: ``logq`` is infinite in
        `to_arviz`, importance ratios raise an error, and `fit` cannot continue from the guide.

    Raises
    ------
    TypeError
        If the guide is not a `MeanFieldGuide`.
    ValueError
        If `fraction` is not in [0, 1).

    References
    ----------
    Blundell et al. (2015), section 5.1; after Graves (2011), "Practical variational inference for
    neural networks".
    """
    check_posterior(posterior)
    check_number("fraction", fraction)
    if not 0 <= fraction < 1:
        raise ValueError(f"`fraction` must be at least 0 and below 1, got {fraction}.")
    return Posterior(tuple(_prune_chain(chain, fraction) for chain in posterior.chains))


def _prune_chain(chain: FittedChain, fraction: float) -> FittedChain:
    guide = _mean_field(chain)
    pruned = copy.deepcopy(guide)
    with torch.no_grad():
        removed = _lowest_snr(guide, chain.network, fraction)
        pruned.loc[removed] = 0.0
        pruned.rho[removed] = -math.inf
    return dataclasses.replace(chain, guide=pruned)


def _lowest_snr(guide: MeanFieldGuide, network: BayesianNetwork, fraction: float) -> torch.Tensor:
    """Return the indices, into the guide's flat vectors, of the weights to remove."""
    weights = {name for name, _ in network.bayesian_parameters()}
    is_weight = torch.cat(
        [torch.full((shape.numel(),), name in weights) for name, shape in guide.shapes.items()]
    )
    indices = is_weight.nonzero()[:, 0].to(guide.loc.device)
    loc, scale = guide.loc[indices].double(), guide.scale[indices].double()
    # Weights that have already been pruned come first, even before means of exactly 0.
    ratio = torch.where(scale == 0, -1.0, loc.abs() / scale)
    return indices[ratio.argsort(stable=True)[: round(fraction * len(indices))]]


def sparse_weights(posterior: Posterior) -> dict[str, torch.Tensor]:
    """Return the posterior means of the weights, with matrices in sparse layout.

    For predictions at the posterior means after `prune`: the output of the network is
    ``torch.func.functional_call(net, sparse_weights(pruned), x)``. If fewer than about half of the
    elements are nonzero, the sparse layout takes less memory than the dense one.

    Parameters
    ----------
    posterior : Posterior
        With a single chain and a `MeanFieldGuide`.

    Returns
    -------
    dict of str to Tensor
        For each Bayesian parameter. Matrices have the layout ``torch.sparse_csr`` with 32-bit
        indices, all other tensors are dense.

    Raises
    ------
    TypeError
        If the guide is not a `MeanFieldGuide`.
    ValueError
        If the posterior has several chains: choose one, ``Posterior(posterior.chains[:1])``.
    """
    check_posterior(posterior)
    if len(posterior.chains) > 1:
        raise ValueError(
            f"`posterior` must have a single chain, got {len(posterior.chains)}: choose one, as in "
            "Posterior(posterior.chains[:1])."
        )
    chain = posterior.chains[0]
    guide = _mean_field(chain)
    means = guide.split(guide.loc.detach())
    return {
        name: _compressed(means[name]) if means[name].dim() == 2 else means[name].clone()
        for name, _ in chain.network.bayesian_parameters()
    }


def _compressed(matrix: torch.Tensor) -> torch.Tensor:
    rows, columns = matrix.nonzero(as_tuple=True)
    starts = torch.searchsorted(rows, torch.arange(len(matrix) + 1, device=rows.device))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            starts.int(), columns.int(), matrix[rows, columns], matrix.shape, check_invariants=True
        )


def _mean_field(chain: FittedChain) -> MeanFieldGuide:
    if not isinstance(chain.guide, MeanFieldGuide):
        raise TypeError(
            f"`posterior` must have a MeanFieldGuide, which has a scale for each weight, got "
            f"{type(chain.guide).__name__}."
        )
    return chain.guide
