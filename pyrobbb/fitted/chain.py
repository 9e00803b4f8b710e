"""FittedChain: the result of one fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from ..model.network import BayesianNetwork
from .history import History
from .settings import FitSettings


@dataclass(frozen=True, eq=False)
class FittedChain:
    """The result of one fit. A posterior consists of chains, and stores nothing else.

    Attributes
    ----------
    network : BayesianNetwork
        In evaluation mode. Its point parameters and buffers are the fitted ones.
    guide : callable
        The Pyro guide.
    history : History
        Losses at each step.
    example : Tensor of shape (1, ...), or nested tuples and dicts of them
        The first row of x, for guides that use the model's arguments; all rows if they interact in
        the network, as in a graph.
    settings : FitSettings
        A mapping is converted to it.
    """

    network: BayesianNetwork
    guide: nn.Module | Callable[..., Any]
    history: History
    example: Any
    settings: FitSettings = field(default_factory=FitSettings)

    def __post_init__(self) -> None:
        if isinstance(self.settings, Mapping):
            object.__setattr__(self, "settings", FitSettings.from_mapping(self.settings))

    @property
    def is_interrupted(self) -> bool:
        """Whether Ctrl-C has ended the fit."""
        return bool(self.settings.is_interrupted)


def raise_if_interrupted(chains: Sequence[FittedChain]) -> None:
    """Raise a KeyboardInterrupt if Ctrl-C has ended a fit that was only a part of a computation.

    `pyrobbb.fit` returns what there is. A computation of several fits ends with the first that is
    interrupted.
    """
    if any(chain.is_interrupted for chain in chains):
        raise KeyboardInterrupt


class HasChains(Protocol):
    """The interface of a `Posterior`, for packages that cannot import that class."""

    @property
    def chains(self) -> tuple[FittedChain, ...]:
        """The chains, at least one."""
        ...
