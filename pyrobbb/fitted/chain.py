"""FittedChain: the result of one fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from .._core.display import Displayed, Listing, count_of
from .._core.messages import shown
from ..model.network import BayesianNetwork
from .history import History
from .settings import FitSettings


@dataclass(frozen=True, eq=False, repr=False)
class FittedChain(Displayed):
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

    def _listing(self) -> Listing:
        return list_chains("FittedChain", [self])

    @property
    def is_interrupted(self) -> bool:
        """Whether Ctrl-C has ended the fit."""
        return bool(self.settings.is_interrupted)


def list_chains(title: str, chains: Sequence[FittedChain]) -> Listing:
    """Return a table of chains: how they were fitted, and their last losses."""
    rows = []
    for i, chain in enumerate(chains):
        settings, n_steps = chain.settings, len(chain.history.nelbo)
        nelbo = f"{chain.history.per_epoch().nelbo[-1]:.5g}" if n_steps else "-"
        end = " (interrupted)" if chain.is_interrupted else ""
        fit = (settings.engine, chain.history.n_epochs, f"{n_steps:,}{end}", nelbo, settings.seed)
        guide = getattr(chain.guide, "__name__", type(chain.guide).__name__)
        rows.append((str(i), guide, *("-" if v is None else str(v) for v in fit)))
    network = chains[0].network
    n_weights = sum(weight.numel() for _, weight in network.bayesian_parameters())
    title = f"{title}: {count_of(len(chains), 'chain')}, {count_of(n_weights, 'weight')}"
    header = ("chain", "guide", "engine", "epochs", "steps", "nelbo", "seed")
    notes = (f"prior: {shown(network.prior)}", f"likelihood: {shown(network.likelihood)}")
    return Listing(title, header, rows, notes)


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
