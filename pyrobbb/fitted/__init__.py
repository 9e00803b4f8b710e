"""The result of one fit, shared by training, storage, diagnostics and the posterior."""

from .chain import FittedChain, HasChains, raise_if_interrupted
from .history import History
from .settings import FitSettings

__all__ = ["FitSettings", "FittedChain", "HasChains", "History", "raise_if_interrupted"]
