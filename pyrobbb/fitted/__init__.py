"""The result of one fit, which training, storage, diagnostics and the posterior share."""

from .chain import FittedChain, HasChains
from .history import History
from .settings import FitSettings

__all__ = ["FitSettings", "FittedChain", "HasChains", "History"]
