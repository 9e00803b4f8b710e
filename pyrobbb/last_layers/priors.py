"""Normal priors of the weights of a last layer, by unit."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import Normal as NormalDistribution
from torch import Tensor

from ..likelihoods import base_of
from ..model.names import DEFAULT_PRIOR
from ..model.network import BayesianNetwork
from ..priors import ByName, Given, Normal, scale_family
from .features import LastLayer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class UnitPrior:
    """Independent normal priors of the weights of a last layer.

    Attributes
    ----------
    loc, scale : Tensor of shape (n_units, n_features)
    prior : ByName
        The same as a prior of the network, in which all other parameters have none.
    """

    loc: Tensor
    scale: Tensor
    prior: ByName


def isotropic_prior(last: LastLayer, scale: Tensor) -> UnitPrior:
    """Return centred priors with one scale for each unit, or for all.

    Parameters
    ----------
    last : LastLayer
    scale : Tensor of shape (n_units,) or (1,)
    """
    shape = (last.layer.out_features, last.n_features)
    spread = scale[:, None].expand(shape)
    values = scale.tolist()
    rule: Any
    if len(set(values)) == 1:
        rule = Normal(values[0])
    else:
        scales = {
            name: scale.reshape((-1, *(1,) * (p.dim() - 1))).expand(p.shape).to(p)
            for name, p in zip(last.parameters, last.layer.parameters(), strict=True)
        }
        rule = Given({name: torch.zeros_like(s) for name, s in scales.items()}, scales)
    return UnitPrior(torch.zeros_like(spread), spread, _restricted(last, rule))


def given_prior(network: BayesianNetwork, last: LastLayer) -> UnitPrior | None:
    """Return the network's priors of the last layer if they are normal with given scales.

    Otherwise log that they are replaced by one with a scale that maximises the evidence.
    """
    parameters = dict(network.net.named_parameters())
    bases: dict[str, Any] = {}
    for name in last.parameters:
        family = scale_family(network.prior, name)
        is_given = family is None or family.learned is None
        prior = network.prior(name, parameters[name].detach()) if is_given else None
        bases[name] = None if prior is None else base_of(prior)
    if not all(isinstance(base, NormalDistribution) for base in bases.values()):
        if network.prior is not DEFAULT_PRIOR:
            logger.info(
                "The prior of the last layer, %r, is replaced by a normal prior whose scale "
                "maximises the evidence.",
                network.prior,
            )
        return None
    loc, scale = (
        last.by_unit({n: getattr(b, part).expand(b.batch_shape) for n, b in bases.items()})
        for part in ("loc", "scale")
    )
    return UnitPrior(loc, scale, _restricted(last, network.prior))


def _restricted(last: LastLayer, rule: Any) -> ByName:
    return ByName(dict.fromkeys(last.parameters, rule), default=None)
