"""The result of one fit, shared by training, storage, diagnostics and the posterior."""

from .chain import FittedChain, HasChains, list_chains, raise_if_interrupted
from .history import History
from .settings import FitSettings

__all__ = [
    "FitSettings",
    "FittedChain",
    "HasChains",
    "History",
    "list_chains",
    "raise_if_interrupted",
]
