"""Where the autoguides of Pyro start: at the weights of the module, with little noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pyro.infer.autoguide.initialization import init_to_median, init_to_value

from .._core.trees import InputsLike
from ..priors import fan_in
from .flat_guide import INIT_SCALE
from .network import BayesianNetwork


def init_loc_fn(
    network: BayesianNetwork, x: InputsLike | None = None
) -> Callable[[dict[str, Any]], Any]:
    """Return the `init_loc_fn` of one of Pyro's autoguides: the initial means of `MeanFieldGuide`.

    These are the module's weights at the time of this call, and prior medians of other sites. The
    default of Pyro, the prior median of the weights, is near 0: hidden units are alike and pass
    hardly any gradient on, so that a fit of several hidden layers stalls.

    Parameters
    ----------
    network : BayesianNetwork
    x : array-like of shape (n, ...), optional
        Any input. Needed only if the likelihood is a custom callable with latent sites.
    """
    values = {site.name: site.start.detach().clone() for site in network.latent_sites(x)}
    return init_to_value(values=values, fallback=init_to_median)


def init_scale(network: BayesianNetwork) -> float:
    """Return the `init_scale` of one of Pyro's autoguides, which is a single number for all sites.

    It is the smallest that `MeanFieldGuide` has: 0.1 / sqrt(fan_in), of the layer with the most
    inputs. The default of Pyro, 0.1, is large compared with the weights of a wide layer.

    Parameters
    ----------
    network : BayesianNetwork
    """
    largest = max(fan_in(parameter) for _, parameter in network.bayesian_parameters())
    return INIT_SCALE / math.sqrt(largest)
