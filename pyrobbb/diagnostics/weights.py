"""How much the weights of a network have learned: signal-to-noise ratios, KL, dead units."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..fitted import FittedChain, HasChains
from ..fitted.draws import draws_of
from ..likelihoods import base_of
from ..model.flat_guide import FlatGuide

if TYPE_CHECKING:
    import pandas as pd

AT_PRIOR = 0.05
"""KL divergence from the prior, in nats, below which a weight counts as still at its prior."""
N_NODES = 64
"""Nodes of the Gauss-Hermite rule for the KL divergence of a weight from its prior."""


def layers(posterior: HasChains) -> pd.DataFrame:
    """Measure, for each Bayesian parameter, how much it has learned.

    Returns
    -------
    DataFrame
        One row per parameter, over all chains: ``n``, the number of weights; ``snr``, the median
        of ``|mean| / sd``; ``below_1``, the share of weights with more noise than signal; ``kl``,
        the mean KL divergence from the prior, at the posterior median of a learned scale, in nats
        per weight; ``at_prior``, the share of weights whose KL divergence is below 0.05 nats. The
        last two are NaN for priors that do not factorise over the weights. A pruned weight has an
        snr of 0 and an infinite KL divergence.
    """
    import pandas as pd

    chains = posterior.chains
    parameters = [dict(chain.network.bayesian_parameters()) for chain in chains]
    moments = [_moments(chain) for chain in chains]
    scales = [_median_scales(chain) for chain in chains]
    rows = {}
    for name, parameter in parameters[0].items():
        loc = torch.stack([by_name[name][0] for by_name in moments])
        scale = torch.stack([by_name[name][1] for by_name in moments])
        snr = torch.where(scale == 0, 0.0, loc.abs() / scale)
        kl = torch.stack(
            [
                _kl_of_weights(
                    chain.network.prior_given(name, by_name[name], scales[i]), loc[i], scale[i]
                )
                for i, (chain, by_name) in enumerate(zip(chains, parameters, strict=True))
            ]
        )
        rows[name] = {
            "n": parameter.numel(),
            "snr": float(snr.median()),
            "below_1": float((snr < 1).double().mean()),
            "kl": float(kl.mean()),
            "at_prior": float((kl < AT_PRIOR).double().mean()) if not kl.isnan().any() else np.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def dead_units(posterior: HasChains) -> float | None:
    """Compute the share of hidden units without an outgoing weight with more signal than noise.

    Over all chains, and all pairs of consecutive linear layers; None if there is no such pair.
    """
    dead: list[Tensor] = []
    for chain in posterior.chains:
        linears = [
            (name, module)
            for name, module in chain.network.net.named_modules()
            if isinstance(module, nn.Linear)
        ]
        moments = _moments(chain)
        for (_, layer), (name, following) in pairwise(linears):
            outgoing = moments.get(f"{name}.weight")
            if outgoing is not None and layer.out_features == following.in_features:
                dead.append(~((outgoing[0].abs() / outgoing[1] > 1).any(0)))
    return float(torch.cat(dead).double().mean()) if dead else None


def _moments(chain: FittedChain) -> dict[str, tuple[Tensor, Tensor]]:
    """Return mean and standard deviation of each weight, in float64."""
    guide = chain.guide
    if isinstance(guide, FlatGuide):
        loc, sd = guide.split(guide.loc.detach()), guide.split(guide.sd.detach())
        return {name: (loc[name].double(), sd[name].double()) for name in loc}
    draws = draws_of((chain,), 500, seed=0)
    return {name: (d.double().mean(0), d.double().std(0)) for name, d in draws.items()}


def _median_scales(chain: FittedChain) -> dict[str, Tensor]:
    """Return the posterior median of each learned scale of the prior."""
    sites = [scale.site for scale in chain.network.learned_scales().values()]
    draws = draws_of((chain,), 500, seed=0) if sites else {}
    return {site: draws[site].median(0).values for site in sites}


def _kl_of_weights(prior: Any, loc: Tensor, scale: Tensor) -> Tensor:
    """Compute KL(N(loc, scale) || prior) of each weight, by quadrature."""
    base = base_of(prior)
    if base.event_shape:
        return torch.full_like(loc, math.nan)
    nodes, weights = np.polynomial.hermite_e.hermegauss(N_NODES)
    log_p = torch.zeros_like(loc)
    for node, weight in zip(nodes, weights / math.sqrt(2 * math.pi), strict=True):
        log_p += weight * base.log_prob(loc + node * scale)
    return -0.5 * math.log(2 * math.pi * math.e) - scale.log() - log_p
