"""Pyro's `AutoNormal` with the initial values of `MeanFieldGuide`."""

from __future__ import annotations

import itertools
from typing import Any
from weakref import WeakKeyDictionary

import pyro
import pyro.poutine as poutine
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import Tensor

from .._core.arrays import check_positive
from .flat_guide import initial_loc_and_scale, inverse_softplus
from .jit import is_compiled_by_pyro
from .network import BayesianNetwork


def auto_normal(network: BayesianNetwork, *, init_scale: float | None = None) -> AutoNormal:
    """Return Pyro's `AutoNormal` for a network, with the initial values of `MeanFieldGuide`.

    Its parameters are not in Pyro's global param store, so that two guides in one process do not
    share them. Like any autoguide, it creates its parameters when it is first called on data.

    Parameters
    ----------
    network : BayesianNetwork
    init_scale : float, optional
        As for `MeanFieldGuide`.
    """
    if init_scale is not None:
        check_positive("init_scale", init_scale)
    with pyro.settings.context(module_local_params=True):
        return _LocalAutoNormal(network, init_scale)


_COUNTER = itertools.count()
_NUMBERS: WeakKeyDictionary[AutoNormal, int] = WeakKeyDictionary()
"""Numbers of guides in Pyro's param store, which outlives them; a copy has another number."""


class _LocalAutoNormal(AutoNormal):
    def __init__(self, network: BayesianNetwork, init_scale: float | None) -> None:
        super().__init__(poutine.block(network, hide=["y"]))  # y is not latent, even if not given
        self._network = (network,)  # a tuple, so that it is not registered as a submodule
        self._given_scale = init_scale  # `_init_scale` is an attribute of AutoNormal

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        if is_compiled_by_pyro():  # it needs the param store, in which the names must be unique
            number = _NUMBERS.setdefault(self, next(_COUNTER))
            for name, part in self.named_modules():
                if isinstance(part, PyroModule):
                    part._pyro_name = f"auto_normal.{number}.{name}"
            return super().__call__(*args, **kwargs)
        with pyro.settings.context(module_local_params=True):
            return super().__call__(*args, **kwargs)

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        with pyro.settings.context(module_local_params=True):
            super()._setup_prototype(*args, **kwargs)
        for site in self._network[0].latent_sites(*args[:1]):
            loc, scale = initial_loc_and_scale(site, self._given_scale)
            with torch.no_grad():
                self.locs.get_parameter(f"{site.name}_unconstrained").copy_(loc)
                rho = self.scales.get_parameter(f"{site.name}_unconstrained")
                rho.copy_(inverse_softplus(scale))
